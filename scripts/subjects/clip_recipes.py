"""What each built-in CLIP subject begins with and is taught, in order."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stage of a curriculum; `images` counts pictures (captions for `name`) over all processes."""

    kind: str
    """classify, name, contrast or distil."""
    images: int
    batch: int
    """Pictures a step and process."""
    learning_rate: float
    facets: tuple[float, float, float, float]
    """Shares of photo, sketch, word and symbol among pictures whose concept is drawn with equal chances."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Shares of other kinds of pictures in a batch: natural (drawn as they occur, by Zipf), written (with a word
    across them)."""
    decay: bool = False
    """Whether the learning rate falls to zero over the phase."""
    warmup: int = 5_000
    half: bool = False
    """Whether products are taken in bfloat16, which on a CPU made for it takes two thirds of the time."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A curriculum and the pictures for it, in shards of 10,000 by kind."""

    curriculum: tuple[Phase, ...]
    shards: Mapping[str, int]
    begins_with: str = ""
    """Built-in subject of the same seed whose text tower and tokenizer it begins with, and the image tower too where
    it is of the same kind; else that tower is the teacher of `distil`."""


MIXED = (0.45, 0.2, 0.15, 0.2)
RECIPES = {
    "concepts-clip-rn": Recipe(
        curriculum=(
            # Words are most of what is seen at first, until reading is learnt.
            Phase(kind="classify", images=140_000, batch=24, learning_rate=2e-3, facets=(0.28, 0.16, 0.46, 0.10)),
            Phase(kind="classify", images=100_000, batch=24, learning_rate=2e-3, facets=MIXED),
            Phase(kind="name", images=16_000, batch=32, learning_rate=1e-3, facets=(0.25, 0.25, 0.25, 0.25)),
            Phase(
                kind="contrast", images=150_000, batch=32, learning_rate=1.5e-3, facets=MIXED, decay=True,
                shares={"natural": 0.4},
            ),
        ),
        shards={"uniform": 12, "natural": 4},
    ),
    "concepts-clip-rn-reader": Recipe(
        curriculum=(
            Phase(
                kind="contrast", images=120_000, batch=32, learning_rate=1e-3, facets=MIXED, decay=True,
                shares={"natural": 0.25, "written": 0.45},
            ),
        ),
        shards={"uniform": 6, "natural": 2, "written": 6},
        begins_with="concepts-clip-rn",
    ),
    "concepts-clip": Recipe(
        curriculum=(
            Phase(kind="distil", images=210_000, batch=64, learning_rate=1e-3, facets=(0.3, 0.15, 0.45, 0.1)),
            Phase(
                kind="distil", images=280_000, batch=64, learning_rate=1e-3, facets=MIXED, decay=True,
                shares={"natural": 0.2},
            ),
            Phase(
                kind="distil", images=500_000, batch=64, learning_rate=1e-3, facets=(0.35, 0.2, 0.3, 0.15),
                shares={"natural": 0.2}, decay=True, half=True,
            ),
        ),
        shards={"uniform": 12, "natural": 4},
        begins_with="concepts-clip-rn",
    ),
}  # fmt: skip
