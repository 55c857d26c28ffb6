"""Dictionaries side by side, where their reports are about the same data and mean the same by their metrics."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae.durable import write_durably
from sae.errors import EvaluationError
from sae.evaluation.metric import Score
from sae.evaluation.report import Report, interval_text

CONTROL = "neurons"
"""The control that is shown beside the dictionaries."""

_SAME: dict[str, Callable[[dict[str, Any]], Any]] = {
    "subject": lambda about: about["subject"]["id"],
    "weights of the subject": lambda about: about["subject"].get("weights"),
    "hookpoint": lambda about: about["hookpoint"],
    "store": lambda about: about["store"]["sha256"],
    "inputs": lambda about: about["store"]["inputs"],
    "seed of the halves": lambda about: about["seed"],
    "sample": lambda about: about.get("sample"),
}


@dataclass(frozen=True)
class Comparison:
    """Reports of several dictionaries on the same data, each under a short name."""

    reports: dict[str, Report]

    @property
    def metrics(self) -> list[str]:
        """All metrics that any report has, in the order in which they come."""
        return list(dict.fromkeys(score.name for report in self.reports.values() for score in report.scores))

    def scores(self, metric: str) -> dict[str, Score]:
        """Return a metric of every dictionary that has it."""
        found = {name: report.score(metric) for name, report in self.reports.items()}
        return {name: score for name, score in found.items() if score is not None}

    def control(self, metric: str) -> Score | None:
        """Return the score of the raw neurons, the same for all dictionaries; None where it was not worked out."""
        for report in self.reports.values():
            if CONTROL in report.controls and (score := report.score(metric, CONTROL)) is not None:
                return score
        return None

    def rows(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return header and rows of a table: a metric a row, a dictionary a column, the raw neurons last."""
        rows = []
        for metric in self.metrics:
            scores = self.scores(metric)
            cells = [_cell(scores.get(name)) for name in self.reports]
            rows.append((metric, *cells, _cell(self.control(metric))))
        return ("metric", *self.reports, CONTROL), rows

    def save_table(self, path: Path) -> None:
        """Write every score as a row of a CSV file: metric, dictionary, value, both ends of its interval, n, unit."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(("metric", "version", "better", "dictionary", "value", "low", "high", "n", "unit"))
        for metric in self.metrics:
            control = self.control(metric)
            for name, score in (self.scores(metric) | ({CONTROL: control} if control else {})).items():
                ends = score.interval or ("", "")
                writer.writerow((metric, score.version, score.better, name, score.value, *ends, score.n, score.unit))
        write_durably(path, [text.getvalue().encode()], EvaluationError)


def compare(reports: Sequence[Report]) -> Comparison:
    """Put reports side by side.

    Raises:
        EvaluationError: fewer than two, the same dictionary twice, or reports that differ in subject, hookpoint,
            store, inputs, sample or in the version of a metric.
    """
    if len(reports) < 2:
        raise EvaluationError(f"compare: {len(reports)} report; at least 2 are needed.")
    named = dict(zip(_names(reports), reports, strict=True))
    (first, reference), *others = named.items()
    for name, report in others:
        for what, of in _SAME.items():
            _demand_same(what, first, of(reference.about), name, of(report.about))
        for score in report.scores:
            known = reference.score(score.name)
            if known is not None:
                _demand_same(f"version of {score.name}", first, known.version, name, score.version)
    return Comparison(named)


def _demand_same(what: str, first: str, expected: Any, name: str, found: Any) -> None:
    if expected != found:
        raise EvaluationError(
            f"compare: the reports of {first} and {name} differ in {what}: {expected} and {found}; "
            "evaluate both on the same data with the same version."
        )


def _names(reports: Sequence[Report]) -> list[str]:
    """Name each dictionary by kind and size, and by its hash where that is not enough."""
    about = [report.about["dictionary"] for report in reports]
    names = [f"{one['kind']} {one['d_sae']:,}" for one in about]
    often = Counter(names)
    names = [f"{name} {one['sha256'][:6]}" if often[name] > 1 else name for name, one in zip(names, about, strict=True)]
    for name, count in Counter(names).items():
        if count > 1:
            raise EvaluationError(f"compare: {name} is given {count} times; compare different dictionaries.")
    return names


def _cell(score: Score | None) -> str:
    return f"{score.value:.4g} {interval_text(score.interval)}".rstrip() if score else ""
