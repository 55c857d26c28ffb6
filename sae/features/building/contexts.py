"""An example as a card shows it: the tokens around a firing, or an image with its patches, each with its activation."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int, Int64, UInt8

from sae.activations.examples import StoredInputs
from sae.errors import CatalogError
from sae.features.building.evidence import Origins, Shown
from sae.features.building.firings import Firings
from sae.features.cards import rounded
from sae.features.rounding import array_rounded
from sae.inputs.base import Inputs

Ref = dict[str, Any]
IMAGES = "images"
REMEMBERED = 1 << 14
"""Examples whose tokens or captions are kept in memory."""
FRAMES_AT_A_TIME = 64


@dataclass(frozen=True)
class Window:
    """What a latent does around a row.

    Attributes:
        positions: of the rows that there are, rising.
        values: activation on each of them, 0 where it is silent, rounded.
        gapless: whether their positions follow one another.
    """

    example: int
    position: int
    value: float
    positions: Int[np.ndarray, " rows"]
    values: list[float]
    gapless: bool


class Contexts(Protocol):
    """Turns a window into a reference to an example, as cards hold it."""

    @property
    def reach(self) -> int | None:
        """Rows on either side that a window holds; None for the whole example."""
        ...

    def ref(self, window: Window) -> Ref: ...

    def finish(self, refs: Iterable[Ref]) -> None:
        """Write what the references point to."""
        ...


def references(
    firings: Firings, origins: Origins, shown: Mapping[str, Shown], contexts: Contexts
) -> list[dict[str, list[list[Ref]]]]:
    """Return for each latent, by name, the reference of every slot: a list of one, or of none for an empty slot."""
    rows = np.concatenate([one.rows for one in shown.values()], axis=1)
    values = np.concatenate([one.values for one in shown.values()], axis=1)
    refs = iter(
        [
            [] if window is None else [contexts.ref(window)]
            for window in _windows(firings, origins, rows, values, contexts.reach)
        ]
    )
    widths = {name: one.rows.shape[1] for name, one in shown.items()}
    return [{name: [next(refs) for _ in range(width)] for name, width in widths.items()} for _ in firings.latents]


def _windows(
    firings: Firings,
    origins: Origins,
    rows: Int64[np.ndarray, "latents slots"],
    values: np.ndarray,
    reach: int | None,
) -> Iterable[Window | None]:
    """Yield the window around each row, latent by latent; None for slots without one."""
    low, high = origins.span(rows)
    if reach is not None:
        low, high = np.maximum(low, rows - reach), np.minimum(high, rows + reach + 1)
    sizes = np.where(rows >= 0, high - low, 0).ravel()
    ends = sizes.cumsum()
    activations = _activations(firings, low, high, sizes, ends - sizes)
    gapless = origins.position[high - 1] - origins.position[low] == high - low - 1
    fields = (rows, low, high, values, origins.example[rows], origins.position[rows], gapless, ends - sizes, ends)
    for row, begin, stop, value, example, centre, whole, first, last in zip(
        *(field.ravel().tolist() for field in fields), strict=True
    ):
        if row < 0:
            yield None
            continue
        yield Window(example, centre, value, origins.position[begin:stop], activations[first:last], whole)


def _activations(
    firings: Firings,
    low: Int64[np.ndarray, "latents slots"],
    high: Int64[np.ndarray, "latents slots"],
    sizes: Int64[np.ndarray, " windows"],
    begins: Int64[np.ndarray, " windows"],
) -> list[float]:
    """Return the activations of all windows, one after another, each with one number per row."""
    latent = np.arange(len(low))[:, None] * firings.n_rows
    first, last = (np.searchsorted(firings.places, (latent + end).ravel()) for end in (low, high))
    counts = np.where(sizes > 0, last - first, 0)
    within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    entries = within + np.repeat(first, counts)
    at = firings.rows[entries] - np.repeat(low.ravel() - begins, counts)
    # A whole 0 is a third of 0.0 in a card, and most of its numbers are zero.
    found: list[float] = [0] * int(sizes.sum())
    for place, value in zip(at.tolist(), array_rounded(firings.values[entries]).tolist(), strict=True):
        found[place] = value
    return found


class TextContexts:
    """Tokens around a firing.

    Args:
        inputs: the store's.
        decode: the text of a token.
        reach: tokens on either side.
        pooled: whether a vector stands for the whole text; its first tokens are shown then.
    """

    def __init__(self, inputs: StoredInputs, decode: Callable[[int], str], reach: int, pooled: bool = False) -> None:
        self.reach: int | None = reach
        self._context, self._pooled = reach, pooled
        decode = cache(decode)
        self._tokens = lru_cache(REMEMBERED)(
            lambda example: [decode(token) for token in inputs.tokens(example).tolist()]
        )

    def ref(self, window: Window) -> Ref:
        """Return the tokens with a value each, null where there is no vector."""
        tokens, reach = self._tokens(window.example), self._context
        middle = min(reach, len(tokens)) if self._pooled else window.position
        start, stop = max(0, middle - reach), min(len(tokens), middle + reach + 1)
        return {
            "example": window.example,
            "position": window.position,
            "value": rounded(window.value),
            "start": start,
            "tokens": tokens[start:stop],
            "values": [None] * (stop - start) if self._pooled else _spread(window, start, stop),
        }

    def finish(self, refs: Iterable[Ref]) -> None:
        """Do nothing: the tokens are in the references."""


def _spread(window: Window, start: int, stop: int) -> list[float | None]:
    """Put the values of a window at their positions among those from start to stop; null where there is no row."""
    first, last = int(window.positions[0]), int(window.positions[-1])
    if window.gapless and start <= first and last < stop:
        return [None] * (first - start) + window.values + [None] * (stop - 1 - last)
    at = dict(zip(window.positions.tolist(), window.values, strict=True))
    return [at.get(position) for position in range(start, stop)]


def with_losses(refs: Sequence[Ref], losses: Mapping[int, Mapping[int, float | None]]) -> None:
    """Write beside the tokens of examples what the latent's removal adds to the next token's loss, where known."""
    for ref in refs:
        at = losses.get(ref["example"])
        if at is not None:
            ref["losses"] = [at.get(ref["start"] + i) for i in range(len(ref["tokens"]))]


class ImageContexts:
    """An image's frame, as the subject sees it, with the activation at each of its patches.

    Args:
        inputs: they make the frames again.
        describe: what is known of an example, as plain data.
        patches: position of each patch, in the order of the grid's cells; empty where vectors are pooled.
        grid: rows and columns of patches.
        folder: the catalog's.
    """

    reach: int | None = None

    def __init__(
        self,
        inputs: Inputs,
        describe: Callable[[int], Mapping[str, Any]],
        patches: Int64[np.ndarray, " patches"],
        grid: tuple[int, int],
        folder: Path,
    ) -> None:
        self._inputs, self._grid, self._folder = inputs, grid, folder
        self._patches = patches
        self.about = lru_cache(REMEMBERED)(lambda example: _plain(describe(example)))

    def ref(self, window: Window) -> Ref:
        """Return the path of the frame with a value for each patch, null where there is no vector."""
        found: Ref = {
            "example": window.example,
            "position": window.position,
            "value": rounded(window.value),
            "image": image_name(window.example),
        }
        if len(self._patches):
            at = dict(zip(window.positions.tolist(), window.values, strict=True))
            found |= {"grid": list(self._grid), "values": [at.get(patch) for patch in self._patches.tolist()]}
        about = self.about(window.example)
        return found | ({"about": about} if about else {})

    def finish(self, refs: Iterable[Ref]) -> None:
        """Write the frames that are not there yet."""
        wanted = sorted({ref["example"] for ref in refs})
        missing = [one for one in wanted if not _is_filled(self._folder / image_name(one))]
        (self._folder / IMAGES).mkdir(parents=True, exist_ok=True)
        for run in runs(missing, FRAMES_AT_A_TIME):
            images = self._inputs.batch(run.start, run.stop).images
            if images is None:
                raise CatalogError(f"{self._inputs.describe()}: example {run.start} has no image to show.")
            for example, frame in zip(run, images.cpu().numpy(), strict=True):
                write_frame(self._folder / image_name(example), frame)


def image_name(example: int) -> str:
    """Return where the frame of an example lies in a catalog."""
    return f"{IMAGES}/{example:06d}.png"


def write_frame(path: Path, frame: UInt8[np.ndarray, "3 height width"]) -> None:
    """Write a frame as PNG, losslessly; the file appears whole.

    It is not flushed to the disk one by one, which would take longer than all the rest; an empty one that a power cut
    may leave is written again.
    """
    from PIL import Image

    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0))).save(temporary, format="png")
    temporary.replace(path)


def runs(numbers: list[int], longest: int) -> Iterable[range]:
    """Cut rising numbers into runs without gaps."""
    start = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1 or i - start == longest:
            yield range(numbers[start], numbers[i - 1] + 1)
            start = i


def _is_filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _plain(about: Mapping[str, Any]) -> dict[str, Any]:
    """Keep texts and numbers: what an image shows and is called, not how it was cropped."""
    return {key: value for key, value in about.items() if isinstance(value, str | int | float) and key != "index"}
