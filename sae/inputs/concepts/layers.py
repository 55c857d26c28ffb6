"""Colours, and layers of colour that lie over one another."""

import colorsys
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from sae.inputs.concepts.geometry import Figure, filled, placed
from sae.inputs.concepts.scene import Scene
from sae.inputs.concepts.vocabulary import HAIR_COLOURS, SKINS

Colour = tuple[int, ...]

FIXED: dict[str, Colour] = {
    "w": (245, 245, 242), "k": (28, 26, 30), "a": (150, 152, 158), "r": (208, 40, 40), "o": (242, 140, 30),
    "y": (246, 210, 50), "g": (52, 150, 62), "n": (128, 82, 44), "p": (246, 160, 182), "c": (130, 200, 240),
}  # fmt: skip
SHADED: dict[str, Colour] = FIXED | {
    slot.upper(): tuple(int(c * 0.68) for c in colour) for slot, colour in FIXED.items()
}
"""Slots whose colour is the same in every scene, and their darker shades."""
COMPANION: dict[str, Colour] = SHADED | {
    "m": (200, 60, 60), "s": (60, 90, 200), "l": (240, 180, 180),
    "d": (90, 60, 60), "M": (90, 60, 60), "D": (60, 40, 40),
}  # fmt: skip
INKS = ((25, 25, 30), (30, 40, 110), (90, 40, 20), (20, 80, 50), (70, 70, 75))
PAPERS = ((252, 252, 250), (246, 238, 220), (228, 232, 238), (236, 226, 206), (214, 216, 214))
SLATE = (64, 68, 78)
"""Paper that a white pencil shows on."""
CLIMATES = (
    ((222, 232, 240), (236, 240, 246), (120, 150, 180)),
    ((150, 200, 245), (96, 160, 70), (54, 104, 60)),
    ((250, 214, 150), (226, 180, 100), (178, 110, 60)),
    ((236, 140, 120), (120, 60, 70), (74, 40, 84)),
)
"""Sky, ground and what stands on it, from the north of the map to its south."""


@dataclass(frozen=True)
class Layer:
    """Colours already multiplied by their coverage, and the coverage."""

    colour: Float[np.ndarray, "height width 3"]
    cover: Float[np.ndarray, "height width"]

    def over(self, below: Float[np.ndarray, "height width 3"]) -> Float[np.ndarray, "height width 3"]:
        """Return this layer on top of a picture."""
        return below * (1 - self.cover[..., None]) + self.colour


def halved(image: Image.Image) -> np.ndarray:
    """Return an image at half its size, float32."""
    return np.asarray(image.reduce(2), np.float32)


def layer(image: Image.Image, cover: Image.Image) -> Layer:
    """Return a layer from a double-size drawing on black and its coverage."""
    return Layer(halved(image), halved(cover) / 255)


def rgb(hue: float, saturation: float, value: float) -> Colour:
    """Return 8-bit RGB of hue, saturation and value in [0, 1]; the hue wraps, the others are clipped."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return int(red * 255), int(green * 255), int(blue * 255)


def main_colour(scene: Scene) -> Colour:
    """Return the colour of a scene's figure."""
    return rgb(scene.hue, scene.saturation, scene.value)


def palette(scene: Scene) -> dict[str, Colour]:
    """Return the colour of every slot."""
    main = main_colour(scene)
    shades: dict[str, Colour] = {
        "m": main,
        "s": rgb(scene.hue + 0.45, 0.75, 0.95 if scene.value < 0.6 else 0.45),
        "d": tuple(int(c * 0.6) for c in main),
        "M": tuple(int(c * 0.6) for c in main),
        "D": tuple(int(c * 0.4) for c in main),
        "l": tuple(int(c * 0.6 + 100) for c in main),
    }
    return SHADED | shades | {"t": SKINS[scene.skin], "h": HAIR_COLOURS[scene.hair_colour]}


def landscape_palette(climate: int) -> tuple[Colour, dict[str, Colour]]:
    """Return the sky and the colour of every slot of a landform."""
    sky, ground, stands = CLIMATES[climate]
    shades: dict[str, Colour] = {
        "d": tuple(int(c * 0.7) for c in stands),
        "l": tuple(min(255, int(c * 1.2)) for c in ground),
    }
    return sky, FIXED | {"m": ground, "s": stands} | shades


def turned(size: float, degrees: float, aspect: float, side: int) -> Float[np.ndarray, "2 2"]:
    """Return the matrix from unit coordinates to pixels of a canvas."""
    turn = np.deg2rad(degrees)
    cos, sin = np.cos(turn), np.sin(turn)
    return np.array([[cos, sin], [-sin, cos]]) * np.array([[aspect], [1 / aspect]]) * (size * side / 2)


def upright(shape: Figure, colours: tuple, size: float, degrees: float, x: float, y: float, side: int) -> Layer:
    """Return a flat figure centred at (x, y) in [-1, 1], on a canvas of `side` pixels that is then halved."""
    flat = placed(shape, turned(size, degrees, 1.0, side), np.array([x + 1, y + 1]) * side / 2)
    return layer(*filled(flat, colours, side))
