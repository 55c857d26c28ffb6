"""The result of an evaluation: scores with what they are about, as JSON and as a table."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sae.durable import write_durably
from sae.errors import EvaluationError
from sae.evaluation.metric import Score

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Report:
    """Scores of one dictionary and the hashes of everything they depend on.

    `about` holds dictionary, store and subject with their hashes, the hookpoint and the seed; `details` holds what is
    not one number (histograms, the best latent of each label).
    """

    about: dict[str, Any]
    scores: list[Score]
    details: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Score:
        """Return the score of that name.

        Raises:
            EvaluationError: it is not in the report.
        """
        for score in self.scores:
            if score.name == name:
                return score
        raise EvaluationError(f"report: no score {name!r}; it has {', '.join(s.name for s in self.scores)}.")

    def __contains__(self, name: str) -> bool:
        return any(score.name == name for score in self.scores)

    def save(self, path: Path) -> None:
        """Write `report.json` in one step, so that it is never half-written."""
        data = {
            "format_version": FORMAT_VERSION,
            "about": self.about,
            "scores": [score.to_json() for score in self.scores],
            "details": self.details,
        }
        write_durably(path, [json.dumps(data, indent=1).encode()], EvaluationError)

    @classmethod
    def load(cls, path: Path) -> "Report":
        """Read a report.

        Raises:
            EvaluationError: missing, or of another format version.
        """
        if not path.is_file():
            raise EvaluationError(f"{path}: no such report.")
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("format_version") != FORMAT_VERSION:
            raise EvaluationError(f"{path}: format version {data.get('format_version')}, this reads {FORMAT_VERSION}.")
        scores = [Score(**{**s, "interval": tuple(s["interval"]) if s["interval"] else None}) for s in data["scores"]]
        return cls(about=data["about"], scores=scores, details=data["details"])

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return table rows: name, value, 95 % interval, what it was averaged over."""
        out = []
        for score in self.scores:
            interval = f"[{score.interval[0]:.4g}, {score.interval[1]:.4g}]" if score.interval else ""
            out.append((score.name, f"{score.value:.4g}", interval, f"{score.n:,} {score.unit}"))
        return out
