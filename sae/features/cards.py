"""What is known of one latent, neuron or direction, as plain data: needs no torch.

A card is JSON through and through, the same in the catalog's files, on the page and in the notebook. Its sections are
those of `SECTIONS`; one that could not be made (no logits in a CLIP model, no labels on somebody's text) is missing,
never empty.
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sae.features.embed import card_document, card_frame

SECTIONS = {
    "statistics": "how often and how strongly it fires, with a histogram of its activations",
    "examples": "where it is strongest, at every quantile and level, at random, nearly on, and most negative",
    "writes": "what it does to the output: logits, or captions near it in the joint space",
    "neurons": "the neurons it reads and writes most, and those it goes with",
    "neighbours": "latents like it, and parents and children in dictionaries of other sizes",
    "labels": "the labels that it answers to",
    "facets": "its response to a concept as photo, sketch, word and symbol",
    "scores": "its interpretability scores, with those of controls",
    "held_out": "examples that the card does not show, to test its explanations on, each with whether it fires",
    "carried": "of a direction: how much of its variance the best latents explain",
    "mixture": "of a neuron: the concepts it mixes and the latents that carry each",
}
LEVEL = 4
"""Of zlib: twice as fast as its default, and cards are 7 % larger."""
DIGITS = 4
"""Significant digits of every number on a card."""


@dataclass(frozen=True)
class Card:
    """A latent with its evidence, or a neuron's or direction's.

    Attributes:
        kind: "latent", "neuron" or "direction".
        index: its number among its kind.
        title: a few words: its best explanation, or its strongest tokens or captions.
        sections: what is known, by name; see `SECTIONS`.
        folder: the catalog's, where its images lie; None for a card made in memory.
    """

    kind: str
    index: int
    title: str
    sections: Mapping[str, Any]
    folder: Path | None = field(default=None, compare=False, repr=False)

    def __getitem__(self, section: str) -> Any:
        """Return a section; a KeyError names those that this card has."""
        if section not in self.sections:
            raise KeyError(f"{section}: {self.kind} {self.index} has {', '.join(self.sections)}")
        return self.sections[section]

    def to_json(self) -> dict[str, Any]:
        """Return the card as it goes into files and to the page."""
        return {"kind": self.kind, "index": self.index, "title": self.title, **self.sections}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], folder: Path | None = None) -> "Card":
        rest = {key: value for key, value in data.items() if key in SECTIONS}
        return cls(kind=data["kind"], index=data["index"], title=data["title"], sections=rest, folder=folder)

    def to_html(self) -> str:
        """Return the card as one page that needs nothing else: images are inside, and nothing is loaded."""
        return card_document(self._drawn, self.folder)

    def _repr_html_(self) -> str:
        return card_frame(self._drawn, self.folder)

    @property
    def _drawn(self) -> dict[str, Any]:
        """What a page of this card alone needs: held-out examples, with their images, are not shown on it."""
        return {name: value for name, value in self.to_json().items() if name != "held_out"}

    def packed(self) -> bytes:
        """Return the card compressed; numbers are rounded to what a reader can see by whoever made them."""
        text = json.dumps(self.to_json(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return zlib.compress(text.encode(), LEVEL)

    @classmethod
    def unpacked(cls, data: bytes, folder: Path | None = None) -> "Card":
        return cls.from_json(json.loads(zlib.decompress(data)), folder)


def rounded(value: float) -> float | None:
    """Return a number with as many digits as cards have; None for one that is not finite, which JSON cannot hold."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def strings(value: Any) -> Iterator[str]:
    """Yield every string in plain data, keys left out: what a text search looks through."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)
