"""Words and single glyphs as coverage masks, from the fonts that come with matplotlib."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = {
    "sans": "DejaVuSans-Bold.ttf",
    "serif": "DejaVuSerif-Bold.ttf",
    "mono": "DejaVuSansMono-Bold.ttf",
    "stix": "STIXGeneralBol.ttf",
    "modern": "cmss10.ttf",
    "roman": "cmb10.ttf",
    "slant": "DejaVuSans-BoldOblique.ttf",
}
SPLIT_FONTS = {
    "subject": ("sans", "serif", "mono", "stix"),
    "dictionary": ("sans", "serif", "mono", "modern"),
    "score": ("sans", "serif", "mono", "stix", "roman", "slant"),
}
"""Of the score split's fonts, `roman` and `slant` occur in no other split."""


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / FONTS[name]
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=4096)
def lettering(text: str, font: str, width: int, height: int) -> Image.Image:
    """Return the coverage of `text`, tightly cut, as large as fits `width` x `height` pixels."""
    box = _font(font, 100).getbbox(text)
    size = int(100 * min(width / (box[2] - box[0]), height / (box[3] - box[1])))
    face = _font(font, max(size, 6))
    left, top, right, bottom = face.getbbox(text)
    image = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(image).text((-left, -top), text, fill=255, font=face)
    return image


def stamped(mask: Image.Image, side: int, scale: float, degrees: float, x: float, y: float) -> Image.Image:
    """Return `mask` scaled, turned and centred at (x, y) pixels on an empty square."""
    turn = np.deg2rad(degrees)
    cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
    middle_x, middle_y = mask.width / 2, mask.height / 2
    inverse = (cos, sin, middle_x - cos * x - sin * y, -sin, cos, middle_y + sin * x - cos * y)
    return mask.transform((side, side), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)
