"""What every source of text or images can do: hand out examples by number, and say what it is."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sae.tensors import Batch


class Inputs(Protocol):
    """A finite, ordered collection of examples; any range can be made again, bit for bit."""

    @property
    def fingerprint(self) -> str:
        """A sha256 over everything that decides the examples."""
        ...

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def batch(self, start: int, stop: int) -> Batch:
        """Return examples start to stop."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what a manifest records, as plain JSON."""
        ...


@dataclass(frozen=True)
class Classes:
    """What a zero-shot classifier chooses between: prompts per class; the labels of `family` hold the answer."""

    family: str
    prompts: Sequence[Sequence[str]]


@runtime_checkable
class Labelled(Protocol):
    """Inputs with exact labels.

    `labels(start, stop)` gives, per family, integers of shape [examples, pos] (one per token) or [examples]; -1 where a
    family says nothing. `label_names[family][value]` names a value. Families in `bookkeeping` say how an example was
    drawn rather than what it shows; they are not scored.
    """

    label_names: Mapping[str, Sequence[str]]
    bookkeeping: Collection[str]
    classes: Classes | None

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]: ...


@runtime_checkable
class Masked(Protocol):
    """Images with exact masks.

    `masks(start, stop, grid)` gives the share of each cell that each part of `mask_names` covers, floats of shape
    [examples, pos, parts]; `grid` is the number of rows and columns of cells, which follow row by row.
    """

    mask_names: Sequence[str]

    def masks(self, start: int, stop: int, grid: tuple[int, int]) -> np.ndarray: ...


@runtime_checkable
class Kindred(Protocol):
    """Inputs that know which of their labels are related in ways that do not show in how often they occur together."""

    def kindred(self, one: str, other: str) -> bool:
        """Whether two labels, each `family=value`, are related."""
        ...


@runtime_checkable
class Associated(Protocol):
    """Inputs that know which of their classes bring others along, and which classes are alike in kind."""

    def associations(self) -> Mapping[str, Mapping[str, float]]:
        """Return, of each class that brings others along, these and how often."""
        ...

    def kin(self) -> Mapping[str, str]:
        """Return, of each class, what it is a kind of; classes of one kind look alike without any association."""
        ...


@runtime_checkable
class Frequent(Protocol):
    """Inputs that know how often a subject met each of their classes in its training."""

    def frequencies(self) -> Mapping[str, float]:
        """Return the share of each class by its name."""
        ...


@runtime_checkable
class Composed(Protocol):
    """Inputs that know which of their classes are mixtures of others, by construction."""

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """Return the classes that each mixture is made of, by names."""
        ...


@runtime_checkable
class Varied(Protocol):
    """Inputs that can show an example again with one factor changed and everything else alike."""

    def varied(self, index: int, family: str) -> Mapping[str, Batch]:
        """Return an example with each value of a factor; nothing where it does not show the factor."""
        ...
