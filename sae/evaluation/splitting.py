"""Feature splitting: how latents of a small dictionary come apart in larger ones, as a graph.

An edge leads from a latent A of one dictionary to a latent B of the next larger one where their *masked cosine* is
high: the cosine of their activations on the rows on which A fires, or on those on which B fires, whichever is larger
(Bricken et al. 2023, Towards Monosemanticity). A latent that fires on part of what its parent fires on, with the same
strengths, reaches 1. A latent may have several parents, so this is no tree.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.durable import write_durably
from sae.errors import EvaluationError
from sae.evaluation.metric import Measured, item_metric
from sae.evaluation.products import moments, power_products
from sae.evaluation.responses import SparseResponses

MASKED_COSINE = 0.4
MIN_TOGETHER = 10
"""Rows on which two latents must both fire; on a single shared row any two have a masked cosine of 1."""
FORMAT_VERSION = 1

Node = tuple[int, int]
"""Level, and number of the latent in the dictionary of that level."""


@dataclass(frozen=True)
class Edges:
    """From latents of one level to latents of the next, sorted by parent."""

    parent: Int[Tensor, " edges"]
    child: Int[Tensor, " edges"]
    cosine: Float[Tensor, " edges"]


@dataclass(frozen=True)
class SplittingGraph:
    """Dictionaries of rising size as levels, and edges between neighbouring levels.

    Attributes:
        names: what each level is called.
        rates: per level, the share of rows on which each latent fires, [latents]; 0 for dead ones.
        edges: one fewer than levels.
        min_cosine: masked cosine above which there is an edge.
        min_together: rows on which both ends of an edge fire at least.
    """

    names: tuple[str, ...]
    rates: tuple[Tensor, ...]
    edges: tuple[Edges, ...]
    min_cosine: float = MASKED_COSINE
    min_together: int = MIN_TOGETHER

    @classmethod
    def build(
        cls,
        names: Sequence[str],
        responses: Sequence[SparseResponses],
        min_cosine: float = MASKED_COSINE,
        min_together: int = MIN_TOGETHER,
    ) -> "SplittingGraph":
        """Relate the latents of dictionaries on the same rows, in the order given.

        Raises:
            EvaluationError: fewer than two dictionaries, other rows, or activations below 0.
        """
        if len(responses) < 2 or len({level.n_items for level in responses}) != 1:
            rows = [level.n_items for level in responses]
            raise EvaluationError(f"splitting: needs two or more dictionaries on the same rows; got rows {rows}.")
        for name, level in zip(names, responses, strict=True):
            if len(level.values) and level.values.min() < 0:
                raise EvaluationError(f"splitting: {name} has activations below 0; masks need latents that rest at 0.")
        edges = [
            _edges(parents, offspring, min_cosine, min_together) for parents, offspring in itertools.pairwise(responses)
        ]
        rates = tuple(level.n_fired.double() / level.n_items for level in responses)
        return cls(tuple(names), rates, tuple(edges), min_cosine, min_together)

    def children(self, latent: int, level: int = 0) -> list[tuple[int, float]]:
        """Return the latents of the next level that a latent leads to, with masked cosines, the largest first."""
        edges = self.edges[level]
        chosen = edges.parent == latent
        pairs = zip(edges.child[chosen].tolist(), edges.cosine[chosen].tolist(), strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])

    def n_children(self, level: int = 0) -> Int[Tensor, " latents"]:
        """Count the children of every latent of a level."""
        return torch.bincount(self.edges[level].parent, minlength=len(self.rates[level]))

    def n_parents(self, level: int) -> Int[Tensor, " latents"]:
        """Count the parents of every latent of a level; the first level has none."""
        if level == 0:
            return torch.zeros(len(self.rates[0]), dtype=torch.int64)
        return torch.bincount(self.edges[level - 1].child, minlength=len(self.rates[level]))

    @property
    def roots(self) -> list[Node]:
        """Live latents without a parent, level by level: all of the smallest dictionary, and what is new in others."""
        return [
            (level, latent)
            for level, rates in enumerate(self.rates)
            for latent in ((rates > 0) & (self.n_parents(level) == 0)).nonzero()[:, 0].tolist()
        ]

    def save(self, path: Path) -> None:
        """Write the graph as JSON, whole or not at all."""
        levels = [{"name": name, "rates": rates.tolist()} for name, rates in zip(self.names, self.rates, strict=True)]
        data = {
            "format_version": FORMAT_VERSION,
            "min_cosine": self.min_cosine,
            "min_together": self.min_together,
            "levels": levels,
            "edges": [{name: column.tolist() for name, column in vars(edges).items()} for edges in self.edges],
        }
        write_durably(path, [json.dumps(data).encode()], EvaluationError)

    @classmethod
    def load(cls, path: Path) -> "SplittingGraph":
        """Read a graph.

        Raises:
            EvaluationError: missing, or of another format version.
        """
        if not path.is_file():
            raise EvaluationError(f"{path}: no such graph.")
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("format_version") != FORMAT_VERSION:
            raise EvaluationError(f"{path}: format version {data.get('format_version')}, this reads {FORMAT_VERSION}.")
        return cls(
            names=tuple(level["name"] for level in data["levels"]),
            rates=tuple(torch.tensor(level["rates"], dtype=torch.float64) for level in data["levels"]),
            edges=tuple(_edges_from_json(edges) for edges in data["edges"]),
            min_cosine=data["min_cosine"],
            min_together=data["min_together"],
        )


@item_metric("children", better="neither", unit="latents", bounds=(0.0, float("inf")), chance=None, paired=False)
def children(graph: SplittingGraph, level: int) -> Float[Tensor, " latents"]:
    """Number of latents of the next larger dictionary that a latent leads to: masked cosine above 0.4.

    The masked cosine of two latents is the cosine of their activations on the rows on which one of them fires, the
    larger of the two (Bricken et al. 2023, Towards Monosemanticity). Differs from the source in that both must fire
    together on at least 10 rows. No direction is better; dead latents have no children.
    """
    return graph.n_children(level).double()


@item_metric("split_share", better="neither", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False)
def split_share(graph: SplittingGraph, level: int) -> Float[Tensor, " latents"]:
    """Share of live latents that split: two or more `children` in the next larger dictionary.

    No direction is better: it describes how a larger dictionary relates to a smaller. Dead latents are left out.
    """
    return torch.where(graph.rates[level] > 0, (graph.n_children(level) >= 2).double(), float("nan"))


@item_metric("inherited_share", better="neither", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False)
def inherited_share(graph: SplittingGraph, level: int) -> Float[Tensor, " latents"]:
    """Share of live latents of the larger dictionary that come from a latent of the next smaller one (see `children`).

    The rest are new. No direction is better. Dead latents are left out.
    """
    return torch.where(graph.rates[level + 1] > 0, (graph.n_parents(level + 1) > 0).double(), float("nan"))


def splitting_scores(graph: SplittingGraph, level: int = 0) -> list[Measured]:
    """Return the metrics of the step from one level to the next."""
    return [metric(graph, level) for metric in (children, split_share, inherited_share)]


def masked_cosines(
    one: SparseResponses, two: SparseResponses
) -> Iterator[tuple[int, Float[Tensor, "block others"], Float[Tensor, "block others"]]]:
    """Yield, for consecutive units of the first, the masked cosine with all of the second and the shared rows' count.

    Activations must not be negative. The cosine of units that never fire together is 0.
    """
    norms, other_norms = moments(one)[1], moments(two)[1]
    for first, sums in power_products(one, two, [(1, 1), (0, 2), (2, 0), (0, 0)]):
        dot, two_where_one, one_where_two, together = sums
        rows = slice(first, first + len(dot))
        # Either mask leaves the unit it comes from whole, so the cosine is larger where the other loses more.
        least = torch.minimum(norms[rows, None] * two_where_one, one_where_two * other_norms)
        yield first, torch.where(together > 0, dot * least.rsqrt(), 0.0), together


def _edges(parents: SparseResponses, offspring: SparseResponses, min_cosine: float, min_together: int) -> Edges:
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for first, cosine, together in masked_cosines(parents, offspring):
        parent, child = ((cosine > min_cosine) & (together >= min_together)).nonzero(as_tuple=True)
        found.append((parent + first, child, cosine[parent, child]))
    return Edges(*(torch.cat(column) for column in zip(*found, strict=True)))


def _edges_from_json(edges: dict[str, Any]) -> Edges:
    parent, child = (torch.tensor(edges[name], dtype=torch.int64) for name in ("parent", "child"))
    return Edges(parent, child, torch.tensor(edges["cosine"], dtype=torch.float64))
