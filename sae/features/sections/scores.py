"""A report on cards and on a catalog's first page: scores of single latents beside the strongest control's."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sae import builtin
from sae.dictionaries.base import Dictionary
from sae.errors import CatalogError
from sae.evaluation.latent_scores import FILE_NAME as LATENTS_FILE
from sae.evaluation.latent_scores import LatentScores, load_latent_scores
from sae.evaluation.metric import Score
from sae.evaluation.report import FILE_NAME as REPORT_FILE
from sae.evaluation.report import Report
from sae.features.cards import rounded

COUNTED = ("firing_rate", "dead_fraction", "dense_fraction")
"""Metrics that say what a card's statistics say already."""


class Scores:
    """The section "scores": each score of a latent, with mean and 95 % interval of the strongest control, "against".

    Args:
        report: of the dictionary.
        latents: scores of its latents, from the file beside the report.
    """

    def __init__(self, report: Report, latents: LatentScores) -> None:
        self.report = report
        self.values = {name: values for name, values in latents.values.items() if name not in COUNTED}
        self._controls = {name: self._control(name) for name in self.values}

    @classmethod
    def find(cls, named: str | None, dictionary: Dictionary, source: str) -> "Scores | None":
        """Open the report of a dictionary: the one named, else one that lies with the dictionary, if any does.

        Raises:
            CatalogError: the report is of another dictionary.
            EvaluationError: the report that was named, or the scores beside it, cannot be read.
        """
        path = _folder(source if named is None else named)
        if named is None and not ((path / REPORT_FILE).is_file() and (path / LATENTS_FILE).is_file()):
            return None
        report = Report.find(str(path))
        if (found := report.about["dictionary"]["sha256"]) != dictionary.hash:
            raise CatalogError(f"{path}: a report on dictionary {found[:16]}, not on {dictionary.hash[:16]}, {source}.")
        return cls(report, load_latent_scores((path if path.is_dir() else path.parent) / LATENTS_FILE))

    def columns(self) -> dict[str, Float[np.ndarray, " d_sae"]]:
        """Return every score, nan where a latent has none."""
        return {f"score.{name}": values.numpy() for name, values in self.values.items()}

    def of(self, latents: range) -> list[dict[str, dict[str, Any]] | None]:
        """Return the scores that each latent has."""
        names = list(self.values)
        table = np.stack([self.values[name][latents.start : latents.stop].double().numpy() for name in names], 1)
        found = [
            {
                name: {"value": rounded(value)} | self._controls[name]
                for name, value in zip(names, row, strict=True)
                if not math.isnan(value)
            }
            for row in table.tolist()
        ]
        return [one or None for one in found]

    def overview(self) -> dict[str, Any]:
        """Return the report's rows and its controls as the first page shows them."""
        report = self.report
        controls = {
            name: {
                "description": control.description,
                "scores": {one.name: rounded(one.value) for one in control.scores},
            }
            for name, control in report.controls.items()
        }
        return {"report": [self._row(score) for score in report.scores], "controls": controls}

    def _row(self, score: Score) -> dict[str, Any]:
        row = {
            "name": score.name,
            "value": rounded(score.value),
            "unit": score.unit,
            "n": score.n,
            "better": score.better,
        }
        row |= _ends(score)
        control = self.report.strongest(score)
        rival = None if control is None else self.report.score(score.name, control)
        if control is None or rival is None:
            return row
        difference = self.report.difference(score.name, control)
        row |= {"control": control, "control_value": rounded(rival.value)}
        return row | ({"verdict": difference.verdict} if difference else {})

    def _control(self, name: str) -> dict[str, Any]:
        score = self.report.score(name)
        control = None if score is None else self.report.strongest(score)
        rival = None if control is None else self.report.score(name, control)
        return {} if rival is None else {"control": rounded(rival.value), "against": control, **_ends(rival)}


def _ends(score: Score) -> dict[str, float | None]:
    return {} if score.interval is None else dict(zip(("low", "high"), map(rounded, score.interval), strict=True))


def _folder(name: str) -> Path:
    return builtin.dictionary_folder(name) if name.startswith(builtin.PREFIX) else Path(name)


def facts(report: Report) -> list[list[str]]:
    """Return the few numbers that are named first."""
    named: Mapping[str, str] = {
        "fvu": "FVU",
        "l0": "L0",
        "dead_fraction": "dead latents",
        "ce_recovered": "CE recovered",
    }
    found = [(title, report.score(name)) for name, title in named.items()]
    return [[title, f"{score.value:.3g}"] for title, score in found if score is not None]
