"""Network dissection against maps and masks of pixels, and on units that are on exactly where a thing is."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from sae.activations.store import Provenance
from sae.dictionaries.linear import Identity, IdentityConfig
from sae.errors import EvaluationError
from sae.evaluation.dissection import (
    DETECTOR,
    Masks,
    Overlap,
    dissected_share,
    dissection_iou,
    dissection_iou_equal,
    dissection_scores,
    unit_iou,
)
from sae.evaluation.sample import Sample, Units, halves
from sae.inputs.concepts import ConceptInputs, World
from sae.tensors import Kind

CELLS = 4


class Pictures:
    """Random masks of two parts, one of which is as wide as whole cells."""

    mask_names = ("concept", "text")

    def __init__(self, n_images: int) -> None:
        generator = np.random.Generator(np.random.PCG64(0))
        self.pixels = generator.random((n_images, 2, 8, 8)) * (generator.random((n_images, 2, 1, 1)) < 0.6)
        self.pixels[:, 0] = (generator.random((n_images, 2, 2)) < 0.3).repeat(4, 1).repeat(4, 2)
        self.concept = generator.integers(0, 3, n_images)

    def masks(self, start: int, stop: int, grid: tuple[int, int]) -> np.ndarray:
        cells = self.pixels[start:stop].reshape(-1, 2, grid[0], 8 // grid[0], grid[1], 8 // grid[1]).mean((3, 5))
        return cells.transpose(0, 2, 3, 1).reshape(stop - start, -1, 2)


def sample_of(pictures: Pictures, x: torch.Tensor, n_before: int = 0) -> Sample:
    """Images of a 2 x 2 grid, `n_before` class tokens in front of it."""
    n_images, n_rows = len(pictures.concept), CELLS + n_before
    kind = torch.full((n_rows,), int(Kind.PATCH), dtype=torch.uint8)
    kind[:n_before] = int(Kind.CLASS)
    example = torch.arange(n_images)
    rows = Provenance(
        example.repeat_interleave(n_rows),
        torch.arange(n_rows, dtype=torch.int32).repeat(n_images),
        kind.repeat(n_images),
    )
    labels = {"concept": pictures.concept}
    names = {"concept": ("cat", "dog", "cup")}
    return Sample(
        x=x, rows=rows, pooled=True, labels=labels, factors=labels, label_names=names, match=halves(example, 0)
    )


def neurons(sample: Sample) -> Units:
    width = sample.x.shape[1]
    return Units("neurons", Identity(IdentityConfig(d_sae=width), width), sample)


def values(units: Units, masks: Masks) -> dict[str, torch.Tensor]:
    return {measured.definition.name: measured.values for measured in dissection_scores(units, masks)}


def naive_iou(x: np.ndarray, half: np.ndarray, threshold: float, mask: np.ndarray) -> float:
    """Enlarge a unit's map [images 2 2] to 8 x 8 pixels and count."""
    on = ((x >= threshold) & (x > 0)).repeat(4, 1).repeat(4, 2)[half]
    intersection = (on * mask[half]).sum()
    union = on.sum() + mask[half].sum() - intersection
    return intersection / union if union else 0.0


@pytest.mark.parametrize("n_before", [0, 1])
def test_cells_give_the_overlap_of_pixels(n_before: int) -> None:
    pictures = Pictures(150)
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(150, CELLS, 5, generator=generator)
    maps[..., 1:3] *= torch.rand(maps[..., 1:3].shape, generator=generator) < 0.02
    maps[..., 3] = 0
    x = torch.cat([torch.full((150, n_before, 5), 9.0), maps], 1).flatten(0, 1)
    sample = sample_of(pictures, x, n_before)
    masks = Masks.of(sample, pictures, (2, 2))
    assert masks.names == ("concept", "text", "concept=cat", "concept=dog", "concept=cup")
    shares = (0.01, 0.05)
    overlap = Overlap.of(neurons(sample), masks, shares)
    match = sample.match.numpy()
    for unit in range(5):
        column = maps[..., unit].numpy().reshape(150, 2, 2)
        ordered = np.sort(column[match].ravel())
        thresholds = [float(ordered[-round(share * len(ordered))]) for share in shares]
        for label, name in enumerate(masks.names):
            mask = pictures.pixels[:, 1 if name == "text" else 0]
            if "=" in name:
                mask = mask * (pictures.concept == label - 2)[:, None, None]
            on_match = [naive_iou(column, match, threshold, mask) for threshold in thresholds]
            chosen = thresholds[int(np.argmax(on_match))]
            assert float(overlap.match[unit, label]) == pytest.approx(max(on_match), abs=1e-6)
            wanted = naive_iou(column, ~match, chosen, mask)
            assert float(overlap.score[unit, label]) == pytest.approx(wanted, abs=1e-6)
    on_match, scored = overlap.match.tolist(), overlap.score.tolist()
    for label in range(len(masks.names)):
        best = [max(drawn, key=lambda u: (on_match[u][label], -u)) for drawn in combinations(range(5), 2)]
        expected = np.mean([scored[u][label] for u in best])
        assert float(dissection_iou_equal(overlap, 2).values[label]) == pytest.approx(expected, abs=1e-6)
        top = max(range(5), key=lambda u: (on_match[u][label], -u))
        assert float(dissection_iou(overlap).values[label]) == pytest.approx(scored[top][label], abs=1e-6)
    for unit in range(5):
        top = max(range(len(masks.names)), key=lambda label: (on_match[unit][label], -label))
        assert float(unit_iou(overlap).values[unit]) == pytest.approx(scored[unit][top], abs=1e-6)
    per_unit = unit_iou(overlap)
    assert dissected_share(per_unit).values.tolist() == [float(iou > 0.04) for iou in per_unit.values.tolist()]
    assert dissection_iou_equal(overlap, 99).values.tolist() == pytest.approx(dissection_iou(overlap).values.tolist())


def perfect(pictures: Pictures, seed: int = 0) -> torch.Tensor:
    """Three units that are on where each concept is, and one that never is on."""
    there = torch.from_numpy(pictures.masks(0, len(pictures.concept), (2, 2))[..., 0])
    shown = torch.nn.functional.one_hot(torch.from_numpy(pictures.concept), 3)
    strength = 1 + torch.rand(there.shape, generator=torch.Generator().manual_seed(seed))
    maps = (there * strength)[..., None] * shown[:, None]
    return torch.cat([maps, torch.zeros(*there.shape, 1)], 2).flatten(0, 1).float()


def test_units_that_are_on_where_a_concept_is_score_1_and_shuffled_ones_chance() -> None:
    pictures = Pictures(3000)
    sample = sample_of(pictures, perfect(pictures))
    masks = Masks.of(sample, pictures, (2, 2))
    overlap = Overlap.of(neurons(sample), masks, [1.0])
    of_concepts = [masks.names.index(f"concept={name}") for name in ("cat", "dog", "cup")]
    assert overlap.unit[of_concepts].tolist() == [0, 1, 2] and overlap.label[:3].tolist() == of_concepts
    assert overlap.score[[0, 1, 2], of_concepts].tolist() == pytest.approx([1, 1, 1])
    found = values(neurons(sample), masks)
    assert found["unit_iou"][3] == 0 and (found["unit_iou"][:3] > DETECTOR).all()
    assert found["dissected_share"].tolist() == [1, 1, 1, 0]
    chance = values(neurons(sample.shuffled(0)), masks)
    assert chance["unit_iou"].max() < 0.02 and chance["dissection_iou"].max() < 0.02
    assert chance["dissected_share"].sum() == 0


def test_a_part_too_rare_for_both_halves_is_left_out() -> None:
    pictures = Pictures(200)
    pictures.pixels[9:, 1] = 0
    masks = Masks.of(sample_of(pictures, torch.zeros(800, 1)), pictures, (2, 2))
    assert "text" not in masks.names and "concept" in masks.names
    pictures.pixels[:] = 0
    with pytest.raises(EvaluationError, match="evaluate more images"):
        Masks.of(sample_of(pictures, torch.zeros(800, 1)), pictures, (2, 2))


def test_another_grid_and_rows_without_images_are_errors() -> None:
    pictures = Pictures(150)
    sample = sample_of(pictures, torch.zeros(600, 1))
    with pytest.raises(EvaluationError, match="16 cells, but patches lie at 4 positions"):
        dissection_scores(neurons(sample), Masks.of(sample, pictures, (4, 4)))
    with pytest.raises(EvaluationError, match="masks belong to images"):
        Masks.of(replace(sample, pooled=False), pictures, (2, 2))


def test_the_concept_world_says_what_lies_where() -> None:
    world = World(0, 32)
    inputs = ConceptInputs(world, "score", 40, uniform=True)
    shares = inputs.masks(3, 40, (2, 4))
    assert shares.shape == (37, 8, len(inputs.mask_names))
    known = [world.render(inputs.scene(index)).masks for index in range(3, 40)]
    for index, masks in enumerate(known):
        for part, name in enumerate(inputs.mask_names):
            mask = masks.get(name, np.zeros((32, 32)))
            if name == "background":
                mask = 1 - sum(masks.get(other, 0) for other in ("concept", "text", "companion", "badge"))
            assert shares[index, 6, part] == pytest.approx(mask[16:, 16:24].mean(), abs=1e-6)
    assert {name for masks in known for name in masks} > {"concept", "companion"}
