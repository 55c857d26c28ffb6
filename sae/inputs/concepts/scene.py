"""All factors of one picture."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that decides a picture and its caption; equal scenes give equal bytes."""

    split: str
    index: int
    concept: str
    facet: str
    colour: str
    """Colour word of the figure; `hue`, `saturation`, `value` are what is painted."""
    hue: float
    saturation: float
    value: float
    ground: str
    """Colour word of the background."""
    background: str
    """Texture of the background."""
    font: str
    size: float
    """Half-width of the figure as a share of half the frame."""
    rotation: float
    """Degrees, clockwise."""
    x: float
    """Centre of the figure in [-1, 1]."""
    y: float
    aspect: float
    light: float
    """Direction the light comes from, in degrees."""
    contrast: float
    stroke: int
    """Line width of sketches, in pixels of the double-size canvas."""
    skin: int
    hair: str
    hair_colour: str
    glasses: bool
    text: str
    """Incidental word written in a photo, or empty."""
    text_x: float
    text_y: float
    companion: str
    """Another concept shown small, or empty."""
    badge: bool
    """Whether the concept's own emblem is shown small."""
    alias: str
    """Name used by the caption instead of the concept's, or empty."""
    mentions: tuple[str, ...]
    """What the caption adds: any of colour, ground, text, companion, glasses, hair_colour."""
    template: int
    noise: int
    """Seed of what carries no label: clutter, texture offsets, grain."""
