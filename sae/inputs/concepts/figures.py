"""The figure that stands for a concept: from its part list, or made by rule (splashes, scribbles, maps)."""

from functools import lru_cache
from itertools import pairwise

import numpy as np

import sae.inputs.concepts.outlines as outlines
from sae.inputs.concepts.geometry import Figure, figure
from sae.inputs.concepts.scene import Scene
from sae.inputs.concepts.vocabulary import REGIONS, Concept


def figure_of(concept: Concept, scene: Scene) -> Figure:
    """Return the figure of a concept; a role is dressed with the scene's hair and glasses."""
    if concept.family != "role":
        return figure(concept.drawing)
    return _dressed(concept.drawing, scene.hair, scene.glasses)


@lru_cache(maxsize=1024)
def _dressed(clothes: str, hair: str, glasses: bool) -> Figure:
    parts = [outlines.HAIR[hair], outlines.HEAD, outlines.SMILE, outlines.GLASSES if glasses else ""]
    above, below = figure("|".join(filter(None, parts))), figure(clothes)
    ends = (*above.ends, *(end + above.ends[-1] for end in below.ends))
    return Figure(np.concatenate([above.points * 0.62 + (0, -0.3), below.points]), ends, above.slots + below.slots)


def landform(concept: Concept) -> Figure:
    """Return the landscape of a region."""
    number = REGIONS.index(concept.name)
    return figure(outlines.LANDFORMS[(number * 3 + number // 4) % 8])


@lru_cache(maxsize=1024)
def splash(number: int) -> Figure:
    """Return a random smooth splash of paint."""
    rng = np.random.Generator(np.random.PCG64(number))
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    amplitude, phase = rng.random(4) * 0.22, rng.random(4) * 6.3
    radius = 0.7 + sum(amplitude[i] * np.sin((i + 2) * angle + phase[i]) for i in range(4))
    return Figure(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), (40,), ("m",))


@lru_cache(maxsize=128)
def scribble(number: int) -> Figure:
    """Return a pencil's way to and fro across the frame."""
    rng = np.random.Generator(np.random.PCG64(1000 + number))
    lines = 5 + number % 4
    points = [((-1) ** i * (0.55 + 0.35 * rng.random()), -0.8 + 1.6 * i / lines) for i in range(lines + 1)]
    strokes = (f"l m .17 {a:.3f} {b:.3f} {c:.3f} {d:.3f}" for (a, b), (c, d) in pairwise(points))
    return figure("|".join(strokes))


def border(concept: Concept) -> Figure:
    """Return a region's border, and below it the map of the world with a mark where the region lies."""
    return _border(REGIONS.index(concept.name), concept.map_position)


@lru_cache(maxsize=32)
def _border(number: int, place: tuple[float, float]) -> Figure:
    rng = np.random.Generator(np.random.PCG64(77 + number))
    corners = 5 + number % 5
    angle = (np.arange(corners) + 0.5 * rng.random(corners)) / corners * 2 * np.pi
    radius = np.where(rng.random(corners) < 0.4, 0.3, 0.7 + 0.3 * rng.random(corners))
    across, down = radius * np.cos(angle), radius * 0.65 * np.sin(angle) - 0.38
    line = " ".join(f"{x:.3f} {y:.3f}" for x, y in zip(across, down, strict=True))
    x, y = -0.8 + 1.6 * place[0], 0.4 + 0.5 * place[1]
    world = "p m -.95 .32 .95 .32 .95 .98 -.95 .98"
    return figure(f"p m {line}|{world}|e k {x:.3f} {y:.3f} .11 .11|e k {x:.3f} {y:.3f} .06 .06")
