"""What the laboratory found about a catalog's dictionary: one folder for each finding. Needs no torch.

    CATALOG/lab/NAME/METHOD.json     a finding as `lab.finding.Finding` writes it
    CATALOG/lab/NAME/PICTURE.png     its pictures, whose captions the finding has, and other images
    CATALOG/lab/NAME/labelling.json  a labelling that is under way, see `judging/labelling.py`

Folders are read as they come, so a finding shows once it is written; one that changes is read again. An image named
`latent-12-...` or `neuron-3-...` is of that unit.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sae.errors import CatalogError, nearest
from sae.features.catalog import read_json

FOLDER = "lab"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,119}")
PNG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,119}\.png")
UNIT = re.compile(r"(latent|neuron)[: ]([0-9]{1,12})")
OF_UNIT = re.compile(r"(latent|neuron)-([0-9]{1,12})(?![0-9])")
NOT_FINDINGS = ("labelling.json", "key.json")
FEW_ROWS = 8
"""Rows of a finding that a card shows."""

Unit = tuple[str, int]


@dataclass(frozen=True)
class Found:
    """A finding on disk.

    Attributes:
        name: of its folder.
        data: as written: `method`, `about`, `figures`, `verdict`, `rows`, `pictures` (captions), `settings`.
        images: PNG files of the folder, by name without suffix; those with a caption are pictures.
        labelling: whether people are to label its items.
    """

    name: str
    data: Mapping[str, Any]
    images: tuple[str, ...]
    labelling: bool

    @property
    def pictures(self) -> dict[str, str]:
        """Captions of the pictures, by name."""
        return {name: text for name, text in self.data.get("pictures", {}).items() if name in self.images}

    @property
    def unit(self) -> Unit | None:
        """The unit that all of it is about, if it is about one."""
        settings = self.data.get("settings", {})
        if isinstance(settings.get("latent"), int):
            return "latent", settings["latent"]
        match = UNIT.fullmatch(str(settings.get("unit", "")))
        return None if match is None else (match[1], int(match[2]))

    @cached_property
    def rows_of(self) -> dict[Unit, list[int]]:
        """The rows that name each unit."""
        found: dict[Unit, list[int]] = {}
        for number, row in enumerate(self.data["rows"]):
            for unit in units_in(row):
                found.setdefault(unit, []).append(number)
        return found

    @cached_property
    def images_of(self) -> dict[Unit, list[str]]:
        """The images that are named for each unit."""
        found: dict[Unit, list[str]] = {}
        for name in self.images:
            if match := OF_UNIT.match(name):
                found.setdefault((match[1], int(match[2])), []).append(name)
        return found

    @property
    def units(self) -> set[Unit]:
        """All units that it says something of."""
        return {*self.rows_of, *self.images_of, *([] if self.unit is None else [self.unit])}

    def summary(self) -> dict[str, Any]:
        """Return what a list shows of it."""
        known = {name: self.data[name] for name in ("method", "verdict")}
        counts = {"n_rows": len(self.data["rows"]), "n_images": len(self.images), "labelling": self.labelling}
        return {"name": self.name, **known, **counts, "picture": next(iter(self.pictures), None)}

    def to_json(self) -> dict[str, Any]:
        """Return all of it as a page shows it."""
        others = [name for name in self.images if name not in self.pictures]
        shown = {"pictures": self.pictures, "images": others, "labelling": self.labelling}
        return {"name": self.name, **self.data, **shown}

    def of(self, unit: Unit) -> dict[str, Any] | None:
        """Return what it says of a unit; None if nothing."""
        if unit not in self.units:
            return None
        rows, images, whole = self.rows_of.get(unit, []), self.images_of.get(unit, []), self.unit == unit
        # Of a finding that is about the unit alone every row would do.
        shown = [] if whole else [self.data["rows"][number] for number in rows[:FEW_ROWS]]
        picture = next(iter(self.pictures), None) if whole else None
        known = {name: self.data[name] for name in ("method", "verdict")}
        return {"name": self.name, **known, "whole": whole, "picture": picture, "images": images, "rows": shown,
                "n_rows": len(rows)}  # fmt: skip


def units_in(row: Mapping[str, Any]) -> set[Unit]:
    """Return the units that a row names.

    These are numbers under `latent` and `neuron`, lists of them under `latents` and `neurons`, and values such as
    latent:12 under any name.
    """
    found: set[Unit] = set()
    for column, value in row.items():
        kind = column.removesuffix("s")
        if kind in ("latent", "neuron") and not isinstance(value, bool):
            numbers = value if isinstance(value, list) else str(value).split() if value is not None else []
            found |= {(kind, int(one)) for one in numbers if re.fullmatch("[0-9]{1,12}", str(one))}
        if isinstance(value, str) and (match := UNIT.fullmatch(value)):
            found.add((match[1], int(match[2])))
    return found


def _natural(name: str) -> list[str | int]:
    """Return what sorts names by the numbers in them: latent-9 before latent-10."""
    return [int(part) if part.isdecimal() else part for part in re.split("([0-9]+)", name)]


class Findings:
    """The findings of a catalog, by the names of their folders.

    Args:
        catalog: its folder.
        dictionary: sha256 of what it is of; findings of other dictionaries are not shown, as their latents are others.
    """

    def __init__(self, catalog: Path | str, dictionary: str) -> None:
        self.folder, self.dictionary = Path(catalog) / FOLDER, dictionary
        self._read: dict[str, tuple[tuple[Any, ...], Found]] = {}

    def __iter__(self) -> Iterator[str]:
        if self.folder.is_dir():
            names = sorted(path.name for path in self.folder.iterdir() if path.is_dir())
            yield from (name for name in names if NAME.fullmatch(name))

    def __getitem__(self, name: str) -> Found:
        """Return a finding.

        Raises:
            CatalogError: there is none of that name, its file is damaged, or it is of another dictionary.
        """
        names = list(self)
        if name not in names:
            raise CatalogError(f"{self.folder}: no finding {name!r:.60}.{nearest(name, names)}")
        folder = self.folder / name
        files = sorted(path for path in folder.iterdir() if path.is_file())
        state = tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files)
        if name not in self._read or self._read[name][0] != state:
            self._read[name] = state, self._open(name, files)
        return self._read[name][1]

    def listed(self) -> list[dict[str, Any]]:
        """Return a summary of each; one that cannot be shown has the reason as its `problem`."""
        found = []
        for name in self:
            try:
                found.append(self[name].summary())
            except CatalogError as error:
                found.append({"name": name, "problem": str(error)})
        return found

    def all(self) -> Iterator[Found]:
        """Yield those that can be shown."""
        yield from (self[one["name"]] for one in self.listed() if "problem" not in one)

    def of(self, kind: str, index: int) -> list[dict[str, Any]]:
        """Return what each says of a unit."""
        return [said for found in self.all() if (said := found.of((kind, index))) is not None]

    def by_card(self, kind: str) -> dict[int, list[dict[str, Any]]]:
        """Return what they say of each card of a kind of which any says something."""
        said: dict[int, list[dict[str, Any]]] = {}
        for found in self.all():
            for unit in sorted(found.units):
                if unit[0] == kind and (one := found.of(unit)) is not None:
                    said.setdefault(unit[1], []).append(one)
        return said

    def image(self, name: str, file: str) -> Path | None:
        """Return where an image of a finding lies; None if there is none."""
        path = self.folder / name / file
        return path if NAME.fullmatch(name) and PNG.fullmatch(file) and path.is_file() else None

    def _open(self, name: str, files: list[Path]) -> Found:
        texts = [path for path in files if path.suffix == ".json" and path.name not in NOT_FINDINGS]
        read = [(path, read_json(path)) for path in texts]
        data = [one for path, one in read if isinstance(one, dict) and one.get("method") == path.stem]
        if len(data) != 1:
            raise CatalogError(f"{self.folder / name}: holds {len(data)} findings; give each a folder of its own.")
        if not isinstance(data[0].get("rows"), list) or not isinstance(data[0].get("verdict"), str):
            raise CatalogError(f"{self.folder / name}: its file is none of a finding; run the method again.")
        of = data[0].get("about", {}).get("dictionary", {}).get("sha256")
        if of != self.dictionary:
            raise CatalogError(f"{self.folder / name}: is of another dictionary, sha256 {str(of)[:10]}.")
        images = tuple(sorted((path.stem for path in files if PNG.fullmatch(path.name)), key=_natural))
        return Found(name, data[0], images, any(path.name == "labelling.json" for path in files))
