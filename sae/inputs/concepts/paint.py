"""Scenes become pixels: a photo painter, a sketch painter, words and emblems.

Figures are drawn at twice the size and averaged down. Every random choice without a label comes from `Scene.noise`,
in an order that depends on no other factor, so scenes that differ in one factor differ in that factor's pixels only.
"""

import colorsys
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from sae.inputs.concepts import outlines
from sae.inputs.concepts.emblems import emblem, flag
from sae.inputs.concepts.geometry import Figure, figure, filled, outlined, placed
from sae.inputs.concepts.lettering import lettering, stamped
from sae.inputs.concepts.scene import Scene
from sae.inputs.concepts.textures import PATTERNS, crop
from sae.inputs.concepts.vocabulary import COLOURS, HAIR_COLOURS, REGIONS, SKINS, Concept

FIXED = {
    "w": (245, 245, 242), "k": (28, 26, 30), "a": (150, 152, 158), "r": (208, 40, 40), "o": (242, 140, 30),
    "y": (246, 210, 50), "g": (52, 150, 62), "n": (128, 82, 44), "p": (246, 160, 182), "c": (130, 200, 240),
}  # fmt: skip
SHADED = FIXED | {slot.upper(): tuple(int(c * 0.68) for c in colour) for slot, colour in FIXED.items()}
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
class Render:
    """A picture [size, size, 3] uint8 and what of it belongs to what, as coverage [size, size] float32 in [0, 1]."""

    image: np.ndarray
    masks: dict[str, np.ndarray]
    """`concept`, and where present `text`, `companion`, `badge`."""


@dataclass(frozen=True)
class Layer:
    """Colours [s, s, 3] already multiplied by their coverage [s, s], float32."""

    colour: np.ndarray
    cover: np.ndarray

    def over(self, below: np.ndarray) -> np.ndarray:
        return below * (1 - self.cover[..., None]) + self.colour


def rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    """Return 8-bit RGB."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return int(red * 255), int(green * 255), int(blue * 255)


def _palette(scene: Scene) -> dict[str, tuple]:
    main = rgb(scene.hue, scene.saturation, scene.value)
    second = rgb(scene.hue + 0.45, 0.75, 0.95 if scene.value < 0.6 else 0.45)
    dark, light = tuple(int(c * 0.6) for c in main), tuple(int(c * 0.6 + 100) for c in main)
    people = {"t": SKINS[scene.skin], "h": HAIR_COLOURS[scene.hair_colour]}
    return (
        SHADED
        | {"m": main, "s": second, "d": dark, "M": dark, "D": tuple(int(c * 0.4) for c in main), "l": light}
        | people
    )


def _down(image: Image.Image) -> np.ndarray:
    return np.asarray(image.reduce(2), np.float32)


def _layer(image: Image.Image, cover: Image.Image) -> Layer:
    return Layer(_down(image), _down(cover) / 255)


def _matrix(size: float, degrees: float, aspect: float, side: int) -> np.ndarray:
    turn = np.deg2rad(degrees)
    cos, sin = np.cos(turn), np.sin(turn)
    return np.array([[cos, sin], [-sin, cos]]) * np.array([[aspect], [1 / aspect]]) * (size * side / 2)


def _frame(scene: Scene, side: int) -> tuple[np.ndarray, np.ndarray]:
    centre = np.array([scene.x + 1, scene.y + 1]) * side / 2
    return _matrix(scene.size, scene.rotation, scene.aspect, side), centre


def drawing_of(concept: Concept, scene: Scene) -> Figure:
    """Return the figure of a concept; a role is dressed with the scene's skin, hair and glasses."""
    if concept.family != "role":
        return figure(concept.drawing)
    return _role_figure(concept.drawing, scene.hair, scene.glasses)


@lru_cache(maxsize=1024)
def _role_figure(clothes: str, hair: str, glasses: bool) -> Figure:
    head = outlines.HEAD + "|" + outlines.SMILE
    parts = [outlines.HAIR[hair], head, outlines.GLASSES if glasses else ""]
    above, dressed = figure("|".join(filter(None, parts))), figure(clothes)
    shrunk = above.points * 0.62 + (0, -0.3)
    ends = (*above.ends, *(end + above.ends[-1] for end in dressed.ends))
    return Figure(np.concatenate([shrunk, dressed.points]), ends, above.slots + dressed.slots)


class Painter:
    """Paints scenes of a fixed list of concepts at a fixed size."""

    def __init__(self, concepts: tuple[Concept, ...], size: int):
        self.concepts = {concept.name: concept for concept in concepts}
        self.size = size
        ramp = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
        self.u, self.v = np.meshgrid(ramp, ramp)

    def render(self, scene: Scene) -> Render:
        """Return the picture of a scene."""
        concept = self.concepts[scene.concept]
        rng = np.random.Generator(np.random.PCG64(scene.noise))
        dice = rng.random(32).tolist()
        masks: dict[str, np.ndarray] = {}
        below = self._ground(scene, dice)
        if scene.facet == "photo":
            picture = self._photo(scene, concept, below, dice, masks)
        elif scene.facet == "sketch":
            picture = self._sketch(scene, concept, dice, masks)
        elif scene.facet == "word":
            picture = self._word(scene, below, masks)
        else:
            layer = self._emblem_layer(concept, scene.size, scene.rotation * 0.4, scene.x, scene.y)
            masks["concept"] = layer.cover
            picture = layer.over(below)
        picture = self._extras(scene, concept, picture, masks)
        grain = rng.integers(-6, 7, (self.size, self.size, 1), dtype=np.int8)
        return Render(np.clip(picture + grain, 0, 255).astype(np.uint8), masks)

    def _ground(self, scene: Scene, dice: list) -> np.ndarray:
        hue, saturation, value = COLOURS[scene.ground]
        colour = rgb(hue + 0.02 * (dice[0] - 0.5), saturation * (0.45 + 0.4 * dice[1]), value * (0.7 + 0.3 * dice[2]))
        slope = 1 + 0.2 * (dice[3] - 0.5) * self.u + 0.2 * (dice[4] - 0.5) * self.v
        shade = crop(scene.background, self.size, dice[5], dice[6]) * slope
        return shade[..., None] * np.array(colour, np.float32)

    def _clutter(self, below: np.ndarray, dice: list) -> np.ndarray:
        """Add up to three blobs in shades of the background."""
        image = Image.fromarray(np.clip(below, 0, 255).astype(np.uint8))
        paint = ImageDraw.Draw(image)
        base = below[0, 0]
        for i in range(int(dice[7] * 4)):
            a, b, c, d = dice[8 + 4 * i : 12 + 4 * i]
            left, top, side = a * self.size - 6, b * self.size - 6, 5 + 14 * c
            colour = tuple(int(min(255, max(0, value * (0.55 + 0.9 * d)))) for value in base)
            shape = paint.ellipse if c < 0.5 else paint.rectangle
            shape((left, top, left + side, top + side * (0.5 + d)), fill=colour)
        return np.asarray(image, np.float32)

    def _figure_layer(self, concept: Concept, scene: Scene, dice: list) -> Layer:
        side = 2 * self.size
        if concept.family in ("digit", "letter"):
            cover = self._glyph(concept, scene)
            image = Image.new("RGB", (side, side))
            image.paste(rgb(scene.hue, scene.saturation, scene.value), mask=cover)
            return _layer(image, cover)
        if concept.family == "colour":
            shape = _blob(int(dice[20] * 997))
        else:
            shape = drawing_of(concept, scene)
        colours = _palette(scene)
        matrix, offset = _frame(scene, side)
        flat = placed(shape, matrix, offset, 0.02, dice[21] * 6)
        return _layer(*filled(flat, [colours[slot] for slot in shape.slots], side))

    def _glyph(self, concept: Concept, scene: Scene) -> Image.Image:
        side = 2 * self.size
        mask = lettering(concept.drawing, scene.font, side, side)
        scale = scene.size * min(1, 1.5 * mask.height / max(mask.width, 1))
        return stamped(mask, side, scale, scene.rotation, (scene.x + 1) * self.size, (scene.y + 1) * self.size)

    def _pattern_layer(self, concept: Concept, scene: Scene, dice: list, sketch: tuple | None = None) -> Layer:
        """Return a turned square of cloth; as a sketch, the edges of its pattern in ink."""
        turn = np.deg2rad(scene.rotation)
        u, v = self.u - scene.x, self.v - scene.y
        u, v = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
        reach = 1.05 * scene.size
        cover = np.clip((reach - np.maximum(np.abs(u), np.abs(v))) * self.size / 2, 0, 1)
        density = (2.3 + 0.7 * dice[20]) * scene.aspect
        second = np.asarray(PATTERNS[concept.name](u * density, v * density), np.float32)
        main = np.array(rgb(scene.hue, scene.saturation, scene.value), np.float32)
        if sketch is None:
            other = np.array((250, 248, 240) if main.mean() < 150 else (40, 34, 50), np.float32)
            cloth = main + second[..., None] * (other - main)
        else:
            ink, paper = (np.array(colour, np.float32) for colour in sketch)
            step = np.abs(np.diff(second, axis=0, append=0)) + np.abs(np.diff(second, axis=1, append=0))
            cloth = paper + np.clip(step, 0, 1)[..., None] * (ink - paper)
        return Layer(cloth * cover[..., None], cover)

    def _photo(self, scene: Scene, concept: Concept, below: np.ndarray, dice: list, masks: dict) -> np.ndarray:
        if concept.family == "region":
            return self._landscape(scene, concept, dice, masks)
        below = self._clutter(below, dice)
        if concept.family == "pattern":
            layer = self._pattern_layer(concept, scene, dice)
        else:
            layer = self._figure_layer(concept, scene, dice)
        masks["concept"] = layer.cover
        return self._lit(layer, below, scene, dice)

    def _lit(self, layer: Layer, below: np.ndarray, scene: Scene, dice: list) -> np.ndarray:
        """Put a layer on its background with slanted light, rounded edges, a texture and a cast shadow."""
        turn = np.deg2rad(scene.light)
        dx, dy = float(np.cos(turn)), float(np.sin(turn))
        mask = Image.fromarray((layer.cover * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(self.size / 32))
        blurred = np.asarray(mask, np.float32) / 255
        shift = (round(3 * dx * self.size / 64), round(3 * dy * self.size / 64))
        shadow = np.roll(blurred, (-shift[1], -shift[0]), (0, 1))
        bevel = shadow - np.roll(blurred, shift[::-1], (0, 1))
        shade = 1 + 0.2 * (self.u * dx + self.v * dy) + 0.25 * bevel
        shade *= 1 + 0.4 * (crop(("grain", "speckle", "plain")[int(dice[22] * 3)], self.size, dice[23], dice[24]) - 1)
        below = below * (1 - 0.45 * shadow)[..., None]
        return Layer(layer.colour * shade[..., None], layer.cover).over(below)

    def _landscape(self, scene: Scene, concept: Concept, dice: list, masks: dict) -> np.ndarray:
        number, side = REGIONS.index(concept.name), 2 * self.size
        sky, ground, stands = CLIMATES[number // 4]
        shape = figure(outlines.LANDFORMS[(number * 3 + number // 4) % 8])
        slots = FIXED | {"m": ground, "s": stands, "d": tuple(int(c * 0.7) for c in stands)}
        slots["l"] = tuple(min(255, int(c * 1.2)) for c in ground)
        matrix = _matrix(0.95 + 0.2 * scene.size, scene.rotation * 0.2, scene.aspect, side)
        flat = placed(shape, matrix, np.array([scene.x / 2 + 1, scene.y / 2 + 1]) * self.size, 0.04, dice[21] * 6)
        layer = _layer(*filled(flat, [slots[slot] for slot in shape.slots], side))
        masks["concept"] = np.ones_like(layer.cover)
        texture = crop(("soft", "grain", "cloudy")[int(dice[22] * 3)], self.size, dice[23], dice[24])
        light = 0.8 + 0.3 * scene.contrast + 0.12 * self.u * np.cos(np.deg2rad(scene.light)).astype(np.float32)
        return (
            layer.over(np.array(sky, np.float32) * np.ones((self.size, self.size, 1), np.float32))
            * (texture * light)[..., None]
        )

    def _sketch(self, scene: Scene, concept: Concept, dice: list, masks: dict) -> np.ndarray:
        side = 2 * self.size
        ink, paper = INKS[int(dice[8] * 5)], PAPERS[int(dice[9] * 5)]
        if scene.concept == "white":
            paper = SLATE
        below = crop("grain", self.size, dice[5], dice[6])[..., None] * 0.15 + 0.85
        below = below * np.array(paper, np.float32)
        if concept.family == "pattern":
            layer = self._pattern_layer(concept, scene, dice, (ink, paper))
        elif concept.family in ("digit", "letter"):
            cover = self._glyph(concept, scene)
            core = cover.filter(ImageFilter.BoxBlur(scene.stroke // 2 + 1)).point(_SOLID)
            image = Image.new("RGB", (side, side))
            image.paste(ink, mask=cover)
            image.paste(paper, mask=core)
            layer = _layer(image, cover)
        else:
            layer = self._line_layer(scene, concept, dice, ink, paper)
        masks["concept"] = layer.cover
        return layer.over(below)

    def _line_layer(self, scene: Scene, concept: Concept, dice: list, ink: tuple, paper: tuple) -> Layer:
        side = 2 * self.size
        matrix, offset = _frame(scene, side)
        if concept.family == "colour":
            ink, shape = rgb(scene.hue, scene.saturation, scene.value), _scribble(int(dice[20] * 97))
            flat = placed(shape, matrix, offset, 0.05, dice[21] * 6)
            return _layer(*filled(flat, [ink] * len(flat), side))
        if concept.family == "region":
            shape = _map(REGIONS.index(concept.name), concept.map_position)
        else:
            shape = drawing_of(concept, scene)
        flat = placed(shape, matrix, offset, 0.035, dice[21] * 6)
        return _layer(*outlined(flat, ink, paper, scene.stroke, side))

    def _word(self, scene: Scene, below: np.ndarray, masks: dict) -> np.ndarray:
        side = 2 * self.size
        mask = lettering(scene.concept, scene.font, int(side * 0.95), int(side * 0.6))
        cover = stamped(mask, side, scene.size, scene.rotation, (scene.x + 1) * self.size, (scene.y + 1) * self.size)
        cover = _down(cover) / 255
        masks["concept"] = cover
        middle = below[::8, ::8].mean((0, 1))
        below = middle * 0.6 + below * 0.4
        bright = middle.mean() > 120
        ink = np.array(rgb(scene.hue, scene.saturation, 0.25 - 0.2 * scene.contrast if bright else 1.0), np.float32)
        ink = ink if bright else 255 - (255 - ink) * (0.6 - 0.4 * scene.contrast)
        ground = below * 0.6 + 100 if bright else below * 0.55
        return ground + cover[..., None] * (ink - ground)

    def _emblem_layer(self, concept: Concept, size: float, degrees: float, x: float, y: float) -> Layer:
        side = 2 * self.size
        shape, colours = flag(REGIONS.index(concept.name)) if concept.family == "region" else emblem(concept.number)
        flat = placed(shape, _matrix(size, degrees, 1.0, side), np.array([x + 1, y + 1]) * self.size)
        return _layer(*filled(flat, colours, side))

    def _extras(self, scene: Scene, concept: Concept, picture: np.ndarray, masks: dict) -> np.ndarray:
        """Add companion, badge and incidental text, which may cover the figure's margin."""
        if scene.badge:
            layer = self._emblem_layer(concept, 0.22, 0, -0.75, -0.75)
            masks["badge"] = layer.cover
            picture = layer.over(picture)
        if scene.companion:
            layer = self._companion(scene)
            masks["companion"] = layer.cover
            picture = layer.over(picture)
        if scene.text:
            layer = self._note(scene)
            masks["text"] = layer.cover
            picture = layer.over(picture)
        return picture

    def _companion(self, scene: Scene) -> Layer:
        other, side = self.concepts[scene.companion], 2 * self.size
        if other.family == "region":
            return self._emblem_layer(other, 0.3, 0, 0.68, 0.72)
        colours = SHADED | {
            "m": (200, 60, 60),
            "s": (60, 90, 200),
            "d": (90, 60, 60),
            "M": (90, 60, 60),
            "D": (60, 40, 40),
            "l": (240, 180, 180),
        }
        if other.family == "person":
            colours |= {"t": SKINS[other.skin], "h": HAIR_COLOURS[other.hair_colour]}
        shape = figure(other.drawing)
        flat = placed(shape, _matrix(0.3, 0, 1.0, side), np.array([1.68, 1.68]) * self.size)
        if scene.facet == "sketch":
            return _layer(*outlined(flat, INKS[0], PAPERS[0], 2, side))
        return _layer(*filled(flat, [colours[slot] for slot in shape.slots], side))

    def _note(self, scene: Scene) -> Layer:
        """Write the incidental word on a light or dark strip."""
        side = 2 * self.size
        mask = lettering(scene.text, scene.font, int(side * 0.62), int(side * 0.2))
        x, y = (scene.text_x + 1) * self.size, (scene.text_y + 1) * self.size
        letters = stamped(mask, side, 1.0, 0, x, y)
        light, dark = (242, 240, 232), (24, 24, 36)
        strip, ink = (light, dark) if scene.contrast < 0.5 else (dark, light)
        image, cover = Image.new("RGB", (side, side)), Image.new("L", (side, side))
        box = (x - mask.width / 2 - 4, y - mask.height / 2 - 4, x + mask.width / 2 + 4, y + mask.height / 2 + 4)
        ImageDraw.Draw(image).rectangle(box, fill=strip)
        ImageDraw.Draw(cover).rectangle(box, fill=255)
        image.paste(ink, mask=letters)
        return _layer(image, ImageChops.lighter(cover, letters))


_SOLID = [255 if level > 250 else 0 for level in range(256)]


@lru_cache(maxsize=1024)
def _blob(number: int) -> Figure:
    """Return a random smooth splash of paint."""
    rng = np.random.Generator(np.random.PCG64(number))
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    amplitude, phase = rng.random(4) * 0.22, rng.random(4) * 6.3
    radius = 0.7 + sum(amplitude[i] * np.sin((i + 2) * angle + phase[i]) for i in range(4))
    return Figure(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), (40,), ("m",))


@lru_cache(maxsize=128)
def _scribble(number: int) -> Figure:
    """Return a pencil's way to and fro across the frame."""
    rng = np.random.Generator(np.random.PCG64(1000 + number))
    lines = 5 + number % 4
    points = [((-1) ** i * (0.55 + 0.35 * rng.random()), -0.8 + 1.6 * i / lines) for i in range(lines + 1)]
    strokes = (f"l m .17 {a:.3f} {b:.3f} {c:.3f} {d:.3f}" for (a, b), (c, d) in pairwise(points))
    return figure("|".join(strokes))


@lru_cache(maxsize=32)
def _map(number: int, place: tuple[float, float]) -> Figure:
    """Return a region's border, and below it the map of the world with a mark where the region lies."""
    rng = np.random.Generator(np.random.PCG64(77 + number))
    corners = 5 + number % 5
    angle = (np.arange(corners) + 0.5 * rng.random(corners)) / corners * 2 * np.pi
    radius = np.where(rng.random(corners) < 0.4, 0.3, 0.7 + 0.3 * rng.random(corners))
    border = " ".join(
        f"{r * np.cos(a):.3f} {r * 0.65 * np.sin(a) - 0.38:.3f}" for r, a in zip(radius, angle, strict=True)
    )
    x, y = -0.8 + 1.6 * place[0], 0.4 + 0.5 * place[1]
    return figure(
        f"p m {border}|p m -.95 .32 .95 .32 .95 .98 -.95 .98|e k {x:.3f} {y:.3f} .11 .11|e k {x:.3f} {y:.3f} .06 .06"
    )
