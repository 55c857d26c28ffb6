"""The data sheet of a CLIP subject: its bars, its gate and its reading, measured on the folder as it is shipped."""

import json
import logging
import time
from pathlib import Path

import open_clip
import torch
from torch import nn

from sae.inputs.concepts import World
from scripts.subjects.clip_folder import model_config, read_folder
from scripts.subjects.clip_gate import gate_pictures, superposition, typographic_attack
from scripts.subjects.clip_report import FACETS, prompted, score_set, told_colour, zero_shot

log = logging.getLogger("train_subjects")

BARS = {"photo": 0.90, "sketch": 0.85, "word": 0.85, "symbol": 0.80}
GATE = 0.5
PER_CELL = 3
"""Score pictures of every concept in every facet; the first one was looked at during training and is left out."""


def hookpoints(model: open_clip.CLIP) -> dict[str, nn.Module]:
    """Return the blocks whose output the gate looks at, by hookpoint name; the gate itself is the first."""
    visual = model.visual
    if hasattr(visual, "layer4"):
        names = {"layer4": visual.layer4, "layer3": visual.layer3}
        return {f"visual.{name}.{len(stage) - 1}.hook_post": stage[-1] for name, stage in names.items()}
    blocks = visual.transformer.resblocks
    return {f"visual.blocks.{i}.mlp.hook_post": blocks[i].mlp.gelu for i in reversed(range(len(blocks)))}


def measure(folder: Path, name: str, seed: int) -> dict:
    """Measure the subject in `folder`, add the figures to its `sheet.json` and return the sheet."""
    began = time.monotonic()
    model, tokenizer = read_folder(folder)
    size = model.visual.image_size
    size = size[0] if isinstance(size, tuple) else size
    world = World(seed=seed, size=size)
    vectors = prompted(model, tokenizer, world)
    accuracy = zero_shot(model, score_set(world, PER_CELL, first=1), vectors)
    pictures = gate_pictures(world)
    torch.manual_seed(0)
    untrained = open_clip.CLIP(**model_config(name, size, tokenizer.vocab_size)).eval()
    gate = superposition(model, hookpoints(model), world, pictures)
    sheet_path = folder / "sheet.json"
    sheet = json.loads(sheet_path.read_text()) if sheet_path.exists() else {}
    weights = sum(file.stat().st_size for file in folder.iterdir())
    sheet |= {
        "subject": name,
        "seed": seed,
        "bytes": weights,
        "parameters": sum(p.numel() for p in model.parameters()),
        "zero_shot": accuracy,
        "bars": {
            facet: {"bar": BARS[facet], "met": accuracy[facet]["seen"]["accuracy"] >= BARS[facet]} for facet in FACETS
        },
        "colour_adjective": told_colour(model, tokenizer, world),
        "typographic_attack": typographic_attack(model, world, vectors),
        "superposition": gate,
        "superposition_of_untrained": superposition(untrained, hookpoints(untrained), world, pictures),
        "gate": {"bar": GATE, "passed": next(iter(gate.values()))["share_for_two_unrelated"] >= GATE},
    }
    sheet_path.write_text(json.dumps(sheet, indent=1) + "\n")
    log.info("measured in %.0f s: %s", time.monotonic() - began, json.dumps(sheet["zero_shot"]))
    return sheet
