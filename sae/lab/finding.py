"""What a method of the laboratory found: figures beside controls, the table behind them, and pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sae.durable import write_durably
from sae.errors import SaeError
from sae.evaluation.pictures import caption_hashes, save_picture
from sae.features.catalog import write_json

Draw = Callable[[], Any]
"""Returns a matplotlib figure with a constrained layout."""


@dataclass(frozen=True)
class Picture:
    """A plot, the tidy rows behind it, and what to read in it."""

    draw: Draw
    rows: Sequence[Mapping[str, Any]]
    caption: str


@dataclass(frozen=True)
class Finding:
    """The result of one method.

    Attributes:
        method: its name.
        about: hashes of what it was found on.
        figures: headline numbers by name, those of controls beside them.
        rows: the table, one mapping per line with the same keys; where keys change, another table begins.
        verdict: one plain sentence: what was found, or that it cannot be told from the controls.
        pictures: by file name, without suffix.
        images: PNG files by name, for what is no plot.
    """

    method: str
    about: Mapping[str, Any]
    figures: Mapping[str, float]
    rows: Sequence[Mapping[str, Any]]
    verdict: str
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    images: Mapping[str, bytes] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "about": dict(self.about),
            "figures": dict(self.figures),
            "verdict": self.verdict,
            "rows": [dict(row) for row in self.rows],
            "pictures": {name: picture.caption for name, picture in self.pictures.items()},
        }

    def save(self, folder: Path, settings: Mapping[str, Any] | None = None) -> None:
        """Write FOLDER/METHOD.json, with the settings of the run if given, and per picture PNG, PDF and CSV."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in self.pictures.items():
            caption = f"{picture.caption}\n{caption_hashes(self.about)}"
            save_picture(picture.draw(), folder / name, picture.rows, caption)
        for name, content in self.images.items():
            write_durably(folder / f"{name}.png", [content], SaeError)
        # Last, so that whoever finds it finds its pictures too.
        write_json(folder / f"{self.method}.json", self.to_json() | ({"settings": dict(settings)} if settings else {}))


def unit_name(kind: str, number: int) -> str:
    """Return what a row calls a unit, such as latent:12, which the explorer links to its card and shows there."""
    return f"{kind.partition(',')[0].removesuffix('s').replace(' ', '_')}:{number}"
