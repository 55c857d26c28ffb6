"""Changing how much of a direction a subject's vectors hold, with everything else, the dictionary's error too, kept.

A row holds an amount of each direction: a latent's code, or, of any other direction, the row's projection on it. A
change sets other amounts, and the row becomes x + sum_i (new_i - old_i) * direction_i. Where amounts stay, so does the
row, bit for bit. For latents this is the reconstruction with other codes plus the error of the untouched one, since
decoding is linear in the codes. Directions that are no latents take the same path, so controls compare.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.dictionaries.sites import hookpoints_read, output_sites
from sae.errors import ConfigError, DictionaryError
from sae.lab.change.positions import ALL, At, every_row
from sae.subjects.base import Activation, Edit
from sae.subjects.splice import record
from sae.tensors import Rows

Kind = Literal["add", "clamp", "scale", "remove"]
Unit = Literal["activation", "maximum", "norm"]
KINDS: tuple[Kind, ...] = ("add", "clamp", "scale", "remove")
UNITS: tuple[Unit, ...] = ("activation", "maximum", "norm")
Read = Callable[[Float[Tensor, "rows d_in"]], tuple[Float[Tensor, "rows parts"], Float[Tensor, "rows 1"]]]


@dataclass(frozen=True)
class Parts:
    """Directions, and how much of each a row holds.

    Attributes:
        directions: what one unit of each adds to a vector.
        read: gives the amounts of rows, and what a unit of an amount is worth in each row: 1, or the deviation that a
            dictionary with layer norm divides the row by.
    """

    directions: Float[Tensor, "parts d_out"]
    read: Read

    def joined(self, other: "Parts") -> "Parts":
        """Return both, one after the other."""

        def read(x: Float[Tensor, "rows d_in"]) -> tuple[Tensor, Tensor]:
            (one, worth), (two, other_worth) = self.read(x), other.read(x)
            return torch.cat([one, two * other_worth / worth], dim=1), worth

        return Parts(torch.cat([self.directions, other.directions]), read)


@dataclass(frozen=True)
class Change:
    """What happens to amounts.

    Attributes:
        kind: "add" a strength, "clamp" to it, "scale" by it, or "remove" that share: 1 takes all of it out, 2 turns it
            round.
        strength: of "add" and "clamp" an amount, in activations (see `unit_in_activation`); of "scale" and "remove" a
            factor.
        at: the positions where it happens.

    Raises:
        ConfigError: an unknown kind, or a strength that is not finite.
    """

    kind: Kind
    strength: float = 1.0
    at: At = ALL

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"change: unknown kind {self.kind!r}; allowed: {', '.join(KINDS)}.")
        if not torch.tensor(self.strength).isfinite():
            raise ConfigError(f"change: a strength must be finite, got {self.strength}.")

    def __call__(self, amounts: Float[Tensor, "rows parts"]) -> Float[Tensor, "rows parts"]:
        """Return by how much each amount changes in rows where it may, exactly zero where nothing does."""
        if self.kind == "add":
            change = torch.full_like(amounts, self.strength)
        elif self.kind == "clamp":
            change = self.strength - amounts
        else:
            change = amounts * (self.strength - 1 if self.kind == "scale" else -self.strength)
        return torch.where(amounts != 0, change, 0.0) if self.at.firing else change


def changed(x: Float[Tensor, "rows d_in"], parts: Parts, change: Change) -> Float[Tensor, "rows d_out"]:
    """Return what a change adds to each row.

    Raises:
        ConfigError: it is for chosen positions, which rows alone do not have.
    """
    if change.at.chosen is not None:
        raise ConfigError(f"change: at {change.at}, but rows alone have no positions; make it with `edits`.")
    return _added(x, parts, change)


def _added(x: Float[Tensor, "rows d_in"], parts: Parts, change: Change) -> Float[Tensor, "rows d_out"]:
    amounts, worth = parts.read(x)
    return (change(amounts) * worth) @ parts.directions.to(amounts)


def latent_parts(dictionary: Dictionary, latents: Sequence[int]) -> Parts:
    """Return latents as parts; amounts are codes.

    Raises:
        DictionaryError: there is no such latent, a latent is named twice, or none is.
    """
    check_latents(dictionary, latents)
    chosen = torch.tensor(list(latents), device=dictionary.W_dec.device)
    row = torch.full((dictionary.d_sae,), -1, device=chosen.device)
    row[chosen] = torch.arange(len(chosen), device=chosen.device)

    @torch.no_grad()
    def read(x: Float[Tensor, "rows d_in"]) -> tuple[Tensor, Tensor]:
        codes = dictionary.encode(x.to(chosen.device))
        place, values = row[codes.indices.long()], codes.values.float()
        amounts = values.new_zeros(len(x), len(chosen))
        mine = place >= 0
        amounts[codes.rows[mine], place[mine]] = values[mine]
        worth = values.new_ones(len(x), 1) if codes.row_deviation is None else codes.row_deviation.float()
        return amounts, worth

    return Parts(dictionary.W_dec.detach()[chosen].float(), read)


def vector_parts(vectors: Float[Tensor, "parts d_in"], centre: Float[Tensor, " d_in"] | None = None) -> Parts:
    """Return directions as parts: a row holds its projection on each, as far as it is from the centre's.

    Args:
        vectors: brought to norm 1; several are taken together, so removing all of them leaves nothing in their span.
        centre: what a row without any of them looks like; zero if not given.

    Raises:
        ConfigError: a vector is zero, or one is a mixture of the others.
    """
    unit = F.normalize(vectors.detach().float(), dim=1)
    if int(torch.linalg.matrix_rank(unit)) < len(unit):
        raise ConfigError("directions: one of them is zero or a mixture of the others.")
    reader = torch.linalg.pinv(unit)
    middle = torch.zeros(unit.shape[1]) if centre is None else centre.detach().float()

    def read(x: Float[Tensor, "rows d_in"]) -> tuple[Tensor, Tensor]:
        return (x - middle.to(x)) @ reader.to(x), x.new_ones(len(x), 1)

    return Parts(unit, read)


def edits(
    parts: Parts, change: Change, reads: str, writes: str | None = None, rows: Rows | None = None
) -> dict[str, Edit]:
    """Return a change as edits for `Subject.forward`.

    Args:
        parts: what is changed.
        change: how, and at which positions.
        reads: hookpoint at which amounts are read.
        writes: hookpoint at which the change is added, which the subject must reach after `reads`: of a transcoder;
            the same one if not given.
        rows: what `Subject.rows` says of the batch; those on which no dictionary is trained stay. If not given, every
            position is a token that may change.

    Raises:
        ConfigError: an example has no such position; without `rows` not before the edit is made.
    """
    found: dict[str, Activation] = {}
    marked = None if rows is None else change.at.mark(rows)

    def edit(x: Activation) -> Activation:
        source = found.pop(reads) if writes else x
        at = (change.at.mark(every_row(x.shape[:-1])) if marked is None else marked).to(x.device)
        out = x.clone()
        out[at] = (x[at].float() + _added(source[at].float(), parts, change).to(x.device)).to(x.dtype)
        return out

    if writes is None or writes == reads:
        writes = None
        return {reads: edit}
    return {reads: record(found, reads), writes: edit}


def places(dictionary: Dictionary) -> tuple[str, str]:
    """Return the hookpoint that a dictionary reads and the one that it writes, apart for a transcoder.

    Raises:
        DictionaryError: it reads or writes several: a change of a crosscoder's latent would have to be made before all
            it is read from is known.
    """
    reads, writes = [*hookpoints_read(dictionary)], [site.hookpoint for site in output_sites(dictionary)]
    if len(reads) > 1 or len(writes) > 1:
        raise DictionaryError(
            f"{dictionary!r}: reads {', '.join(reads)} and writes {', '.join(writes)}; latents are changed at one "
            "hookpoint, so this takes dictionaries and transcoders of one."
        )
    return reads[0], writes[0]


def unit_in_activation(dictionary: Dictionary, latent: int, unit: Unit, maximum: float, mean_norm: float) -> float:
    """Return how much activation of a latent one unit of strength is.

    Args:
        dictionary: whose latent.
        latent: its number.
        unit: "activation" itself, "maximum" that the latent reaches in the store, or "norm": as much as makes what it
            writes as long as the mean vector of the stream.
        maximum: the largest activation of the latent in the store.
        mean_norm: of vectors where the latent writes.

    Raises:
        ConfigError: an unknown unit, or one that is zero: the maximum of a latent that never fires, the norm of one
            that writes nothing.
    """
    if unit not in UNITS:
        raise ConfigError(f"unit: {unit!r} is unknown; allowed: {', '.join(UNITS)}.")
    length = float(dictionary.W_dec[latent].detach().norm())
    sizes = {"activation": 1.0, "maximum": maximum, "norm": mean_norm / length if length else 0.0}
    if not sizes[unit] > 0:
        raise ConfigError(f"latent {latent}: never fires in the store or writes nothing, so it has no {unit}.")
    return sizes[unit]


def check_latents(dictionary: Dictionary, latents: Sequence[int]) -> None:
    """Refuse latents that the dictionary does not have.

    Raises:
        DictionaryError: there is no such latent, a latent is named twice, or none is.
    """
    for latent in latents:
        if not 0 <= latent < dictionary.d_sae:
            raise DictionaryError(f"no latent {latent}: {dictionary!r} has latents 0 to {dictionary.d_sae - 1}.")
    if not latents or len(set(latents)) < len(latents):
        raise DictionaryError(f"latents {list(latents)}: name at least one, and each once.")
