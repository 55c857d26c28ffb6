"""What is measured about a CLIP subject: zero-shot accuracy by facet, typographic attacks, superposition."""

from dataclasses import dataclass

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from sae.inputs.concepts import World, captions
from sae.inputs.concepts.vocabulary import COLOURS

FACETS = ("photo", "sketch", "word", "symbol")
SEEN_FONTS = ("sans", "serif", "mono", "stix")
CELL = 1_000
COLOUR_START = 9_000_000
"""First score-split scene number of the question after colours."""


@dataclass(frozen=True, kw_only=True)
class ScoreSet:
    """Score-split pictures [n, 3, size, size] uint8: every concept in every facet, equally often.

    `seen` says whether the facet of this concept was ever rendered in training, `new_font` whether the font was not.
    """

    images: Tensor
    concepts: Tensor
    facets: list[str]
    seen: Tensor
    new_font: Tensor

    def __len__(self) -> int:
        return len(self.concepts)


def score_set(world: World, per_cell: int, first: int = 0) -> ScoreSet:
    """Render score pictures `first` to `first + per_cell - 1` of every concept in every facet."""
    images, concepts, shown, seen, new_font = [], [], [], [], []
    for concept in world.concepts:
        for facet in FACETS:
            for repeat in range(first, first + per_cell):
                index = (concept.number * len(FACETS) + FACETS.index(facet)) * CELL + repeat
                scene = world.scene("score", index, concept=concept.name, facet=facet)
                images.append(world.render(scene).image)
                concepts.append(concept.number)
                shown.append(facet)
                seen.append(facet not in concept.held_out_facets)
                new_font.append(scene.font not in SEEN_FONTS)
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return ScoreSet(
        images=stacked,
        concepts=torch.tensor(concepts),
        facets=shown,
        seen=torch.tensor(seen),
        new_font=torch.tensor(new_font),
    )


@torch.no_grad()
def embedded(model: open_clip.CLIP, images: Tensor) -> Tensor:
    """Return unit image embeddings [n, embed] of uint8 pictures."""
    parts = [model.encode_image(part.float() / 127.5 - 1, normalize=True) for part in images.split(256)]
    return torch.cat(parts)


@torch.no_grad()
def prompted(model: open_clip.CLIP, tokenizer: open_clip.SimpleTokenizer, world: World) -> Tensor:
    """Return one unit vector per concept [n_concepts, embed]: the mean over its prompts in all facets."""
    means = [model.encode_text(tokenizer(world.prompts(concept)), normalize=True).mean(0) for concept in world.concepts]
    return F.normalize(torch.stack(means), dim=-1)


def zero_shot(model: open_clip.CLIP, score: ScoreSet, vectors: Tensor) -> dict:
    """Return top-1 accuracy over all concepts by facet: seen, unseen, and of words in new fonts, with counts."""
    right = (embedded(model, score.images) @ vectors.T).argmax(1) == score.concepts
    result = {}
    for facet in FACETS:
        here = torch.tensor([shown == facet for shown in score.facets])
        groups = {"seen": here & score.seen, "unseen": here & ~score.seen}
        if facet == "word":
            groups |= {"seen, fonts of training": here & score.seen & ~score.new_font}
            groups |= {"seen, new fonts": here & score.seen & score.new_font}
        cells = {name: right[rows].float() for name, rows in groups.items()}
        result[facet] = {
            name: {"accuracy": round(c.mean().item(), 4), "n": len(c)} for name, c in cells.items() if len(c)
        }
    return result


@torch.no_grad()
def told_colour(model: open_clip.CLIP, tokenizer: open_clip.SimpleTokenizer, world: World) -> dict:
    """Return how often the caption with the right colour word wins among the twelve, on photos of plain figures."""
    right = []
    for concept in world.concepts:
        if concept.family not in ("shape", "digit", "letter") or "photo" in concept.held_out_facets:
            continue
        texts = [f"a photo of {captions.noun(concept.name, concept.family, colour)}" for colour in COLOURS]
        told = model.encode_text(tokenizer(texts), normalize=True)
        scenes = [
            world.scene("score", COLOUR_START + 4 * concept.number + i, concept=concept.name, facet="photo")
            for i in range(4)
        ]
        images = torch.from_numpy(np.stack([world.render(scene).image for scene in scenes])).permute(0, 3, 1, 2)
        answers = (embedded(model, images) @ told.T).argmax(1).tolist()
        right += [tuple(COLOURS)[answer] == scene.colour for answer, scene in zip(answers, scenes, strict=True)]
    return {"accuracy": round(float(np.mean(right)), 4), "n": len(right), "chance": round(1 / len(COLOURS), 4)}
