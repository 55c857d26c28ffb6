"""Examples of the inputs that have a label, found by looking through them in an order drawn at random."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sae.errors import InputsError, nearest
from sae.features.building.contexts import runs
from sae.inputs.base import Inputs, Labelled
from sae.tensors import Batch

BLOCK = 64
"""Examples looked at together."""
MOST_LOOKED_AT = 20_000
MOST_VALUES = 1000
EXAMPLES_AT_ONCE = 32


@dataclass(frozen=True)
class Chosen:
    """Examples with a label, by rising number.

    Attributes:
        label: as it was asked for.
        places: number of each example, and the position of the token that was drawn in it, 0 where labels are not
            given per token.
        per_token: whether they are.
    """

    label: str
    places: Sequence[tuple[int, int]]
    per_token: bool

    def without(self, others: Collection[tuple[int, int]]) -> "Chosen":
        """Leave some out."""
        return Chosen(self.label, [place for place in self.places if place not in others], self.per_token)

    def batches(self, inputs: Inputs) -> Iterator[Batch]:
        """Yield the examples in order."""
        for run in runs([example for example, _ in self.places], EXAMPLES_AT_ONCE):
            yield inputs.batch(run.start, run.stop)


def families(inputs: Inputs) -> dict[str, list[str]]:
    """Return the values of every family that examples can be chosen by; empty without labels."""
    if not isinstance(inputs, Labelled):
        return {}
    named = {name: list(values)[:MOST_VALUES] for name, values in inputs.label_names.items()}
    return {name: values for name, values in named.items() if name not in inputs.bookkeeping and values}


def choose(inputs: Inputs, label: Any, limit: int, seed: int = 0) -> Chosen:
    """Draw examples that have a label.

    Args:
        inputs: with labels.
        label: `family=value`, or `family!=value` for all others of which the family says something.
        limit: how many; fewer where there are fewer among the `MOST_LOOKED_AT` that are looked at.
        seed: of the draw.

    Raises:
        InputsError: the inputs have no such label.
    """
    family, value, other = _parsed(inputs, label)
    generator, places, per_token = np.random.default_rng(seed), [], False
    starts = generator.permutation(np.arange(0, len(inputs), BLOCK))[: -(-MOST_LOOKED_AT // BLOCK)].tolist()
    for start in starts:
        found = np.asarray(inputs.labels(start, min(start + BLOCK, len(inputs)))[family])  # type: ignore[attr-defined]
        has = (found >= 0) & (found != value) if other else found == value
        per_token = found.ndim == 2
        if per_token:
            score = np.where(has, generator.random(has.shape), -1.0)
            drawn, has = score.argmax(1), has.any(1)
        else:
            drawn = np.zeros(len(has), dtype=np.int64)
        places += [(start + i, int(drawn[i])) for i in np.flatnonzero(has).tolist()]
        if len(places) >= limit:
            break
    return Chosen(label, sorted(places[:limit]), per_token)


def _parsed(inputs: Any, label: Any) -> tuple[str, int, bool]:
    """Return family, number of the value, and whether the others are meant."""
    known: Mapping[str, Sequence[str]] = families(inputs)
    if not known:
        raise InputsError("these inputs have no labels; bring texts or pictures.")
    if not isinstance(label, str) or "=" not in label:
        raise InputsError(f"label {label!r:.60}: must be family=value, as in {next(iter(known))}=...")
    family, _, value = label.partition("=")
    other, family = family.endswith("!"), family.removesuffix("!")
    if family not in known:
        raise InputsError(f"label {label!r:.60}: no family {family!r:.40}.{nearest(family, known)}")
    if value not in known[family]:
        raise InputsError(f"label {label!r:.60}: {family} has no {value!r:.40}.{nearest(value, known[family])}")
    return family, list(known[family]).index(value), other
