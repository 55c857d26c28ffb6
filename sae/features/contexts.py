"""An example as a card shows it: the tokens around a firing, or an image with its patches, each with its activation."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32, Int, Int64, UInt8

from sae.activations.examples import StoredInputs
from sae.errors import CatalogError
from sae.features.cards import rounded
from sae.features.evidence import Origins, Shown
from sae.features.firings import Firings
from sae.inputs.base import Inputs

Ref = dict[str, Any]
IMAGES = "images"
REMEMBERED = 1 << 14
"""Examples whose tokens or captions are kept in memory."""
FRAMES_AT_A_TIME = 64


@dataclass(frozen=True)
class Window:
    """What a latent does around a row: the rows that there are, and those of them on which it fires."""

    example: int
    position: int
    value: float
    known: Int[np.ndarray, " rows"]
    positions: Int[np.ndarray, " firing"]
    activations: Float32[np.ndarray, " firing"]


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
    latent = np.arange(len(rows))[:, None] * firings.n_rows
    first, last = (np.searchsorted(firings.places, (latent + end).ravel()).tolist() for end in (low, high))
    fields = (rows, low, high, values, origins.example[rows], origins.position[rows])
    columns = (field.ravel().tolist() for field in fields)
    fired_at = origins.position[firings.rows]
    for row, begin, end, value, example, centre, start, stop in zip(*columns, first, last, strict=True):
        if row < 0:
            yield None
            continue
        fired = slice(start, stop)
        yield Window(example, centre, value, origins.position[begin:end], fired_at[fired], firings.values[fired])


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
        self._decode = cache(decode)
        self._tokens = lru_cache(REMEMBERED)(lambda example: inputs.tokens(example).tolist())

    def ref(self, window: Window) -> Ref:
        """Return the tokens with a value each, null where there is no vector."""
        tokens, decode = self._tokens(window.example), self._decode
        reach = self._context
        middle = min(reach, len(tokens)) if self._pooled else window.position
        start, stop = max(0, middle - reach), min(len(tokens), middle + reach + 1)
        values: list[float | None] = [None] * (stop - start)
        if not self._pooled:
            self._fill(values, start, window)
        return {
            "example": window.example,
            "position": window.position,
            "value": rounded(window.value),
            "start": start,
            "tokens": [decode(token) for token in tokens[start:stop]],
            "values": values,
        }

    def finish(self, refs: Iterable[Ref]) -> None:
        """Do nothing: the tokens are in the references."""

    @staticmethod
    def _fill(values: list[float | None], start: int, window: Window) -> None:
        first, last = int(window.known[0]), int(window.known[-1])
        if last - first + 1 == len(window.known):
            first, stop = max(first - start, 0), min(last + 1 - start, len(values))
            values[first:stop] = [0] * (stop - first)
        else:
            for position in window.known.tolist():
                if 0 <= position - start < len(values):
                    values[position - start] = 0
        for position, value in zip(window.positions.tolist(), window.activations.tolist(), strict=True):
            if 0 <= position - start < len(values):
                values[position - start] = rounded(value)


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
            at: dict[int, float | None] = dict.fromkeys(window.known.tolist(), 0.0)
            at |= dict(zip(window.positions.tolist(), map(rounded, window.activations.tolist()), strict=True))
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

    temporary = path.with_suffix(".tmp")
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
