"""What a run learns from: the vectors it reads, those it writes if they are others, and what is held out of them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from jaxtyping import Float
from torch import Tensor

from sae.activations.holdout import hold_out
from sae.activations.join import align
from sae.activations.reader import ShuffledReader
from sae.activations.side_by_side import together
from sae.activations.store import ActivationStore, Vectors
from sae.dictionaries.affine import Affine
from sae.errors import ConfigError
from sae.training.config import TrainConfig
from sae.training.normalisation import Normalisation, normaliser, variance_after
from sae.training.trainer import Trainer

N_CHUNKS = 16
"""Parts of the held-out vectors; their spread gives the errors of what is calibrated."""


@dataclass(frozen=True)
class Selected:
    """Rows of every site that a run reads and, for a transcoder, writes: row i of all of them is the same place."""

    inputs: tuple[Vectors, ...]
    targets: tuple[Vectors, ...]

    @classmethod
    def of(cls, stores: Sequence[ActivationStore], config: TrainConfig) -> Self:
        """Find and align the sites: every hookpoint in every store, store by store.

        Raises:
            ConfigError: input and target hookpoints of a transcoder lie on different grids.
            HookpointError: a store lacks a hookpoint.
            StoreError: the rows cannot be aligned.
        """
        inputs, targets = (
            [config.rows.select(store, name) for store in stores for name in names]
            for names in (config.hookpoints, config.target_hookpoints)
        )
        for other in targets:
            if other.hookpoint.grid != inputs[0].hookpoint.grid:
                raise ConfigError(
                    f"target_hookpoint {other.hookpoint.name!r} lies on the grid {other.hookpoint.grid!r}, hookpoint "
                    f"{inputs[0].hookpoint.name!r} on {inputs[0].hookpoint.grid!r}: a transcoder writes on the rows "
                    "that it reads."
                )
        aligned = align([*inputs, *targets])
        return cls(aligned[: len(inputs)], aligned[len(inputs) :])

    @property
    def widths(self) -> tuple[list[int], list[int]]:
        """Widths of the sites that are read, and of those that a transcoder writes."""
        return [part.d_in for part in self.inputs], [part.d_in for part in self.targets]

    def __len__(self) -> int:
        return len(self.inputs[0])


@dataclass(frozen=True)
class Side:
    """The vectors that a dictionary reads or writes, and the map that normalises each site by itself.

    Attributes:
        vectors: rows to train on.
        held_out: rows that training does not see; None where nothing is held out.
        normalise: measured on all rows together.
        variance: total variance of the normalised vectors.
        sites: what the dictionary's file says of each site.
    """

    vectors: Vectors
    held_out: Vectors | None
    normalise: Affine
    variance: float
    sites: list[dict[str, Any]]

    @classmethod
    def of(
        cls, measured: Sequence[Vectors], kept: Sequence[Vectors], held_out: Sequence[Vectors], how: Normalisation
    ) -> Self:
        """Measure what the maps need, and put the sites side by side."""
        maps = [normaliser(part, how) for part in measured]
        variance = sum(variance_after(part, mapping) for part, mapping in zip(measured, maps, strict=True))
        rest = together(held_out) if held_out else None
        return cls(together(kept), rest, Affine.side_by_side(maps), variance, [_site(part) for part in measured])


@dataclass(frozen=True)
class Data:
    """Everything that a run reads."""

    inputs: Side
    target: Side | None

    @classmethod
    def of(cls, selected: Selected, config: TrainConfig) -> Self:
        """Hold out what the resolved config says, and measure the rest.

        Raises:
            TrainingError: the vectors of a site do not vary.
        """
        assert config.calibration_vectors is not None, "the config has not been resolved"
        parts, n = [*selected.inputs, *selected.targets], len(selected.inputs)
        kept, held_out = hold_out(parts, config.calibration_vectors, config.seed)
        inputs = Side.of(parts[:n], kept[:n], held_out[:n], config.normalisation)
        if not selected.targets:
            return cls(inputs, None)
        return cls(
            inputs, Side.of(parts[n:], kept[n:], held_out[n:], config.target_normalisation or config.normalisation)
        )

    @property
    def sides(self) -> tuple[Side, ...]:
        """What is read, then what is written, if that is something else."""
        return (self.inputs,) if self.target is None else (self.inputs, self.target)

    @property
    def written(self) -> Side:
        """What is written."""
        return self.target or self.inputs

    def __len__(self) -> int:
        return len(self.inputs.vectors)

    def reader(self, batch_vectors: int, seed: int) -> ShuffledReader[tuple[Tensor, ...]]:
        """Return endless batches in random order, one tensor per side."""
        return ShuffledReader(tuple(side.vectors for side in self.sides), batch_vectors, seed)

    def learn(self, trainer: Trainer, batch: tuple[Tensor, ...]) -> tuple[dict[str, Float[Tensor, ""]], int]:
        """Take one step; return its figures and the number of vectors learned from."""
        return trainer.step(*batch), len(batch[0])

    def sample(self, n_vectors: int, seed: int) -> tuple[Tensor, ...]:
        """Return vectors in a random order of their own, of all sides."""
        return next(self.reader(min(n_vectors, len(self)), seed))

    def calibration_chunks(self) -> Iterator[Tensor]:
        """Yield the held-out vectors that are read, in `N_CHUNKS` parts of equal size."""
        held_out = self.inputs.held_out
        if held_out is not None:
            size = max(len(held_out) // N_CHUNKS, 1)
            for start in range(0, min(size * N_CHUNKS, len(held_out)), size):
                yield held_out.read(start, start + size)

    def describe(self) -> dict[str, Any]:
        """Return what a dictionary trained on these rows records."""
        parts = self.inputs.vectors.parts
        found = [part.describe() for part in parts]
        joined = {key: " + ".join(dict.fromkeys(d[key] for d in found)) for key in ("subject", "hookpoint", "store")}
        described = found[0] | joined | {"sites": self.inputs.sites}
        return described if self.target is None else described | {"target_sites": self.target.sites}


def _site(vectors: Vectors) -> dict[str, Any]:
    """Describe a site; see sae/dictionaries/sites.py."""
    return {
        "subject": vectors.store.subject_id,
        "hookpoint": vectors.hookpoint.name,
        "store": vectors.store.hash,
        "width": vectors.d_in,
        "scale": math.sqrt(vectors.d_in) / vectors.statistics.mean_norm,
    }
