"""Pictures that differ in one continuous factor alone, and a subject's vectors on them."""

from dataclasses import dataclass, replace
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.activations.store import TRAINING_KINDS, Provenance
from sae.errors import ConfigError, EvaluationError, nearest
from sae.evaluation.sample import Sample, halves
from sae.lab.associations.strengths import class_means
from sae.subjects.base import Subject
from sae.tensors import Batch

if TYPE_CHECKING:
    from sae.inputs.concepts import Scene, World

BATCH_IMAGES = 128
MIN_CLASSES = 8
"""Classes below which a factor that is constant within each cannot be told from the classes."""


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
        thing: what each item is a picture of, all else equal; 0 for all where nothing is held equal, and the half where
            levels belong to classes.
        owner: the class that has the level, where all items of a class have the same; -1 for items of none.
    """

    factor: str
    values: tuple[float, ...]
    circular: bool
    sample: Sample
    level: Int[Tensor, " items"]
    thing: Int[Tensor, " items"]
    owner: Int[Tensor, " items"] | None = None

    @property
    def n_classes(self) -> int:
        """How many classes levels are dealt among; 0 where they are dealt among items."""
        return 0 if self.owner is None else int(self.owner.max()) + 1

    def placed(
        self, values: Float[Tensor, "items units"]
    ) -> tuple[Float[Tensor, "owners units"], Int[Tensor, " owners"], Int[Tensor, " owners"], Bool[Tensor, " owners"]]:
        """Return answers, level, thing and half of all that has a level of its own: items, or means of classes."""
        there = self.level >= 0
        rest = self.level[there], self.thing[there], self.sample.match[there]
        if self.owner is None:
            return values[there], *rest
        owner = self.owner[there]
        one = torch.empty(self.n_classes, dtype=torch.int64)
        one[owner] = torch.arange(len(owner))
        level, thing, match = (column[one] for column in rest)
        return class_means(values[there], owner, self.n_classes).T, level, thing, match


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


def labelled(
    sample: Sample, factor: str, n_levels: int, classes: Int[np.ndarray, " items"] | None = None, seed: int = 0
) -> Sweep:
    """Cut a numeric label of the sample into levels with equally many items; nothing else is held equal.

    A number that is constant within each class, such as a place on a map, says no more than which class an item is of:
    any order of the classes would explain as much. So it is cut into levels with equally many *classes*, at least two,
    of which one half is scored by the curve of the other.

    Raises:
        ConfigError: the sample has no such numbers.
        EvaluationError: they are constant within classes, of which there are fewer than eight.
    """
    known = numeric(sample)
    if factor not in known:
        raise ConfigError(f"factors: no numbers {factor!r} among the labels.{nearest(factor, known)}")
    values = torch.from_numpy(known[factor])
    if classes is not None and (of := _constant(values, torch.from_numpy(classes).long())) is not None:
        return _by_class(sample, factor, n_levels, *of, seed)
    level, middles = _cut(values, n_levels)
    return Sweep(factor, middles, False, sample, level, torch.zeros(sample.n_items, dtype=torch.int64))


def _cut(values: Float[Tensor, " things"], n_levels: int) -> tuple[Int[Tensor, " things"], tuple[float, ...]]:
    """Return the level of each value, -1 where there is none, and the mean of each level's."""
    there = values.isfinite()
    edges = values[there].quantile(torch.linspace(0, 1, n_levels + 1, dtype=torch.float64)[1:-1]).unique()
    cut = torch.bucketize(values, edges, right=True)
    # Few distinct values are as many levels.
    used, renumbered = cut[there].unique(return_inverse=True)
    level = torch.full((len(values),), -1)
    level[there] = renumbered
    return level, tuple(float(values[level == number].mean()) for number in range(len(used)))


def _constant(
    values: Float[Tensor, " items"], classes: Int[Tensor, " items"]
) -> tuple[Int[Tensor, " items"], Float[Tensor, " owners"]] | None:
    """Return which of the classes with a value an item is of, -1 for none, and their values; None if these vary."""
    there = values.isfinite() & (classes >= 0)
    _, of = classes[there].unique(return_inverse=True)
    value = torch.full((int(of.max()) + 1 if len(of) else 0,), torch.nan, dtype=torch.float64)
    value[of] = values[there]
    if not torch.equal(value[of], values[there]):
        return None
    owner = torch.full((len(values),), -1)
    owner[there] = of
    return owner, value


def _by_class(
    sample: Sample, factor: str, n_levels: int, owner: Int[Tensor, " items"], value: Float[Tensor, " owners"], seed: int
) -> Sweep:
    """Level and halve classes; every level has classes of both halves, and levels are dealt within these."""
    if len(value) < MIN_CLASSES:
        raise EvaluationError(
            f"factors: {factor!r} is the same in all of a class and {len(value)} classes have one; with fewer than "
            f"{MIN_CLASSES} it cannot be told from which class it is."
        )
    level, middles = _cut(value, min(n_levels, len(value) // 2))
    draw = torch.rand(len(value), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    half = torch.empty(len(value), dtype=torch.bool)
    half[(level + draw).argsort()] = torch.arange(len(value)) % 2 == 0
    there = owner >= 0
    levels = torch.where(there, level[owner], -1)
    halved = replace(sample, match=there & half[owner])
    return Sweep(factor, middles, False, halved, levels, halved.match.long(), owner)


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
