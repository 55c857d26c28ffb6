"""What the firings of latents say of them: how often and how strongly they fire, and which examples to show."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64, Shaped
from torch import Tensor

from sae.activations.store import Vectors
from sae.dictionaries.base import Dictionary
from sae.errors import ConfigError
from sae.features.building.firings import Firings
from sae.features.building.sampling import Entries, Ranked, one_of_each, priorities, split, strongest
from sae.features.cards import rounded
from sae.features.rounding import array_rounded

N_BINS = 32
LOG_RANGE = 4096.0
"""Largest activation over the first inner edge of a log histogram; all below lies in its first bin."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How many examples a card shows."""

    top: int = 20
    """Examples on which the latent is strongest."""
    quantiles: int = 10
    """Equal shares of its firings, from the weakest to the strongest."""
    levels: int = 8
    """Equal widths of activation, from 0 to its maximum."""
    each: int = 2
    """Examples of every quantile and of every level."""
    random: int = 10
    """Examples of any firing, spread over the store."""
    near: int = 6
    """Examples that nearly fire, and as many that are furthest from it."""
    held_out: int = 10
    """Examples on which it fires, and as many on which it does not, kept from the card to test explanations on."""

    def __post_init__(self) -> None:
        for name in ("top", "quantiles", "levels", "each", "random", "near"):
            if getattr(self, name) < 1:
                raise ConfigError(f"examples.{name}: must be at least 1, got {getattr(self, name)}.")
        if self.held_out < 0:
            raise ConfigError(f"examples.held_out: must be at least 0, got {self.held_out}.")


@dataclass(frozen=True)
class Origins:
    """Which example each row of a store belongs to, and where in it; examples follow one another."""

    example: Int64[np.ndarray, " rows"]
    position: Int[np.ndarray, " rows"]

    @classmethod
    def of(cls, vectors: Vectors) -> "Origins":
        rows = vectors.provenance(0, len(vectors))
        return cls(rows.example.numpy(), rows.position.numpy())

    def span(
        self, rows: Int64[np.ndarray, "*shape"]
    ) -> tuple[Int64[np.ndarray, "*shape"], Int64[np.ndarray, "*shape"]]:
        """Return the first row of the examples that rows belong to, and one past the last."""
        example = self.example[rows]
        return np.searchsorted(self.example, example), np.searchsorted(self.example, example, side="right")


@dataclass(frozen=True)
class Shown:
    """Rows chosen for each latent, with what stands beside them; row -1 where there are fewer."""

    rows: Int64[np.ndarray, "latents slots"]
    values: Float[np.ndarray, "latents slots"]

    @classmethod
    def entries(cls, firings: Firings, chosen: Entries) -> "Shown":
        """Look chosen firings up."""
        if not len(firings.rows):
            return cls(np.full(chosen.shape, -1, dtype=np.int64), np.zeros(chosen.shape, dtype=np.float32))
        there = chosen >= 0
        return cls(np.where(there, firings.rows[chosen], -1), np.where(there, firings.values[chosen], 0.0))


class Evidence:
    """Statistics and examples of a range of latents.

    Args:
        firings: all of theirs.
        origins: of the rows.
        amounts: of examples.
        seed: of what is drawn.
        few_examples: draw from the same examples for all latents as far as they fire there, so that fewer images are
            shown altogether; the draw stays uniform for every single latent.
    """

    def __init__(
        self, firings: Firings, origins: Origins, amounts: Amounts, seed: int = 0, few_examples: bool = False
    ) -> None:
        self.firings, self.origins, self.amounts, self.seed = firings, origins, amounts, seed
        self.few_examples = few_examples

    @cached_property
    def ranked(self) -> Ranked:
        return Ranked(self.firings)

    @cached_property
    def example(self) -> Int64[np.ndarray, " nnz"]:
        """Example of each firing."""
        return self.origins.example[self.firings.rows]

    @cached_property
    def smallest(self) -> Float32[np.ndarray, " latents"]:
        """Weakest activation of each latent, 0 for one that never fires."""
        return self._end(self.firings.offsets[:-1])

    @cached_property
    def largest(self) -> Float32[np.ndarray, " latents"]:
        """Strongest activation of each latent, 0 for one that never fires."""
        return self._end(self.firings.offsets[1:] - 1)

    @cached_property
    def mean(self) -> Float[np.ndarray, " latents"]:
        """Mean activation over the rows on which a latent fires, 0 for one that never does."""
        total = np.bincount(self.firings.latent, self.firings.values.astype(np.float64), len(self.firings.latents))
        return total / np.maximum(self.firings.counts, 1)

    @cached_property
    def level_edges(self) -> Float32[np.ndarray, "latents edges"]:
        """Equal widths from 0 to the maximum."""
        return self._equal_widths(self.amounts.levels)

    def statistics(self) -> list[dict[str, Any]]:
        """Return the section "statistics" of each latent; without histograms where it never fires."""
        n_rows = self.firings.n_rows
        linear, log = self._histograms(self._equal_widths(N_BINS)), self._histograms(self._equal_ratios(N_BINS))
        columns = zip(self.firings.counts.tolist(), self.largest.tolist(), self.mean.tolist(), log, linear, strict=True)
        return [
            {"rate": rounded(n / n_rows), "n_fired": n, "n_vectors": n_rows, "max": rounded(top), "mean": rounded(mean)}
            | ({"histogram": in_ratios, "linear": in_widths} if n else {})
            for n, top, mean, in_ratios, in_widths in columns
        ]

    def examples(self) -> dict[str, Shown]:
        """Choose the firings to show: the strongest examples, of every quantile and level, and at random.

        Quantiles are exact; within a part every firing is as likely as any other.
        """
        offsets, amounts, order = self.firings.offsets, self.amounts, self.ranked.order
        whole = np.stack([offsets[:-1], offsets[1:]], axis=1)
        by_rank = self._priorities[order]
        quantiles = one_of_each(split(whole, amounts.quantiles * amounts.each), by_rank)
        levels = one_of_each(split(self.ranked.bounds(self.level_edges), amounts.each), by_rank)
        chosen = {
            "top": strongest(self.firings, self.example, amounts.top),
            "quantiles": _at(order, quantiles),
            "levels": _at(order, levels),
            "random": one_of_each(split(whole, amounts.random), self._priorities),
        }
        return {name: Shown.entries(self.firings, entries) for name, entries in chosen.items()}

    @cached_property
    def _priorities(self) -> Shaped[np.ndarray, " nnz"]:
        """Return a random number for each firing, or for the example that it is in."""
        if self.few_examples:
            return priorities(self.example, self.seed)
        first = self.firings.latents.start * self.firings.n_rows
        return priorities(self.firings.places + first, self.seed)

    def _end(self, rank: Int64[np.ndarray, " latents"]) -> Float32[np.ndarray, " latents"]:
        alive = self.firings.counts > 0
        found = np.zeros(len(rank), dtype=np.float32)
        found[alive] = self.ranked.values[rank[alive]]
        return found

    def _equal_widths(self, n: int) -> Float32[np.ndarray, "latents edges"]:
        return (self.largest[:, None].astype(np.float64) * np.arange(n + 1) / n).astype(np.float32)

    def _equal_ratios(self, n: int) -> Float32[np.ndarray, "latents edges"]:
        """Return edges that grow by a fixed factor up to the maximum; the first is the smallest activation."""
        largest = np.where(self.largest > 0, self.largest, 1.0)[:, None].astype(np.float64)
        low = np.clip(self.smallest[:, None], largest / LOG_RANGE, largest / 2)
        edges = low * (largest / low) ** (np.arange(n + 1) / n)
        edges[:, 0] = np.minimum(edges[:, 0], np.where(self.smallest > 0, self.smallest, np.inf))
        return edges.astype(np.float32)

    def _histograms(self, edges: Float32[np.ndarray, "latents edges"]) -> list[dict[str, list[Any]]]:
        counts = np.diff(self.ranked.bounds(edges), axis=1).tolist()
        return [
            {"edges": own, "counts": count} for own, count in zip(array_rounded(edges).tolist(), counts, strict=True)
        ]


class NearMisses:
    """Pre-activations of all latents on a sample of rows: which rows nearly fire, and which are furthest from it.

    A pre-activation is what the encoder's linear part gives, before anything is selected.

    Args:
        dictionary: whose latents.
        vectors: the rows.
        n_rows: how many of them were counted, from the first; on the others nobody knows what fires.
        n_vectors: how many to look at; drawn at random, one of each of as many equal stretches.
        seed: of the draw.
    """

    def __init__(self, dictionary: Dictionary, vectors: Vectors, n_rows: int, n_vectors: int, seed: int = 0) -> None:
        bounds = split(np.array([[0, n_rows]], dtype=np.int64), min(n_vectors, n_rows))
        self.rows = one_of_each(bounds, priorities(np.arange(n_rows), seed))[0]
        self.x = vectors.take(torch.from_numpy(self.rows))
        self.dictionary = dictionary

    def of(self, firings: Firings, n: int, n_spare: int = 0) -> dict[str, Shown]:
        """Return for each latent the rows of highest pre-activation where it is silent, and of the lowest.

        `spare` are as many as asked for that come after the highest ones.
        """
        pre = self.pre_activations(firings.latents)
        sampled = np.searchsorted(self.rows, firings.rows)
        fires = self.rows[np.minimum(sampled, len(self.rows) - 1)] == firings.rows
        lowest = (-pre).topk(min(n, len(self.rows)), dim=1)
        pre[torch.from_numpy(firings.latent[fires]), torch.from_numpy(sampled[fires])] = -torch.inf
        highest = pre.topk(min(n + n_spare, len(self.rows)), dim=1)
        return {
            "near": self._shown(highest.indices[:, :n], highest.values[:, :n]),
            "negative": self._shown(lowest.indices, -lowest.values),
            "spare": self._shown(highest.indices[:, n:], highest.values[:, n:]),
        }

    @torch.no_grad()
    def pre_activations(self, latents: range) -> Float[Tensor, "latents rows"]:
        """Return what the linear part of the encoder gives."""
        dictionary, here = self.dictionary, slice(latents.start, latents.stop)
        parts = [
            torch.addmm(
                dictionary.b_enc[here, None],
                dictionary.W_enc_rows[here],
                (dictionary.normalised(part.to(dictionary.W_dec.device)) - dictionary.centre).T,
            ).cpu()
            for part in self.x.split(4096)
        ]
        return torch.cat(parts, dim=1).float()

    def _shown(self, indices: Tensor, values: Tensor) -> Shown:
        """Turn numbers within the sample into rows; a row that is not finite was no candidate."""
        there = values.isfinite().numpy()
        return Shown(np.where(there, self.rows[indices.numpy()], -1), np.where(there, values.numpy(), 0.0))


def grouped(refs: list[list[Any]], each: int, ends: Callable[[int], tuple[float, float]]) -> list[dict[str, Any]]:
    """Return examples part by part, strongest part last; parts without examples are left out."""
    parts = [[ref for slot in refs[i : i + each] for ref in slot] for i in range(0, len(refs), each)]
    return [
        {"low": rounded(ends(i)[0]), "high": rounded(ends(i)[1]), "examples": part}
        for i, part in enumerate(parts)
        if part
    ]


def _at(order: Int64[np.ndarray, " nnz"], ranks: Int64[np.ndarray, "latents parts"]) -> Entries:
    return np.where(ranks >= 0, order[ranks], -1) if len(order) else ranks
