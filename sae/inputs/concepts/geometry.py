"""Part lists become polygons, and polygons become layers of pixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw


@dataclass(frozen=True)
class Figure:
    """Polygons in unit coordinates: all corners [n, 2], where each polygon ends, and its colour slot."""

    points: np.ndarray
    ends: tuple[int, ...]
    slots: tuple[str, ...]


@lru_cache(maxsize=1024)
def figure(text: str) -> Figure:
    """Parse a part list (see `outlines`)."""
    polygons: list[tuple[str, list]] = []
    for part in filter(None, text.split("|")):
        kind, slot, *numbers = part.split()
        for outline in _KINDS[kind](*map(float, numbers)):
            polygons.append((outline[1] or slot.upper(), outline[0]) if isinstance(outline, tuple) else (slot, outline))
    ends = np.cumsum([len(points) for _, points in polygons])
    points = np.concatenate([np.asarray(points, float) for _, points in polygons])
    return Figure(points, tuple(int(end) for end in ends), tuple(slot for slot, _ in polygons))


def _ellipse(cx: float, cy: float, rx: float, ry: float, angle: float = 0.0) -> list[np.ndarray]:
    steps = np.linspace(0, 2 * np.pi, 24 if max(rx, ry) > 0.2 else 12, endpoint=False)
    turn = np.deg2rad(angle)
    x, y = rx * np.cos(steps), ry * np.sin(steps)
    return [np.stack([cx + x * np.cos(turn) - y * np.sin(turn), cy + x * np.sin(turn) + y * np.cos(turn)], 1)]


def _polygon(*numbers: float) -> list[np.ndarray]:
    return [np.reshape(numbers, (-1, 2))]


def _stroke(width: float, *numbers: float) -> list[np.ndarray]:
    """A polyline with flat ends, as one closed outline with mitred corners."""
    points = np.reshape(numbers, (-1, 2))
    steps = np.diff(points, axis=0)
    normals = np.stack([-steps[:, 1], steps[:, 0]], 1) / np.hypot(*steps.T)[:, None]
    ends = np.concatenate([normals[:1], normals[:-1] + normals[1:], normals[-1:]])
    inner = ends[1:-1]
    ends[1:-1] = inner / np.maximum((inner**2).sum(1, keepdims=True) / 2, 0.6)
    return [np.concatenate([points + ends * width / 2, (points - ends * width / 2)[::-1]])]


def _arc(cx: float, cy: float, radius: float, width: float, start: float, end: float) -> list[np.ndarray]:
    steps = np.deg2rad(np.linspace(start, end, max(6, int(abs(end - start) / 12))))
    circle = np.stack([np.cos(steps), np.sin(steps)], 1)
    rim = np.concatenate([circle * (radius + width / 2), circle[::-1] * (radius - width / 2)])
    return [rim + np.array([cx, cy])]


def _quadruped(*numbers: float) -> list:
    """Body, legs, neck, head, ears (0 none, 1 pointed, 2 round, 4 hanging), tail (0 none ... 4 bushy).

    A part paired with a slot has that colour, one paired with "" the darker shade of the animal's own.
    """
    body_w, body_h, leg, neck_x, neck_y, head, snout, ear, tail = numbers
    hip, shoulder = 0.15 + body_w * 0.75, 0.15 - body_w * 0.75
    parts: list = []
    for x in (shoulder, hip):
        for shift, behind in ((0.08, True), (-0.06, False)):
            box = _polygon(*(x + shift - 0.07, 0, x + shift + 0.07, 0, x + shift + 0.06, body_h + leg))[0]
            box = np.concatenate([box, [[x + shift - 0.06, body_h + leg]]])
            parts.append((box, "") if behind else box)
    ends = {1: (0.2, 0.15), 2: (0.12, 0.55), 3: (0.25, -0.35), 4: (0.22, 0.5)}
    if tail:
        dx, dy = ends[int(tail)]
        rump = 0.15 + body_w * 0.92
        parts += _stroke(0.2 if tail == 4 else 0.07, rump, -0.08, rump + dx * 0.8, -0.05, rump + dx * 0.8, dy)
    parts += _ellipse(0.15, 0, body_w, body_h)
    parts += _stroke(max(0.24, head), shoulder + 0.05, -0.02, neck_x, neck_y)
    parts += _ellipse(neck_x, neck_y, head, head * 0.9)
    if snout:
        parts += _ellipse(neck_x - head * 0.9, neck_y + head * 0.25, snout, snout * 0.7)
    if ear == 1:
        parts += _polygon(
            neck_x, neck_y - head * 0.6, neck_x + head * 0.5, neck_y - head * 1.7, neck_x + head * 0.8, neck_y
        )
    elif ear:
        drop = head * (0.35 if ear == 4 else -0.75)
        blob = _ellipse(neck_x + head * 0.75, neck_y + drop, head * 0.35, head * (0.75 if ear == 4 else 0.4))[0]
        parts.append((blob, ""))
    eye = _ellipse(neck_x - head * 0.3, neck_y - head * 0.2, 0.045, 0.05)[0]
    return [*parts, (eye, "k")]


_KINDS: dict[str, Callable[..., list]] = {"e": _ellipse, "p": _polygon, "l": _stroke, "a": _arc, "q": _quadruped}


def placed(shape: Figure, matrix: np.ndarray, offset: np.ndarray, wobble: float = 0.0, phase: float = 0.0) -> list:
    """Return flat corner lists in pixels: `points @ matrix + offset`, bent slightly by `wobble`."""
    points = shape.points
    if wobble:
        points = points + wobble * np.sin(points[:, ::-1] * (5.0, 4.0) + phase)
    flat = (points @ matrix + offset).ravel().tolist()
    starts = (0, *shape.ends[:-1])
    return [flat[2 * start : 2 * end] for start, end in zip(starts, shape.ends, strict=True)]


def filled(outlines: list, colours: Sequence, side: int) -> tuple[Image.Image, Image.Image]:
    """Return the filled polygons on black [side, side] and their common coverage."""
    image, cover = Image.new("RGB", (side, side)), Image.new("L", (side, side))
    paint, mask = ImageDraw.Draw(image), ImageDraw.Draw(cover)
    for outline, colour in zip(outlines, colours, strict=True):
        paint.polygon(outline, fill=colour)
        mask.polygon(outline, fill=255)
    return image, cover


def outlined(outlines: list, ink: tuple, paper: tuple, width: int, side: int) -> tuple[Image.Image, Image.Image]:
    """Return a line drawing whose polygons hide what lies behind them, and their common coverage."""
    image, cover = Image.new("RGB", (side, side)), Image.new("L", (side, side))
    paint, mask = ImageDraw.Draw(image), ImageDraw.Draw(cover)
    for outline in outlines:
        closed = outline + outline[:4]
        paint.polygon(outline, fill=paper)
        paint.line(closed, fill=ink, width=width)
        mask.polygon(outline, fill=255)
        mask.line(closed, fill=255, width=width)
    return image, cover
