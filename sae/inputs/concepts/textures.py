"""Backgrounds, patterns and landscapes: everything that is a function of the plane."""

from functools import lru_cache

import numpy as np

BACKGROUNDS = {
    "plain": (0.0, 0.0, 0.0),
    "soft": (12, 12, 0.30),
    "grain": (1, 1, 0.22),
    "wood": (24, 1.5, 0.30),
    "curtain": (1.5, 24, 0.30),
    "cloudy": (6, 6, 0.35),
    "speckle": (2, 2, 0.32),
    "haze": (20, 8, 0.35),
    "plaster": (3, 3, 0.20),
    "bark": (2.5, 10, 0.40),
    "ripple": (10, 2.5, 0.40),
    "gravel": (2.8, 2.8, 0.45),
}
"""Width and height of the noise's blur in pixels, and its strength."""
SPLIT_BACKGROUNDS = {
    "subject": ("plain", "soft", "grain", "wood", "curtain", "cloudy", "speckle", "haze"),
    "dictionary": ("plain", "soft", "grain", "wood", "curtain", "cloudy", "plaster", "bark"),
    "score": ("plain", "soft", "grain", "wood", "curtain", "cloudy", "speckle", "haze", "ripple", "gravel"),
}
TILE = 192


@lru_cache(maxsize=16)
def background(name: str) -> np.ndarray:
    """Return a periodic tile [192, 192], mean 1, float32."""
    blur_x, blur_y, strength = BACKGROUNDS[name]
    if not strength:
        return np.ones((TILE, TILE), np.float32)
    rng = np.random.Generator(np.random.PCG64(list(BACKGROUNDS).index(name)))
    frequency = np.fft.fftfreq(TILE) * 2 * np.pi
    damp = np.exp(-0.5 * ((frequency[:, None] * blur_y) ** 2 + (frequency[None, :] * blur_x) ** 2))
    noise = np.fft.ifft2(np.fft.fft2(rng.random((TILE, TILE)) - 0.5) * damp).real
    return (1 + strength * np.clip(noise / noise.std(), -2, 2) / 2).astype(np.float32)


def crop(name: str, side: int, x: float, y: float) -> np.ndarray:
    """Return a [side, side] piece of a tile; x, y in [0, 1) choose which."""
    left, top = int(x * (TILE - side)), int(y * (TILE - side))
    return background(name)[top : top + side, left : left + side]


def _cell(u: np.ndarray) -> np.ndarray:
    """Return the place within cells of width 1, in [-0.5, 0.5)."""
    return u - np.floor(u) - 0.5


PATTERNS = {
    "stripe": lambda u, v: _cell(v) > 0,
    "column": lambda u, v: _cell(u) > 0,
    "dots": lambda u, v: _cell(u) ** 2 + _cell(v) ** 2 < 0.09,
    "check": lambda u, v: (_cell(u / 1.5) > 0) ^ (_cell(v / 1.5) > 0),
    "grid": lambda u, v: (np.abs(_cell(u)) < 0.12) | (np.abs(_cell(v)) < 0.12),
    "wave": lambda u, v: _cell(v + 0.3 * np.sin(u * 3.5)) > 0,
    "zigzag": lambda u, v: _cell(v + 1.1 * np.abs(_cell(u / 1.6))) > 0,
    "brick": lambda u, v: (np.abs(_cell(v)) > 0.4) | (np.abs(_cell(u / 2 + 0.5 * (np.floor(v) % 2))) > 0.44),
    "scale": lambda u, v: np.abs(np.hypot(_cell(u + 0.5 * (np.floor(v) % 2)), v - np.floor(v)) - 0.45) < 0.11,
    "plaid": lambda u, v: 0.5 * (_cell(u / 1.6) > 0.1) + 0.5 * (_cell(v / 1.6) > 0.1),
    "target": lambda u, v: _cell(np.hypot(u, v) / 1.1) > 0,
    "rays": lambda u, v: np.sin(9 * np.arctan2(v, u)) > 0,
    "mesh": lambda u, v: (np.abs(_cell((u + v) / 1.3)) < 0.12) | (np.abs(_cell((u - v) / 1.3)) < 0.12),
    "swirl": lambda u, v: np.sin(3 * np.arctan2(v, u) + 3.5 * np.hypot(u, v)) > 0,
    "weave": lambda u, v: np.where((np.floor(u) + np.floor(v)) % 2 > 0, np.abs(_cell(u)) < 0.3, np.abs(_cell(v)) < 0.3),
    "rings": lambda u, v: np.abs(np.hypot(_cell(u / 1.4), _cell(v / 1.4)) - 0.3) < 0.1,
}
"""Coverage of the pattern's second colour at plane coordinates of about [-3, 3]."""
