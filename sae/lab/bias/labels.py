"""Labels of pictures from a file, for inputs that know none of that kind, such as a folder."""

import csv
import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sae.errors import ConfigError, nearest
from sae.inputs.base import Classes
from sae.lab.workbench import Workbench
from sae.tensors import Batch

PATH = "path"


class AlsoLabelled:
    """Inputs with further families of labels, which they cannot show in other ways (they are not `Varied`).

    Args:
        inputs: labelled pictures that lie at paths, as those of folders and lists do.
        given: of a path, its values by family; a family that is missing or empty says nothing of the picture.
        where: for messages.

    Raises:
        ConfigError: the inputs' pictures have no paths, a path is none of theirs, or a family is already known.
    """

    def __init__(self, inputs: Any, given: Mapping[str, Mapping[str, str]], where: str) -> None:
        places = inputs.references(0, len(inputs)) if hasattr(inputs, "references") else []
        if not places or PATH not in places[0]:
            raise ConfigError(f"labels: {inputs.describe()}: these pictures do not lie at paths that a file can name.")
        paths = [one[PATH] for one in places]
        there = set(paths)
        for path in given:
            if path not in there:
                raise ConfigError(f"labels: {where}: no picture {path!r}.{nearest(path, paths)}")
        families = sorted({family for values in given.values() for family in values})
        for family in families:
            if family in inputs.label_names:
                raise ConfigError(f"labels: {where}: there are labels {family!r} already; name yours otherwise.")
        self._inputs, self._columns = inputs, {}
        self.label_names: dict[str, Sequence[str]] = dict(inputs.label_names)
        for family in families:
            values = [given.get(path, {}).get(family, "") for path in paths]
            names = sorted(set(values) - {""})
            number = {name: place for place, name in enumerate(names)}
            self.label_names[family] = names
            self._columns[family] = np.array([number.get(value, -1) for value in values], dtype=np.int64)

    @property
    def classes(self) -> Classes | None:
        return self._inputs.classes

    @property
    def bookkeeping(self) -> Collection[str]:
        return self._inputs.bookkeeping

    @property
    def fingerprint(self) -> str:
        return self._inputs.fingerprint

    def __len__(self) -> int:
        return len(self._inputs)

    def batch(self, start: int, stop: int) -> Batch:
        return self._inputs.batch(start, stop)

    def describe(self) -> dict[str, Any]:
        return self._inputs.describe()

    def references(self, start: int, stop: int) -> list[dict[str, Any]]:
        return self._inputs.references(start, stop)

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the inputs' own labels and those of the file."""
        return self._inputs.labels(start, stop) | {name: of[start:stop] for name, of in self._columns.items()}


def with_labels(bench: Workbench, path: Path) -> Workbench:
    """Return the workbench with labels from a file.

    Args:
        bench: over pictures that lie at paths.
        path: a .csv with a column `path`, relative to the inputs' folder, and one column per family; or JSON of paths
            and their values, {"cats/1.jpg": {"fur": "red"}}.

    Raises:
        ConfigError: the file cannot be read as one of these, or does not fit the inputs.
    """
    try:
        given = dict(_rows(path))
    except (OSError, ValueError, csv.Error) as cause:
        raise ConfigError(f"labels: {path}: cannot be read as a .csv with a column {PATH}, or JSON: {cause}") from cause
    return dataclasses.replace(bench, inputs=AlsoLabelled(bench.inputs, given, str(path)))  # type: ignore[arg-type]


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if PATH not in row:
                    raise ConfigError(f"labels: {path}: no column {PATH!r}.{nearest(PATH, row)}")
                yield row[PATH], {family: value or "" for family, value in row.items() if family and family != PATH}
        return
    given = json.loads(path.read_text(encoding="utf-8"))
    for name, values in (given if isinstance(given, dict) else {path.name: given}).items():
        if not isinstance(values, dict) or not all(isinstance(one, str) for one in values.values()):
            raise ConfigError(f'labels: {path}: {name!r} has no texts by family such as {{"fur": "red"}}: {values!r}.')
        yield name, values
