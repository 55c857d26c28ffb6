"""What every source of text or images can do: hand out examples by number, and say what it is."""

from collections.abc import Mapping, Sequence
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
    family says nothing. `label_names[family][value]` names a value.
    """

    label_names: Mapping[str, Sequence[str]]
    classes: Classes | None

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]: ...
