"""Scenes become pixels: a photo painter, a sketch painter, words and emblems.

Figures are drawn at twice the size and averaged down. Every random choice without a label comes from `Scene.noise`,
in an order that depends on no other factor, so scenes that differ in one factor differ in that factor's pixels only.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageChops, ImageDraw, ImageFilter

import sae.inputs.concepts.figures as figures
import sae.inputs.concepts.outlines as outlines
from sae.inputs.concepts.emblems import emblem, flag
from sae.inputs.concepts.geometry import figure, filled, outlined, placed
from sae.inputs.concepts.layers import (
    COMPANION,
    INKS,
    PAPERS,
    SLATE,
    Colour,
    Layer,
    halved,
    landscape_palette,
    layer,
    main_colour,
    palette,
    rgb,
    turned,
    upright,
)
from sae.inputs.concepts.scene import Scene
from sae.inputs.concepts.textures import PATTERNS, crop
from sae.inputs.concepts.vocabulary import COLOURS, HAIR_COLOURS, REGIONS, SKINS, Concept
from sae.inputs.lettering import lettering, stamped

Picture = Float[np.ndarray, "size size 3"]
_SOLID = [255 if level > 250 else 0 for level in range(256)]


@dataclass(frozen=True)
class Render:
    """A picture and what of it belongs to what, as visible coverage in [0, 1]."""

    image: UInt8[np.ndarray, "size size 3"]
    masks: dict[str, Float[np.ndarray, "size size"]]
    """`concept`, and where present `text`, `companion`, `badge`; of an emotion also `eyes` and `mouth`."""


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
        below = self._ground(scene, dice)
        if scene.facet == "photo":
            picture, cover = self._photo(scene, concept, below, dice)
        elif scene.facet == "sketch":
            picture, cover = self._sketch(scene, concept, dice)
        elif scene.facet == "word":
            picture, cover = self._word(scene, below)
        else:
            badge = self._emblem_layer(concept, scene.size, scene.rotation * 0.4, scene.x, scene.y)
            picture, cover = badge.over(below), badge.cover
        masks = {"concept": cover}
        if concept.family == "emotion" and scene.facet in ("photo", "sketch"):
            masks |= self._features(scene, concept, dice)
        for name, extra in self._extras(scene, concept):
            picture = extra.over(picture)
            masks = {known: mask * (1 - extra.cover) for known, mask in masks.items()} | {name: extra.cover}
        grain = rng.integers(-6, 7, (self.size, self.size, 1), dtype=np.int8)
        return Render(np.clip(picture + grain, 0, 255).astype(np.uint8), masks)

    def _ground(self, scene: Scene, dice: list) -> Picture:
        hue, saturation, value = COLOURS[scene.ground]
        colour = rgb(hue + 0.02 * (dice[0] - 0.5), saturation * (0.45 + 0.4 * dice[1]), value * (0.7 + 0.3 * dice[2]))
        slope = 1 + 0.2 * (dice[3] - 0.5) * self.u + 0.2 * (dice[4] - 0.5) * self.v
        shade = crop(scene.background, self.size, dice[5], dice[6]) * slope
        return shade[..., None] * np.array(colour, np.float32)

    def _clutter(self, below: Picture, dice: list) -> Picture:
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

    def _placed(self, shape: figures.Figure, scene: Scene, wobble: float, dice: list) -> list:
        side = 2 * self.size
        centre = np.array([scene.x + 1, scene.y + 1]) * side / 2
        matrix = turned(scene.size, scene.rotation, scene.aspect, side)
        return placed(shape, matrix, centre, wobble, dice[21] * 6)

    def _photo(self, scene: Scene, concept: Concept, below: Picture, dice: list) -> tuple[Picture, np.ndarray]:
        if concept.family == "region":
            return self._landscape(scene, concept, dice)
        below = self._clutter(below, dice)
        painted = self._cloth if concept.family == "pattern" else self._thing
        thing = painted(concept, scene, dice)
        return self._lit(thing, below, scene, dice), thing.cover

    def _thing(self, concept: Concept, scene: Scene, dice: list) -> Layer:
        side = 2 * self.size
        if concept.family in ("digit", "letter"):
            cover = self._glyph(concept, scene)
            image = Image.new("RGB", (side, side))
            image.paste(main_colour(scene), mask=cover)
            return layer(image, cover)
        splashed = concept.family == "colour"
        shape = figures.splash(int(dice[20] * 997)) if splashed else figures.figure_of(concept, scene)
        colours = palette(scene)
        flat = self._placed(shape, scene, 0.02, dice)
        return layer(*filled(flat, [colours[slot] for slot in shape.slots], side))

    def _glyph(self, concept: Concept, scene: Scene) -> Image.Image:
        side = 2 * self.size
        mask = lettering(concept.drawing, scene.font, side, side)
        scale = scene.size * min(1, 1.5 * mask.height / max(mask.width, 1))
        return stamped(mask, side, scale, scene.rotation, (scene.x + 1) * self.size, (scene.y + 1) * self.size)

    def _cloth(self, concept: Concept, scene: Scene, dice: list, drawn: tuple[Colour, Colour] | None = None) -> Layer:
        """Return a turned square of cloth, or drawn in (ink, paper) the edges of its pattern."""
        turn = np.deg2rad(scene.rotation)
        u, v = self.u - scene.x, self.v - scene.y
        u, v = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
        reach = 1.05 * scene.size
        cover = np.clip((reach - np.maximum(np.abs(u), np.abs(v))) * self.size / 2, 0, 1)
        density = (2.3 + 0.7 * dice[20]) * scene.aspect
        second = np.asarray(PATTERNS[concept.name](u * density, v * density), np.float32)
        if drawn is None:
            main = np.array(main_colour(scene), np.float32)
            other = np.array((250, 248, 240) if main.mean() < 150 else (40, 34, 50), np.float32)
            cloth = main + second[..., None] * (other - main)
        else:
            ink, paper = (np.array(colour, np.float32) for colour in drawn)
            step = np.abs(np.diff(second, axis=0, append=0)) + np.abs(np.diff(second, axis=1, append=0))
            cloth = paper + np.clip(step, 0, 1)[..., None] * (ink - paper)
        return Layer(cloth * cover[..., None], cover)

    def _lit(self, thing: Layer, below: Picture, scene: Scene, dice: list) -> Picture:
        """Put a layer on its background with slanted light, rounded edges, a texture and a cast shadow."""
        turn = np.deg2rad(scene.light)
        dx, dy = float(np.cos(turn)), float(np.sin(turn))
        mask = Image.fromarray((thing.cover * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(self.size / 32))
        blurred = np.asarray(mask, np.float32) / 255
        shift = (round(3 * dx * self.size / 64), round(3 * dy * self.size / 64))
        shadow = np.roll(blurred, (-shift[1], -shift[0]), (0, 1))
        bevel = shadow - np.roll(blurred, shift[::-1], (0, 1))
        shade = 1 + 0.2 * (self.u * dx + self.v * dy) + 0.25 * bevel
        shade *= 1 + 0.4 * (crop(("grain", "speckle", "plain")[int(dice[22] * 3)], self.size, dice[23], dice[24]) - 1)
        below = below * (1 - 0.45 * shadow)[..., None]
        return Layer(thing.colour * shade[..., None], thing.cover).over(below)

    def _landscape(self, scene: Scene, concept: Concept, dice: list) -> tuple[Picture, np.ndarray]:
        side = 2 * self.size
        sky, slots = landscape_palette(REGIONS.index(concept.name) // 4)
        shape = figures.landform(concept)
        matrix = turned(0.95 + 0.2 * scene.size, scene.rotation * 0.2, scene.aspect, side)
        flat = placed(shape, matrix, np.array([scene.x / 2 + 1, scene.y / 2 + 1]) * self.size, 0.04, dice[21] * 6)
        land = layer(*filled(flat, [slots[slot] for slot in shape.slots], side))
        texture = crop(("soft", "grain", "cloudy")[int(dice[22] * 3)], self.size, dice[23], dice[24])
        light = 0.8 + 0.3 * scene.contrast + 0.12 * self.u * np.cos(np.deg2rad(scene.light)).astype(np.float32)
        heaven = np.array(sky, np.float32) * np.ones((self.size, self.size, 1), np.float32)
        return land.over(heaven) * (texture * light)[..., None], np.ones_like(land.cover)

    def _sketch(self, scene: Scene, concept: Concept, dice: list) -> tuple[Picture, np.ndarray]:
        side = 2 * self.size
        ink, paper = INKS[int(dice[8] * 5)], PAPERS[int(dice[9] * 5)]
        if scene.concept == "white":
            paper = SLATE
        below = crop("grain", self.size, dice[5], dice[6])[..., None] * 0.15 + 0.85
        below = below * np.array(paper, np.float32)
        if concept.family == "pattern":
            lines = self._cloth(concept, scene, dice, (ink, paper))
        elif concept.family in ("digit", "letter"):
            cover = self._glyph(concept, scene)
            core = cover.filter(ImageFilter.BoxBlur(scene.stroke // 2 + 1)).point(_SOLID)
            image = Image.new("RGB", (side, side))
            image.paste(ink, mask=cover)
            image.paste(paper, mask=core)
            lines = layer(image, cover)
        elif concept.family == "colour":
            flat = self._placed(figures.scribble(int(dice[20] * 97)), scene, 0.05, dice)
            lines = layer(*filled(flat, [main_colour(scene)] * len(flat), side))
        else:
            shape = figures.border(concept) if concept.family == "region" else figures.figure_of(concept, scene)
            lines = layer(*outlined(self._placed(shape, scene, 0.035, dice), ink, paper, scene.stroke, side))
        return lines.over(below), lines.cover

    def _word(self, scene: Scene, below: Picture) -> tuple[Picture, np.ndarray]:
        side = 2 * self.size
        mask = lettering(scene.concept, scene.font, int(side * 0.95), int(side * 0.6))
        cover = stamped(mask, side, scene.size, scene.rotation, (scene.x + 1) * self.size, (scene.y + 1) * self.size)
        cover = halved(cover) / 255
        middle = below[::8, ::8].mean((0, 1))
        below = middle * 0.6 + below * 0.4
        bright = middle.mean() > 120
        ink = np.array(rgb(scene.hue, scene.saturation, 0.25 - 0.2 * scene.contrast if bright else 1.0), np.float32)
        ink = ink if bright else 255 - (255 - ink) * (0.6 - 0.4 * scene.contrast)
        ground = below * 0.6 + 100 if bright else below * 0.55
        return ground + cover[..., None] * (ink - ground), cover

    def _emblem_layer(self, concept: Concept, size: float, degrees: float, x: float, y: float) -> Layer:
        shape, colours = flag(REGIONS.index(concept.name)) if concept.family == "region" else emblem(concept.number)
        return upright(shape, colours, size, degrees, x, y, 2 * self.size)

    def _features(self, scene: Scene, concept: Concept, dice: list) -> dict[str, np.ndarray]:
        """Return the masks of a face's eyes and mouth."""
        flat = self._placed(figure(concept.drawing), scene, 0.02 if scene.facet == "photo" else 0.035, dice)
        eyes = len(figure(outlines.EYES[concept.parts[0]]).ends)
        mouth = len(figure(outlines.MOUTHS[concept.parts[1]]).ends)
        features = {"eyes": flat[1 : 1 + eyes], "mouth": flat[-mouth:]}
        white = (255, 255, 255)
        return {
            name: halved(filled(corners, [white] * len(corners), 2 * self.size)[1]) / 255
            for name, corners in features.items()
        }

    def _extras(self, scene: Scene, concept: Concept) -> list[tuple[str, Layer]]:
        """Return badge, companion and incidental text, which may cover the figure's margin."""
        extras = []
        if scene.badge:
            extras.append(("badge", self._emblem_layer(concept, 0.22, 0, -0.75, -0.75)))
        if scene.companion:
            extras.append(("companion", self._companion(scene)))
        if scene.text:
            extras.append(("text", self._note(scene)))
        return extras

    def _companion(self, scene: Scene) -> Layer:
        other, side = self.concepts[scene.companion], 2 * self.size
        if other.family == "region":
            return self._emblem_layer(other, 0.3, 0, 0.68, 0.72)
        shape = figure(other.drawing)
        if scene.facet == "sketch":
            flat = placed(shape, turned(0.3, 0, 1.0, side), np.array([1.68, 1.68]) * self.size)
            return layer(*outlined(flat, INKS[0], PAPERS[0], 2, side))
        looks = {"t": SKINS[other.skin], "h": HAIR_COLOURS[other.hair_colour]} if other.family == "person" else {}
        colours = COMPANION | looks
        return upright(shape, tuple(colours[slot] for slot in shape.slots), 0.3, 0, 0.68, 0.68, side)

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
        return layer(image, ImageChops.lighter(cover, letters))
