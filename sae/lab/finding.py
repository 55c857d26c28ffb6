"""What a method of the laboratory found: figures beside controls, the table behind them, and pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sae.durable import write_durably
from sae.errors import SaeError
from sae.evaluation.pictures import caption_hashes, save_picture
from sae.features.catalog import json_bytes

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
        """Return it as plain data; figures that are no finite numbers are left out, and such cells are empty."""
        return {
            "method": self.method,
            "about": dict(self.about),
            "figures": {name: value for name, value in self.figures.items() if isfinite(value)},
            "verdict": self.verdict,
            "rows": _known(self.rows),
            "pictures": {name: picture.caption for name, picture in self.pictures.items()},
        }

    def save(self, folder: Path, settings: Mapping[str, Any] | None = None) -> None:
        """Write FOLDER/METHOD.json, with the settings of the run if given, and per picture PNG, PDF and CSV.

        All is made before the first file is put in its place, each of them whole.
        """
        content = json_bytes(self.to_json() | ({"settings": dict(settings)} if settings else {}))
        files = {f"{name}.png": image for name, image in self.images.items()}
        with TemporaryDirectory() as drawn:
            for name, picture in self.pictures.items():
                caption = f"{picture.caption}\n{caption_hashes(self.about)}"
                save_picture(picture.draw(), Path(drawn) / name, _known(picture.rows), caption)
            files |= {path.name: path.read_bytes() for path in sorted(Path(drawn).iterdir())}
        # The JSON is last, so that whoever finds it finds its pictures too.
        for name, written in (files | {f"{self.method}.json": content}).items():
            write_durably(folder / name, [written], SaeError)


def _known(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows without numbers that are none: neither JSON nor a table has NaN or infinity."""
    return [
        {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in row.items()}
        for row in rows
    ]


def unit_name(kind: str, number: int) -> str:
    """Return what a row calls a unit, such as latent:12, which the explorer links to its card and shows there."""
    return f"{kind.partition(',')[0].removesuffix('s').replace(' ', '_')}:{number}"
