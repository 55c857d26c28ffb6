"""At which positions a change is made: all of them, those where a latent fires, or those that somebody chose."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from sae.activations.store import TRAINING_KINDS
from sae.errors import ConfigError
from sae.tensors import Kind, Rows

CLS: Literal["cls"] = "cls"
ALLOWED = "all, firing, cls, numbers such as 3 or -1, and ranges such as 0:4 or -2:"
_WORD = re.compile(r"(?P<first>-?\d+)?(?P<range>:)?(?P<last>-?\d+)?")


@dataclass(frozen=True)
class Span:
    """A range of positions, as Python's: its end is not in it, what is negative counts from the end of an example."""

    start: int | None = None
    stop: int | None = None

    def __str__(self) -> str:
        return f"{'' if self.start is None else self.start}:{'' if self.stop is None else self.stop}"


Position = int | Span | Literal["cls"]


@dataclass(frozen=True)
class At:
    """Positions at which a change is made.

    Numbers count the positions of the subject from 0: tokens of a text, BOS among them; of an image the class token
    where there is one, then patches, or the cells of a feature map, row by row. Negative numbers count from the end of
    each example. A range is cut where the example ends. Positions on which no dictionary is trained, such as BOS, never
    change.

    When a text is written on, positions are those of the prompt. New tokens change with all, with firing where it
    fires, and with a range that has no end; with nothing else.

    Attributes:
        chosen: numbers, ranges, or "cls" for the class token; None stands for all.
        firing: of these only those that hold some of the direction.
    """

    chosen: tuple[Position, ...] | None = None
    firing: bool = False

    @classmethod
    def of(cls, given: str | Iterable[int | str]) -> "At":
        """Read what somebody wrote: "all", "firing", "cls", numbers and ranges, with spaces or commas between them.

        Raises:
            ConfigError: nothing is given, a word is none of these, or all is not alone.
        """
        text = given if isinstance(given, str) else " ".join(map(str, given))
        words = text.replace(",", " ").split()
        if not words:
            raise ConfigError(f"at: nothing is given; allowed: {ALLOWED}.")
        if "all" in words and len(words) > 1:
            raise ConfigError(f"at: all stands alone, got {' '.join(words)}.")
        chosen: tuple[Position, ...] = tuple(_read(word) for word in words if word not in ("all", "firing"))
        return cls(chosen or None, "firing" in words)

    def mark(self, rows: Rows) -> Bool[Tensor, "example pos"]:
        """Mark the positions of a batch that may change.

        Raises:
            ConfigError: an example has no such position, or none of a range, that may change.
        """
        may = rows.of_kinds(TRAINING_KINDS)
        if self.chosen is None:
            return may
        found = torch.zeros_like(may)
        for one in self.chosen:
            here = _marked(one, rows) & may
            if not here.any(1).all():
                raise ConfigError(_missing(one, rows, may, int((~here.any(1)).nonzero()[0])))
            found |= here
        return found

    def fixed(self, length: int) -> "At":
        """Return the same positions of a text of some length counted from its start, where they stay as it grows."""
        from_start = lambda n: length + n if n < 0 else n  # noqa: E731

        def fix(one: Position) -> Position:
            if isinstance(one, Span):
                start = None if one.start is None else max(0, from_start(one.start))
                return Span(start, None if one.stop is None else min(max(0, from_start(one.stop)), length))
            return from_start(one) if isinstance(one, int) else one

        return replace(self, chosen=None if self.chosen is None else tuple(map(fix, self.chosen)))

    def __str__(self) -> str:
        return " ".join([*(["firing"] if self.firing else []), *map(str, self.chosen or ())]) or "all"


ALL, FIRING = At(), At(firing=True)


def every_row(shape: torch.Size) -> Rows:
    """Return rows of which every one is a token that may change, for activations of which no more is known."""
    return Rows(keep=torch.ones(shape, dtype=torch.bool), kind=torch.full(shape, int(Kind.TOKEN), dtype=torch.uint8))


def _read(word: str) -> Position:
    if word == CLS:
        return CLS
    found = _WORD.fullmatch(word)
    first, last = (None if found is None or found[name] is None else int(found[name]) for name in ("first", "last"))
    if found is not None and found["range"]:
        return Span(first, last)
    if first is None or last is not None:
        raise ConfigError(f"at: {word!r} is no position; allowed: {ALLOWED}.")
    return first


def _marked(one: Position, rows: Rows) -> Bool[Tensor, "example pos"]:
    if one == CLS:
        return rows.kind == int(Kind.CLASS)
    place, length = rows.keep.cumsum(1) - 1, rows.keep.sum(1, keepdim=True)
    from_start = lambda n: length + n if n < 0 else torch.full_like(length, n)  # noqa: E731
    if isinstance(one, int):
        return (place == from_start(one)) & rows.keep
    start = from_start(0 if one.start is None else one.start)
    return (place >= start) & (place < (length if one.stop is None else from_start(one.stop))) & rows.keep


def _missing(one: Position, rows: Rows, may: Bool[Tensor, "example pos"], example: int) -> str:
    where = "there" if len(may) == 1 else f"in example {example} of {len(may)} there"
    length, places = int(rows.keep[example].sum()), (rows.keep.cumsum(1) - 1)[example][may[example]].tolist()
    if not places:
        return f"at: {one} is given, but {where} is no position that may change."
    low, high = min(places), max(places)
    counted = f"{low} to {high}, or {low - length} to {high - length} from the end"
    classes = ", or cls" if bool((rows.kind[example] == int(Kind.CLASS)).any()) else ""
    return (
        f"at: {one} is no position that may change: {where} {'is' if length == 1 else 'are'} {length}, of which "
        f"these may: {counted}{classes}."
    )
