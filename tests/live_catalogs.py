"""Tiny subjects with a catalog each, and what answers questions about them."""

import io
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from tiny_clip import CONFIGS, save_clip
from tiny_language import TEXT, save_model

from sae.activations.harvest import harvest
from sae.activations.harvest_config import HarvestConfig
from sae.activations.store import ActivationStore
from sae.config import save
from sae.dictionaries.io import save_dictionary
from sae.dictionaries.topk import TopK, TopKConfig
from sae.features.building.build import build
from sae.features.building.catalog_config import CatalogConfig
from sae.features.building.evidence import Amounts
from sae.features.live.loaded import Loaded
from sae.inputs.configs import ImageInputsConfig, TextInputsConfig
from sae.inputs.source import open_inputs
from sae.lab.change.live import SteerAsk
from sae.subjects.load import load

FEW = Amounts(top=3, quantiles=2, levels=2, each=1, random=2, near=1)
COLOURS = {"cat": (210, 40, 30), "dog": (30, 60, 200)}


def text_catalog(folder: Path, architecture: str = "gpt2") -> Loaded:
    """Build the catalog of a random dictionary on a random language model."""
    model = save_model(architecture, folder / architecture)
    (folder / "text.txt").write_text("\n\n".join(TEXT[i:] for i in range(60)))
    packing = "none" if architecture == "bert" else "packed"
    inputs = TextInputsConfig(path=folder / "text.txt", context=16, packing=packing)
    return built(folder, f"language:{model}", inputs, "blocks.0.mlp.hook_post")


def image_catalog(folder: Path, hookpoint: str = "visual.blocks.1.hook_resid_post") -> Loaded:
    """Build one on a random CLIP model, over pictures of two colours in a folder for each class."""
    roomy = CONFIGS["vit"] | {"text_cfg": CONFIGS["vit"]["text_cfg"] | {"context_length": 24}}
    with patch.dict(CONFIGS, roomy=roomy):
        model = save_clip(folder / "clip", "roomy")
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(40):
            noise = random.integers(-25, 26, (40, 40, 3))
            picture = Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))
            picture.save(folder / "pictures" / name / f"{number:02d}.png")
    inputs = ImageInputsConfig(path=folder / "pictures")
    return built(folder, f"clip:{model}", inputs, hookpoint, "visual.embedding")


def built(folder: Path, subject_id: str, config: Any, hookpoint: str, *others: str) -> Loaded:
    subject = load(subject_id)
    settings = HarvestConfig(
        subject=subject.id,
        inputs=config,
        hookpoints=tuple({hookpoint: None, **dict.fromkeys(others)}),
        out=folder / "store",
    )
    given = {name: getattr(subject, name, None) for name in ("tokenizer", "tokenize", "preprocess")}
    inputs = open_inputs(config, **given)
    store = harvest(subject, inputs, settings)
    save(settings, settings.out / "config.yaml")
    width = store.hookpoints[hookpoint].d_in
    dictionary = TopK(TopKConfig(d_sae=24, k=4), width)
    vectors = store.vectors(hookpoint)
    dictionary.initialise(vectors.read(0, min(400, len(vectors))), torch.Generator().manual_seed(0))
    dictionary.provenance = {"subject": subject.id, "hookpoint": hookpoint, "store": store.hash}
    save_dictionary(dictionary, folder / "dictionary")
    made = CatalogConfig(
        dictionary=str(folder / "dictionary"),
        store=store.path,
        out=folder / "catalog",
        examples=FEW,
        map=False,
        context=3,
    )
    catalog = build(dictionary, store, made, subject, inputs)
    return Loaded.of(catalog, dictionary, ActivationStore(store.path), subject, inputs)


def picture_bytes(
    colour: tuple[int, int, int] = (210, 40, 30), size: tuple[int, int] = (50, 40), form: str = "png"
) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, format=form)
    return file.getvalue()


def steering(loaded: Loaded) -> SteerAsk:
    """What answers the panel of steering about a catalog."""
    ask = SteerAsk.of(loaded, loaded.catalog.path.parent / "store")
    assert ask is not None
    return ask
