"""What units answer before anything is selected: pre-activations, whose negative side shows what they suppress."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.dictionaries.linear import Directions
from sae.errors import ConfigError, EvaluationError, nearest
from sae.evaluation.gather import vectors_of
from sae.evaluation.pooling import pool_dense
from sae.evaluation.sample import CONTROL_SEED, ENCODED_ROWS, Sample
from sae.features.building.known import raw_neurons
from sae.lab.workbench import Workbench

KINDS = ("latent", "neuron", "direction")
_BLOCK = 256
NO_LABEL = "none"


class Readings:
    """Pre-activations of units on the items of a sample.

    Args:
        name: for tables.
        dictionary: whose units they are; a pre-activation is what the linear part of its encoder gives.
        sample: what they work on.
    """

    def __init__(self, name: str, dictionary: Dictionary, sample: Sample) -> None:
        self.name, self.dictionary, self.sample = name, dictionary, sample

    @property
    def n_units(self) -> int:
        return self.dictionary.d_sae

    @torch.no_grad()
    def of(self, units: range, lowest: bool = False) -> Float[Tensor, "items units"]:
        """Return the largest pre-activation over the rows of each item, or the lowest one.

        Raises:
            EvaluationError: there is no such unit.
        """
        if not 0 <= units.start < units.stop <= self.n_units:
            raise EvaluationError(
                f"{self.name} {units.start}: out of range; there are {self.n_units}, numbered 0 to {self.n_units - 1}."
            )
        dictionary, sample, here = self.dictionary, self.sample, slice(units.start, units.stop)
        rows = sample.pooled_rows.nonzero()[:, 0]
        device, parts = dictionary.W_dec.device, []
        for part in rows.split(ENCODED_ROWS):
            centred = dictionary.normalised(sample.x[part].float().to(device)) - dictionary.centre
            parts.append(torch.addmm(dictionary.b_enc[here], centred, dictionary.W_enc_rows[here].T).cpu())
        pre = torch.cat(parts).float()
        if not sample.pooled:
            return pre
        sign = -1 if lowest else 1
        return sign * pool_dense(sign * pre, sample.item[rows], sample.n_items)

    def blocks(self, lowest: bool = False) -> Iterator[tuple[int, Float[Tensor, "items units"]]]:
        """Yield the number of the first unit of every block, and the block's pre-activations."""
        for first in range(0, self.n_units, _BLOCK):
            yield first, self.of(range(first, min(first + _BLOCK, self.n_units)), lowest)


def latents(bench: Workbench, sample: Sample | None = None) -> Readings:
    """Return the dictionary's latents, on the labelled sample if no other is given."""
    return Readings("latent", bench.dictionary, bench.sample if sample is None else sample)


def neurons(bench: Workbench, hookpoint: str | None = None, sample: Sample | None = None) -> Readings:
    """Return the raw neurons, of another hookpoint if one is named: the subject then runs on the sample's examples.

    Behind a nonlinearity neurons have no negative side; name the hookpoint before it.
    """
    sample = bench.sample if sample is None else sample
    if hookpoint is not None:
        known = bench.subject.hookpoints()
        if hookpoint not in known:
            raise ConfigError(f"neurons_at: no hookpoint {hookpoint!r}.{nearest(hookpoint, known)}")
        sample = sample.with_vectors(vectors_of(bench.subject, hookpoint, bench.inputs, sample, batch_examples=64))
    width = sample.x.shape[1]
    return Readings("neuron", raw_neurons(width).to(bench.dictionary.W_dec.device), sample)


def random(sample: Sample, n: int, seed: int) -> Readings:
    """Return random directions through the mean vector, the control of everything read from one direction."""
    drawn = torch.randn(n, sample.x.shape[1], generator=torch.Generator().manual_seed(CONTROL_SEED + seed))
    return Readings("random_direction", Directions.of(drawn, sample.x.float().mean(0)), sample)


def difference(sample: Sample, label: str) -> Readings:
    """Return the direction from the mean vector to the mean of a label's, on the half to match on.

    Raises:
        EvaluationError: no label of the sample is called so.
    """
    names = sample.table.names
    if label not in names:
        raise EvaluationError(f"direction: no label {label!r}.{nearest(label, names)}")
    towards = sample.label_excess[0][:, names.index(label)]
    return Readings("direction", Directions.of(towards[None], sample.x.float().mean(0)), sample)


def unit_of(
    bench: Workbench, unit: str, neurons_at: str | None = None, sample: Sample | None = None
) -> tuple[Readings, int]:
    """Return what a text names and the unit's number: `latent:12`, `neuron:3` or `direction:concept=dog`.

    Args:
        bench: with its latents and neurons.
        unit: the text.
        neurons_at: another hookpoint for neurons.
        sample: to read on; the labelled one if not given, which a direction always needs.

    Raises:
        ConfigError: the text is none of these.
        EvaluationError: there is no such unit, or no such label.
    """
    kind, _, rest = unit.partition(":")
    if kind not in KINDS:
        raise ConfigError(f"unit: {unit!r} names no unit, such as latent:12.{nearest(kind, KINDS)}")
    if kind == "direction":
        return difference(bench.sample, rest), 0
    if not rest.isdecimal():
        raise ConfigError(f"unit: {unit!r}; a {kind} is named by its number, as {kind}:12.")
    found = latents(bench, sample) if kind == "latent" else neurons(bench, neurons_at, sample)
    if int(rest) >= found.n_units:
        raise EvaluationError(f"{unit}: out of range; there are {found.n_units}, 0 to {found.n_units - 1}.")
    return found, int(rest)


@dataclass(frozen=True)
class Family:
    """One family of labels: the value of every item, as a number into `names`.

    The last one is `none` where the family says nothing about some items.
    """

    name: str
    names: tuple[str, ...]
    values: Int[np.ndarray, " items"]

    @classmethod
    def of(cls, sample: Sample, family: str) -> "Family":
        """Read it from a sample.

        Raises:
            ConfigError: the sample has no such family of classes.
        """
        known = [name for name, values in sample.labels.items() if values.dtype.kind != "f"]
        if family not in known:
            raise ConfigError(f"family: no labels {family!r}.{nearest(family, known)}")
        raw = sample.labels[family]
        distinct, values = np.unique(raw, return_inverse=True)
        silent = np.isin(distinct, [-1] if raw.dtype.kind in "iu" else [""])
        called = sample.label_names.get(family)
        names = [str(value) if called is None else called[int(value)] for value in distinct[~silent]]
        if not silent.any():
            return cls(family, tuple(names), values.astype(np.int64))
        renumbered = np.where(silent, len(names), np.cumsum(~silent) - 1)
        return cls(family, (*names, NO_LABEL), renumbered[values])
