"""Pictures that differ in one continuous factor alone, and a subject's vectors on them."""

from dataclasses import dataclass, replace
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.activations.store import TRAINING_KINDS, Provenance
from sae.errors import ConfigError, EvaluationError, nearest
from sae.evaluation.sample import Sample, halves
from sae.subjects.base import Subject
from sae.tensors import Batch

if TYPE_CHECKING:
    from sae.inputs.concepts import Scene, World

BATCH_IMAGES = 128


@dataclass(frozen=True)
class Range:
    """Where a factor is varied; a circle comes back to its beginning."""

    low: float
    high: float
    circular: bool = False

    def levels(self, n: int) -> list[float]:
        """Return evenly spaced values; the end of a circle is its beginning and left out."""
        return np.linspace(self.low, self.high, n, endpoint=not self.circular).tolist()


SWEPT = {
    "hue": Range(0, 1, circular=True),
    "light": Range(0, 360, circular=True),
    "rotation": Range(-18, 18),
    "size": Range(0.5, 0.95),
    "x": Range(-0.3, 0.3),
    "y": Range(-0.3, 0.3),
}
"""Factors of the concept world that can be varied alone; turns are those of its pictures, the rest goes a little on."""
BARE: dict[str, Any] = {"text": "", "companion": "", "badge": False, "alias": "", "mentions": ()}


@dataclass(frozen=True)
class Sweep:
    """Items at levels of one factor.

    Attributes:
        factor: its name.
        values: of the factor at every level.
        circular: whether the last level is a neighbour of the first.
        sample: the items, with halves.
        level: of each item; -1 for items of which the factor says nothing.
        thing: what each item is a picture of, all else equal; 0 for all where nothing is held equal.
    """

    factor: str
    values: tuple[float, ...]
    circular: bool
    sample: Sample
    level: Int[Tensor, " items"]
    thing: Int[Tensor, " items"]


def rendered(
    subject: Subject, hookpoint: str, world: "World", factor: str, n_things: int, n_levels: int, seed: int = 0
) -> Sweep:
    """Render photos of the score split at every level of a factor, all else equal, and run the subject on them.

    Raises:
        ConfigError: a factor that cannot be varied alone.
    """
    if factor not in SWEPT:
        raise ConfigError(f"factors: {factor!r} cannot be varied alone.{nearest(factor, SWEPT)}")
    span, grid, vectors, rows = SWEPT[factor], subject.hookpoints()[hookpoint].grid, [], []
    scenes = [
        replace(scene, **{factor: value})
        for scene in shown(world, factor, n_things, seed)
        for value in span.levels(n_levels)
    ]
    for start in range(0, len(scenes), BATCH_IMAGES):
        images = np.stack([world.render(scene).image for scene in scenes[start : start + BATCH_IMAGES]])
        batch = Batch(first_example=start, images=torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
        found = subject.rows(batch, grid)
        keep = found.of_kinds(TRAINING_KINDS).cpu()
        example, position = keep.nonzero().T
        vectors.append(subject.run(batch, [hookpoint])[hookpoint].float().cpu()[keep])
        rows.append((example + start, position, found.kind.cpu()[keep]))
    thing = torch.arange(n_things).repeat_interleave(n_levels)
    sample = Sample(
        x=torch.cat(vectors),
        rows=Provenance(*(torch.cat(column) for column in zip(*rows, strict=True))),
        pooled=True,
        labels={},
        factors={},
        label_names={},
        match=halves(thing, seed),
    )
    level = torch.arange(n_levels).repeat(n_things)
    return Sweep(factor, tuple(span.levels(n_levels)), span.circular, sample, level, thing)


def shown(world: "World", factor: str, n: int, seed: int = 0) -> list["Scene"]:
    """Return bare photos of the score split, of all concepts alike, in which a factor can be seen as it is painted."""
    found: list[Scene] = []
    painted = ("hue", "saturation") if factor == "hue" else (factor,)
    for index in range(10_000 * (seed + 1), 10_000 * (seed + 1) + 1000 * n):
        scene = replace(world.scene("score", index, facet="photo", uniform=True), **BARE)
        labels = world.labels(scene)
        landscape = world.concept(scene.concept).family == "region"
        if not landscape and not any(isnan(float(labels[name])) for name in painted):
            found.append(scene)
        if len(found) == n:
            return found
    raise EvaluationError(f"{factor}: only {len(found)} of {n} scenes that show it were found.")


def labelled(sample: Sample, factor: str, n_levels: int) -> Sweep:
    """Cut a numeric label of the sample into levels with equally many items; nothing else is held equal.

    Raises:
        ConfigError: the sample has no such numbers.
    """
    known = numeric(sample)
    if factor not in known:
        raise ConfigError(f"factors: no numbers {factor!r} among the labels.{nearest(factor, known)}")
    values = torch.from_numpy(known[factor])
    there = values.isfinite()
    edges = values[there].quantile(torch.linspace(0, 1, n_levels + 1, dtype=torch.float64)[1:-1]).unique()
    cut = torch.bucketize(values, edges, right=True)
    # Few distinct values are as many levels.
    used, renumbered = cut[there].unique(return_inverse=True)
    level = torch.full((sample.n_items,), -1)
    level[there] = renumbered
    middles = tuple(float(values[level == number].mean()) for number in range(len(used)))
    return Sweep(factor, middles, False, sample, level, torch.zeros(sample.n_items, dtype=torch.int64))


def numeric(sample: Sample) -> dict[str, Float[np.ndarray, " items"]]:
    """Return the labels that are numbers, nan where they say nothing; classes whose names are numbers, too."""
    found = {}
    for family, values in sample.factors.items():
        if values.dtype.kind == "f":
            found[family] = values.astype(np.float64)
        elif values.dtype.kind in "iu" and all(map(_is_number, names := sample.label_names.get(family, ("",)))):
            found[family] = np.array([*map(float, names), np.nan])[values]
    return found


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False
