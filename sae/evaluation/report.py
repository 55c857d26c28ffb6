"""The result of an evaluation: scores of a dictionary and of every control, what they are about, as JSON and tables.

The file follows `report_schema.json`. Scores of single latents lie beside it, see `latent_scores.py`.
"""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sae import builtin
from sae.durable import write_durably
from sae.errors import EvaluationError, nearest
from sae.evaluation.metric import N_DRAWS, Measured, Score
from sae.evaluation.report_html import Row, report_html

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
FILE_NAME = "report.json"
DICTIONARY = "dictionary"
"""The name under which the dictionary itself stands among everything that was scored."""

Interval = tuple[float, float]
Verdict = Literal["higher", "lower", "not distinguishable"]


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a dictionary or a control scored: values per item, and scores that are sums over rows already."""

    description: str
    measured: Sequence[Measured] = ()
    row_scores: Sequence[Score] = ()


@dataclass(frozen=True, kw_only=True)
class Control:
    """Scores of what the dictionary has to beat."""

    description: str
    scores: list[Score]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A score of the dictionary minus that of a control, with its 95 % interval.

    Item by item where both were scored on the same items. The verdict is that the dictionary is `higher` or `lower`
    only if the interval leaves out 0.
    """

    metric: str
    control: str
    value: float
    interval: Interval | None
    verdict: Verdict

    @classmethod
    def of(cls, control: str, dictionary: Measured, other: Measured, seed: int) -> "Difference":
        """Compare two measurements of one metric."""
        value, interval = dictionary.minus(other, seed)
        verdict: Verdict = "not distinguishable"
        if interval is not None and not interval[0] <= 0 <= interval[1]:
            verdict = "higher" if interval[0] > 0 else "lower"
        return cls(metric=dictionary.definition.name, control=control, value=value, interval=interval, verdict=verdict)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Scores of one dictionary beside its controls, and the hashes of everything they depend on.

    `about` holds dictionary, store and subject with their hashes, the hookpoint and the seed; `details` holds what is
    not one number (histograms, the best unit of each label).
    """

    about: dict[str, Any]
    scores: list[Score]
    controls: dict[str, Control] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, about: Mapping[str, Any], results: Mapping[str, Results], details: Mapping[str, Any], seed: int = 0
    ) -> "Report":
        """Average what was measured and subtract every control from the dictionary.

        Args:
            about: what was evaluated.
            results: the dictionary's under `DICTIONARY`, the controls' under their names.
            details: plain data to keep with the scores.
            seed: decides the bootstrap.
        """
        controls = {name: one for name, one in results.items() if name != DICTIONARY}
        own = {measured.definition.name: measured for measured in _defined(results[DICTIONARY].measured, DICTIONARY)}
        differences = [
            Difference.of(name, own[other.definition.name], other, seed)
            for name, one in controls.items()
            for other in _defined(one.measured, name)
            if other.definition.name in own
        ]
        return cls(
            about=dict(about) | {"bootstrap": {"level": 0.95, "most_draws": N_DRAWS, "seed": seed}},
            scores=_scores(results[DICTIONARY], DICTIONARY, seed),
            controls={
                name: Control(description=one.description, scores=_scores(one, name, seed))
                for name, one in controls.items()
            },
            differences=differences,
            details=dict(details),
        )

    def __getitem__(self, name: str) -> Score:
        """Return the dictionary's score of that name.

        Raises:
            EvaluationError: it is not in the report.
        """
        found = self.score(name)
        if found is None:
            raise EvaluationError(f"report: no score {name!r}.{nearest(name, [score.name for score in self.scores])}")
        return found

    def __contains__(self, name: str) -> bool:
        return self.score(name) is not None

    def score(self, metric: str, control: str | None = None) -> Score | None:
        """Return a score of the dictionary or of a control, None where there is none."""
        scores = self.scores if control is None else self.controls[control].scores
        return next((score for score in scores if score.name == metric), None)

    def difference(self, metric: str, control: str) -> Difference | None:
        """Return how the dictionary differs from a control, None where that was not worked out."""
        found = (one for one in self.differences if (one.metric, one.control) == (metric, control))
        return next(found, None)

    def strongest(self, score: Score) -> str | None:
        """Return the control with the best score of that metric; None for a metric without a better direction."""
        if score.better == "neither":
            return None
        rivals = {name: self.score(score.name, name) for name in self.controls}
        values = {name: one.value for name, one in rivals.items() if one is not None and not math.isnan(one.value)}
        best = max if score.better == "higher" else min
        return best(values, key=lambda name: values[name]) if values else None

    def save(self, path: Path) -> None:
        """Write the report in one step, so that it is never half-written."""
        data = {
            "format_version": FORMAT_VERSION,
            "about": self.about,
            "scores": [score.to_json() for score in self.scores],
            "controls": {name: asdict(control) for name, control in self.controls.items()},
            "differences": [asdict(difference) for difference in self.differences],
            "details": self.details,
        }
        text = json.dumps(_finite(data), indent=1, allow_nan=False)
        write_durably(path, [text.encode()], EvaluationError)

    @classmethod
    def load(cls, path: Path) -> "Report":
        """Read a report.

        Raises:
            EvaluationError: missing, not a report, or of another format version.
        """
        if not path.is_file():
            raise EvaluationError(f"{path}: no such report.")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise EvaluationError(f"{path}: not a report: {error}.") from error
        found = data.get("format_version") if isinstance(data, dict) else None
        if found != FORMAT_VERSION:
            raise EvaluationError(f"{path}: format version {found}, this reads {FORMAT_VERSION}.")
        return cls(
            about=data["about"],
            scores=[Score(**_known(score)) for score in data["scores"]],
            controls={
                name: Control(
                    description=control["description"], scores=[Score(**_known(score)) for score in control["scores"]]
                )
                for name, control in data["controls"].items()
            },
            differences=[Difference(**_known(difference)) for difference in data["differences"]],
            details=data["details"],
        )

    @classmethod
    def find(cls, name: str) -> "Report":
        """Read the report that is named by its file, by its folder, or as that of a built-in, builtin:NAME.

        Raises:
            EvaluationError: there is none.
        """
        path = builtin.dictionary_folder(name) if name.startswith(builtin.PREFIX) else Path(name)
        return cls.load(path / FILE_NAME if path.is_dir() else path)

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Return table rows: metric, value, 95 % interval, the strongest control, and how the dictionary compares."""
        return [self._row(score) for score in self.scores]

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        of, subject = self.about.get(DICTIONARY, {}), self.about.get("subject", {})
        sizes = [(name, of.get(key)) for name, key in (("latents", "d_sae"), ("reads", "d_in"))]
        facts = [(name, f"{value:,}") for name, value in sizes if isinstance(value, int)]
        facts += [("scores", f"{len(self.scores)}"), ("controls", f"{len(self.controls)}")]
        origin = [str(part) for part in (subject.get("id"), self.about.get("hookpoint")) if part]
        return report_html(
            " ".join(origin) or "of unknown origin", facts, [self._drawn(score) for score in self.scores]
        )

    def _drawn(self, score: Score) -> Row:
        rivals = {name: self.score(score.name, name) for name in self.controls}
        values = {name: one.value for name, one in rivals.items() if one is not None}
        strongest = self.strongest(score)
        difference = None if strongest is None else self.difference(score.name, strongest)
        verdict = None if difference is None else difference.verdict
        better = verdict == score.better if verdict in ("higher", "lower") else None
        return Row(score.name, score.value, score.interval, values, strongest, better, difference is not None)

    def _row(self, score: Score) -> tuple[str, str, str, str, str]:
        value, interval = f"{score.value:.4g}", interval_text(score.interval)
        control = self.strongest(score)
        rival = None if control is None else self.score(score.name, control)
        if control is None or rival is None:
            return score.name, value, interval, "", ""
        difference = self.difference(score.name, control)
        joint = "from" if difference and difference.verdict == "not distinguishable" else "than"
        verdict = f"{difference.verdict} {joint} {control}" if difference else ""
        return score.name, value, interval, f"{control} {rival.value:.4g}", verdict

    def control_rows(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the header and the rows of a table of metrics by controls."""
        rows = []
        for score in self.scores:
            rivals = [self.score(score.name, name) for name in self.controls]
            if any(rivals):
                rows.append((score.name, *(f"{one.value:.3g}" if one else "" for one in (score, *rivals))))
        return ("metric", DICTIONARY, *self.controls), rows


def interval_text(interval: Interval | None) -> str:
    """Write an interval for a table."""
    return f"[{interval[0]:.4g}, {interval[1]:.4g}]" if interval else ""


def _defined(measured: Iterable[Measured], who: str) -> list[Measured]:
    """Leave out what has no value for any item, and say so."""
    kept = []
    for one in measured:
        if one.values.isnan().all():
            logger.warning("%s of %s: undefined for all %d items.", one.definition.name, who, len(one.values))
        else:
            kept.append(one)
    return kept


def _scores(results: Results, who: str, seed: int) -> list[Score]:
    return [*results.row_scores, *(measured.score(seed) for measured in _defined(results.measured, who))]


def _finite(data: Any) -> Any:
    """Replace numbers that JSON does not have by null."""
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _known(data: dict[str, Any]) -> dict[str, Any]:
    """Turn what JSON holds of a score or a difference back: null is no number, an interval is a pair."""
    ends = data["interval"]
    interval = None if ends is None or None in ends else tuple(ends)
    return data | {"value": math.nan if data["value"] is None else data["value"], "interval": interval}
