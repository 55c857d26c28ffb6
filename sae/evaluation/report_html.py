"""A report as a notebook shows it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sae import notebook

HEADLINES = 12
"""Scores that are shown at once."""
HEADER = ("score", "", "value", "95 % interval", "strongest control", "")


@dataclass(frozen=True)
class Row:
    """A score beside those of its controls.

    Attributes:
        controls: values by name.
        strongest: the control to beat; None where no direction is better.
        better: whether the dictionary beats it; None where the two cannot be told apart.
        compared: whether the two were compared at all.
    """

    name: str
    value: float
    interval: tuple[float, float] | None
    controls: Mapping[str, float]
    strongest: str | None
    better: bool | None
    compared: bool


def report_html(title: str, facts: Iterable[tuple[str, str]], rows: Sequence[Row]) -> str:
    """Return the scores beside their controls: first those that were compared with one, the rest at a press."""
    ranked = sorted(rows, key=lambda row: -(2 * row.compared + (row.strongest is not None)))
    first, rest = (notebook.table(HEADER, map(_cells, some), (2,)) for some in (ranked[:HEADLINES], ranked[HEADLINES:]))
    return notebook.panel(
        "evaluation report",
        title,
        notebook.facts(facts),
        notebook.note("Dot: the dictionary, on its 95 % interval. Ticks: the controls, the strongest one long."),
        first,
        notebook.folded(f"{len(rows) - HEADLINES} more", rest) if len(rows) > HEADLINES else "",
    )


def _cells(row: Row) -> tuple[str, ...]:
    control = None if row.strongest is None else row.controls[row.strongest]
    drawn = notebook.strip(row.value, row.interval, control, list(row.controls.values()))
    interval = " to ".join(map(notebook.number, row.interval)) if row.interval else ""
    told = "" if row.strongest is None or control is None else f"{_words(row.strongest)} {notebook.number(control)}"
    verdict = {True: "better", False: "worse", None: "not distinguishable"}[row.better]
    shown = notebook.toned(verdict, row.better) if row.compared else ""
    return _words(row.name), drawn, notebook.number(row.value), interval, told, shown


def _words(name: str) -> str:
    return name.replace("_", " ")
