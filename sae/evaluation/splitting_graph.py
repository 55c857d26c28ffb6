"""Several dictionaries of one hookpoint as levels of a graph of latents and what they become."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from sae.durable import write_durably
from sae.errors import EvaluationError
from sae.evaluation.splitting import MIN_TOGETHER, Edges, Step

FORMAT_VERSION = 2

Node = tuple[int, int]
"""Level, and number of the latent in the dictionary of that level."""


@dataclass(frozen=True)
class SplittingGraph:
    """Dictionaries of rising size as levels, and edges between neighbouring levels.

    Attributes:
        names: what each level is called.
        rates: per level, the share of rows on which each latent fires, [latents]; 0 for dead ones.
        edges: one fewer than levels.
        bars: masked cosine above which there is an edge, one per `edges`.
    """

    names: tuple[str, ...]
    rates: tuple[Tensor, ...]
    edges: tuple[Edges, ...]
    bars: tuple[float, ...]

    @classmethod
    def of(cls, names: Sequence[str], steps: Sequence[Step]) -> "SplittingGraph":
        """Join steps, each from the larger dictionary of the step before it to a larger one."""
        rates = (steps[0].parent_rates, *(step.child_rates for step in steps))
        assert len(names) == len(rates), (names, len(steps))
        return cls(tuple(names), rates, tuple(step.edges for step in steps), tuple(step.bar for step in steps))

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
            "bars": self.bars,
            "min_together": MIN_TOGETHER,
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
            bars=tuple(data["bars"]),
        )


def _edges_from_json(edges: dict[str, Any]) -> Edges:
    parent, child = (torch.tensor(edges[name], dtype=torch.int64) for name in ("parent", "child"))
    return Edges(parent, child, torch.tensor(edges["cosine"], dtype=torch.float64))
