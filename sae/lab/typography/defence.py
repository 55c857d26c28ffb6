"""Defending a subject against words on pictures: what a change to a degree does to the attack and to clean answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sae import log
from sae.dictionaries.base import Dictionary
from sae.dictionaries.codes import Codes
from sae.lab.change.interventions import Change, Parts
from sae.lab.change.panel import Panel, panel_codes
from sae.lab.typography.written import Pairs, Reader, embedded, panel_of, right, succeeded

CLEAN, WRITTEN, WORDS = KINDS = ("clean", "written", "words")
"""Pictures of things, the same with words on them, and pictures of nothing but a word."""
MOST_LOSS = 0.01
"""Of clean accuracy that a defence may cost."""
EMBEDDING = "visual.embedding"
Answers = Mapping[str, Float[Tensor, "n readers"]]


@dataclass
class Bed:
    """The pictures of one half, at any hookpoint.

    Attributes:
        subject, reader: what answers.
        hookpoint: of the dictionary.
        pairs: pictures and words.
        images, truth: of each of `KINDS`; those written on are in the order of the clean ones.
    """

    subject: Any
    reader: Reader
    hookpoint: str
    pairs: Pairs
    images: Mapping[str, UInt8[Tensor, "n 3 rows columns"]] = field(repr=False)
    truth: Mapping[str, Int[Tensor, " n"]] = field(repr=False)

    def __post_init__(self) -> None:
        self._panels: dict[str, dict[str, Panel]] = {}
        self._codes: dict[str, Codes] = {}

    def on_words(self, words: Int[Tensor, " words"]) -> "Bed":
        """Return the pictures on which some words are written, and those of these words alone."""
        keep = torch.isin(self.pairs.word, words)
        kept = {CLEAN: keep, WRITTEN: keep, WORDS: torch.isin(self.truth[WORDS], words)}
        images, truth = ({kind: of[kind][kept[kind]] for kind in KINDS} for of in (self.images, self.truth))
        return Bed(self.subject, self.reader, self.hookpoint, self.pairs.on(keep), images, truth)

    def panels(self, hookpoint: str) -> dict[str, Panel]:
        """Return the panels of all kinds of pictures."""
        if hookpoint not in self._panels:
            self._panels[hookpoint] = {
                kind: panel_of(self.subject, hookpoint, images, self.truth[kind], self.reader, self.pairs.names)
                for kind, images in self.images.items()
            }
        return self._panels[hookpoint]

    def codes(self, dictionary: Dictionary, kind: str) -> Codes:
        """Return the dictionary's codes of the pictures of a kind."""
        if kind not in self._codes:
            self._codes[kind] = panel_codes(self.panels(self.hookpoint)[kind], dictionary)
        return self._codes[kind]

    def untouched(self) -> Answers:
        """Return the answers of the subject as it is."""
        return {kind: panel.clean for kind, panel in self.panels(self.hookpoint).items()}

    def without_latents(self, dictionary: Dictionary, latents: list[int]) -> Answers:
        """Return answers with latents removed."""
        return {
            kind: panel.without(dictionary, self.codes(dictionary, kind), latents)
            for kind, panel in self.panels(self.hookpoint).items()
        }

    def without(self, parts: Parts, share: float = 1.0, hookpoint: str | None = None) -> Answers:
        """Return answers with a share of other parts removed."""
        panels = self.panels(hookpoint or self.hookpoint)
        return {kind: panel.changed(parts, Change("remove", share)) for kind, panel in panels.items()}

    def anew(self) -> Answers:
        """Return the answers of the subject as it is at the moment, run from the pictures."""
        return {kind: self.reader.answers(embedded(self.subject, self.images[kind])) for kind in KINDS}


@dataclass(frozen=True)
class Defence:
    """A change to several degrees: how many latents, heads or directions go, or which share of a direction."""

    name: str
    amounts: tuple[float, ...]
    answers: Callable[[Bed, float], Answers]
    latents: tuple[int, ...] = ()
    """In the order in which they go, of a defence that removes latents."""


@dataclass(frozen=True)
class Point:
    """What a defence to one degree does; each a share of pictures, one for each of `written.READERS`.

    Attributes:
        defence, amount: what was done; amount 0 is nothing.
        success: of attacks; before stands the answer of the untouched subject to the clean picture.
        clean, written, words: right answers, of pictures of words the class that is written.
    """

    defence: str
    amount: float
    success: tuple[float, ...]
    clean: tuple[float, ...]
    written: tuple[float, ...]
    words: tuple[float, ...]

    def row(self, readers: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {
                "defence": self.defence,
                "amount": self.amount,
                "read by": reader,
                "attacks that succeed": round(self.success[i], 4),
                "clean accuracy": round(self.clean[i], 4),
                "accuracy with words on": round(self.written[i], 4),
                "words alone read": round(self.words[i], 4),
            }
            for i, reader in enumerate(readers)
        ]


def point(bed: Bed, name: str, amount: float, answers: Answers) -> Point:
    """Return shares from answers."""
    share = lambda hits: tuple(hits.double().mean(0).tolist())  # noqa: E731
    shares = (share(right(answers[kind], bed.truth[kind])) for kind in KINDS)
    return Point(name, amount, share(succeeded(answers[WRITTEN], bed.untouched()[CLEAN], bed.pairs.word)), *shares)


def curve(bed: Bed, defence: Defence) -> list[Point]:
    """Return what a defence does to every degree, from nothing on."""
    start = point(bed, defence.name, 0.0, bed.untouched())
    return [start, *(point(bed, defence.name, one, defence.answers(bed, one)) for one in defence.amounts)]


def curves(bed: Bed, defences: Sequence[Defence]) -> dict[str, list[Point]]:
    """Return the curve of every defence by name; those of one name are draws of it, and their shares are averaged."""
    found: dict[str, list[list[Point]]] = {}
    for defence in log.track(defences, "defending"):
        found.setdefault(defence.name, []).append(curve(bed, defence))
    return {name: [_averaged(draws) for draws in zip(*of, strict=True)] for name, of in found.items()}


def _averaged(points: Sequence[Point]) -> Point:
    mean = lambda name: tuple(np.mean([getattr(one, name) for one in points], 0).tolist())  # noqa: E731
    return replace(points[0], **{name: mean(name) for name in ("success", "clean", "written", "words")})


def chosen(points: Sequence[Point], most_loss: float = MOST_LOSS) -> int:
    """Return which point has the least success among those that cost no more clean accuracy, zero-shot; the first of
    equals, so that nothing is done for nothing.
    """
    allowed = [i for i, one in enumerate(points) if points[0].clean[0] - one.clean[0] <= most_loss]
    return min(allowed, key=lambda i: (points[i].success[0], i))
