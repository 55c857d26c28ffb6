"""What a catalog says of all its cards together: columns, words to search, and its first page."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sae.features.building.map import Map, draw_map
from sae.features.building.titles import searched
from sae.features.cards import Card
from sae.features.catalog import About, write_columns, write_json
from sae.features.sections.scores import Scores, facts

STATISTICS = ("rate", "max", "mean", "n_fired")
"""Statistics of a card that are columns too."""


Entry = tuple[list[float], tuple[str, str]]
"""A card in the index: a number for each column, its title, and the words that a search looks through."""


def entry_of(card: Card) -> Entry:
    """Return a card's entry in the index."""
    statistics, labels = card["statistics"], card.sections.get("labels", ())
    best = max((label["auc"] for label in labels), default=math.nan)
    numbers = [*(statistics[name] for name in STATISTICS), best]
    return numbers, (card.title, searched(card.title, card.sections))


class Index:
    """Columns and words over all cards, gathered card by card."""

    def __init__(self) -> None:
        self._rows: list[list[float]] = []
        self.words: list[tuple[str, str]] = []

    def add(self, entry: Entry) -> None:
        numbers, words = entry
        self._rows.append(numbers)
        self.words.append(words)

    def columns(self) -> dict[str, Float[np.ndarray, " cards"]]:
        """Return the columns; without one for labels where no card has any."""
        table = np.array(self._rows, dtype=np.float64)
        found = dict(zip((*STATISTICS, "label_auc"), table.T, strict=True))
        return {name: column for name, column in found.items() if not np.isnan(column).all()}

    def draw_map(self, W_dec: Float[Tensor, "d_sae d_out"], seed: int) -> Map:
        """Lay out the latents that fire."""
        return draw_map(W_dec, [title for title, _ in self.words], self.columns()["rate"] > 0, seed)


def write_index(folder: Path, index: Index, more: Mapping[str, Float[np.ndarray, " cards"]] | None = None) -> None:
    """Write the columns and words of the cards of a kind."""
    write_columns(folder, index.columns() | dict(more or {}))
    write_json(folder / "words.json", index.words)


def write_overall(folder: Path, about: About, index: Index, scores: Scores | None, drawn: Map | None) -> None:
    """Write columns and words of the latents, and the overview."""
    write_index(folder / "latents", index, (scores.columns() if scores else {}) | (drawn.columns if drawn else {}))
    clusters = {"clusters": drawn.clusters} if drawn else {}
    write_json(folder / "overview.json", overview(about, index.columns()["rate"], scores) | clusters)


def overview(about: About, rates: Float[np.ndarray, " d_sae"], scores: Scores | None) -> dict[str, Any]:
    """Return what the first page shows beside tables."""
    exponents = np.arange(-14, 1) / 2
    alive = np.log10(rates[rates > 0])
    counts = np.histogram(alive.clip(exponents[0], exponents[-1]), exponents)[0]
    found = [
        ["latents", f"{len(rates):,}"],
        ["vectors", f"{about.n_vectors:,}"],
        ["never fire", f"{int((rates == 0).sum()):,}"],
    ]
    return {
        **(scores.overview() if scores else {}),
        "log_rates": {"edges": exponents.tolist(), "counts": counts.tolist()},
        "facts": found + (facts(scores.report) if scores else []),
    }
