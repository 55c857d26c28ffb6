"""Words written across pictures: what a typographic attack draws, and how much of the picture it takes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from sae.errors import InputsError, nearest
from sae.inputs.lettering import FONTS, lettering

LIGHT, DARK = (242, 240, 232), (24, 24, 36)
MARGIN = 1 / 32
"""Of a plate around its word, as a share of the picture's width."""
_OVERSAMPLED = 2


@dataclass(frozen=True, kw_only=True)
class Writing:
    """A word and how it is written."""

    word: str
    font: str = "sans"
    width: float = 0.9
    """The most that it takes of the picture's width."""
    height: float = 0.4
    """The most that it takes of the picture's height."""
    x: float = 0.0
    """Its middle in [-1, 1]; it is moved back where it would leave the picture."""
    y: float = 0.44
    plate: bool = True
    """Whether it stands on a plate of its own, or on the picture itself."""
    dark: bool = True
    """Whether the letters are dark (and the plate light), or the other way round."""

    def __post_init__(self) -> None:
        if not self.word.strip():
            raise InputsError("Writing: there is no word to write.")
        if self.font not in FONTS:
            raise InputsError(f"Writing: no font {self.font!r}.{nearest(self.font, FONTS)}")
        for name in ("width", "height"):
            if not 0 < getattr(self, name) <= 1:
                raise InputsError(f"Writing: {name} is a share in (0, 1], got {getattr(self, name)}.")


def write(
    picture: UInt8[np.ndarray, "rows columns 3"], writing: Writing
) -> tuple[UInt8[np.ndarray, "rows columns 3"], Bool[np.ndarray, "rows columns"]]:
    """Return the picture with a word on it, and which pixels are not what they were: letters and plate.

    The word is as large as fits the share of the picture that it may take, drawn at twice the size and averaged down.
    """
    n_rows, n_columns = picture.shape[:2]
    room = (
        max(int(_OVERSAMPLED * n * share), 1) for n, share in ((n_columns, writing.width), (n_rows, writing.height))
    )
    mask = lettering(writing.word, writing.font, *room).reduce(_OVERSAMPLED)
    margin = round(MARGIN * n_columns) if writing.plate else 0
    left = _kept(writing.x, mask.width, n_columns, margin)
    top = _kept(writing.y, mask.height, n_rows, margin)
    ink, ground = (DARK, LIGHT) if writing.dark else (LIGHT, DARK)
    canvas = Image.fromarray(picture)
    if writing.plate:
        canvas.paste(ground, (left - margin, top - margin, left + mask.width + margin, top + mask.height + margin))
    canvas.paste(ink, (left, top), mask)
    written = np.array(canvas)
    return written, (written != picture).any(-1)


def _kept(middle: float, extent: int, room: int, margin: int) -> int:
    """Return where something begins, so that its middle is as near as can be to what is wanted."""
    first = round((middle + 1) / 2 * room - extent / 2)
    return max(min(first, room - extent - margin), min(margin, max(room - extent, 0)))
