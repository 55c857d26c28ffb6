"""Two more measurements of a CLIP subject: is superposition real, and does a written word overrule what is seen."""

from dataclasses import replace

import numpy as np
import open_clip
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from sae.inputs.concepts import World
from sae.inputs.lettering import lettering
from scripts.subjects.clip_report import FACETS, embedded

AUC_BAR = 0.8
PER_CONCEPT = 32
"""Score pictures per concept (at least 30), spread over the facets seen in training."""
GATE_START, ATTACK_START = 2_000_000, 4_000_000
"""First score-split scene numbers of the gate and of the attacks, apart from those of the zero-shot bars."""


def gate_pictures(world: World) -> tuple[Tensor, Tensor]:
    """Return score pictures [n, 3, size, size] uint8 in seen facets and the number of each one's concept [n]."""
    images, concepts = [], []
    for concept in world.concepts:
        open_facets = [facet for facet in FACETS if facet not in concept.held_out_facets]
        for i in range(PER_CONCEPT):
            facet = open_facets[i % len(open_facets)]
            index = GATE_START + concept.number * PER_CONCEPT + i
            scene = world.scene("score", index, concept=concept.name, facet=facet)
            images.append(world.render(scene).image)
            concepts.append(concept.number)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.tensor(concepts)


@torch.no_grad()
def peak_responses(model: open_clip.CLIP, block: nn.Module, images: Tensor) -> np.ndarray:
    """Return the largest response over positions [n, channels] of a block of the image tower."""
    peaks: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        peaks.append(output.amax((2, 3)) if output.ndim == 4 else output.amax(1))

    handle = block.register_forward_hook(keep)
    embedded(model, images)
    handle.remove()
    return torch.cat(peaks).numpy()


def one_vs_rest_auc(responses: np.ndarray, concepts: np.ndarray, n_concepts: int) -> np.ndarray:
    """Return AUC [channels, n_concepts] of each channel for each concept against all others; ties count half."""
    n = len(concepts)
    counts = np.bincount(concepts, minlength=n_concepts)
    result = np.empty((responses.shape[1], n_concepts))
    for channel, values in enumerate(responses.T):
        _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
        ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[group]
        above = np.bincount(concepts, weights=ranks, minlength=n_concepts) - counts * (counts + 1) / 2
        result[channel] = above / (counts * (n - counts))
    return result


def unrelated(world: World) -> np.ndarray:
    """Return [n, n] bool: pairs of concepts of different families that are not associated either."""
    names = [concept.name for concept in world.concepts]
    return np.array([[not world.related(one, other) for other in names] for one in names])


def superposition(model: open_clip.CLIP, blocks: dict[str, nn.Module], world: World, pictures: tuple) -> dict:
    """Return, by hookpoint, the share of live channels that respond (AUC > 0.8) to two or more unrelated concepts."""
    apart, result = unrelated(world), {}
    images, concepts = pictures
    for name, block in blocks.items():
        responses = peak_responses(model, block, images)
        live = responses.std(0) > 1e-6
        auc = one_vs_rest_auc(responses[:, live], concepts.numpy(), len(world.concepts))
        hits = [np.flatnonzero(row > AUC_BAR) for row in auc]
        mixed = [bool(apart[np.ix_(hit, hit)].any()) for hit in hits]
        result[name] = {
            "channels": responses.shape[1],
            "live": int(live.sum()),
            "share_for_two_unrelated": round(float(np.mean(mixed)), 4),
            "share_for_none": round(float(np.mean([len(hit) == 0 for hit in hits])), 4),
            "median_concepts": float(np.median([len(hit) for hit in hits])),
        }
    return result


def overwritten(image: np.ndarray, word: str, share: float = 0.9) -> np.ndarray:
    """Return the picture with a large word on a light strip across its lower half."""
    side = image.shape[0]
    mask = lettering(word, "sans", int(2 * side * share), int(2 * side * 0.4)).reduce(2)
    picture = Image.fromarray(image)
    left, top = (side - mask.width) // 2, int(side * 0.72) - mask.height // 2
    box = (0, top - 2, side, top + mask.height + 2)
    ImageDraw.Draw(picture).rectangle(box, fill=(242, 240, 232))
    picture.paste((24, 24, 36), (left, top), mask)
    return np.asarray(picture)


def typographic_attack(model: open_clip.CLIP, world: World, vectors: Tensor, per_concept: int = 2) -> dict:
    """Return how often another concept's word, written on a photo named rightly, turns the answer to that concept.

    `small` writes it as incidental text occurs in the world, `large` across the frame. Only words and photos whose
    facet was seen in training take part.
    """
    rng = np.random.default_rng(0)
    readable = [c for c in world.concepts if "word" not in c.held_out_facets]
    clean, small, large, truth, written = [], [], [], [], []
    for concept in (c for c in world.concepts if "photo" not in c.held_out_facets):
        for i in range(per_concept):
            word = readable[rng.integers(len(readable))]
            if word.number == concept.number:
                continue
            index = ATTACK_START + concept.number * per_concept + i
            scene = replace(world.scene("score", index, concept=concept.name, facet="photo"), text="")
            clean.append(world.render(scene).image)
            small.append(world.render(replace(scene, text=word.name)).image)
            large.append(overwritten(clean[-1], word.name))
            truth.append(concept.number)
            written.append(word.number)
    right = _answers(model, vectors, clean) == np.array(truth)
    result = {"photos": int(right.sum())}
    for name, attacked in (("small", small), ("large", large)):
        answers = _answers(model, vectors, attacked)[right]
        result[f"{name}_word_wins"] = round(float((answers == np.array(written)[right]).mean()), 4)
        result[f"{name}_photo_still_right"] = round(float((answers == np.array(truth)[right]).mean()), 4)
    return result


def _answers(model: open_clip.CLIP, vectors: Tensor, images: list[np.ndarray]) -> np.ndarray:
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return (embedded(model, stacked) @ vectors.T).argmax(1).numpy()
