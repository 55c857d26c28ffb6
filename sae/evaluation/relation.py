"""The result of comparing dictionaries: scores beside their controls, as JSON, as a table, and per latent."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import save
from torch import Tensor

from sae.durable import write_durably
from sae.errors import EvaluationError
from sae.evaluation.metric import Measured, Score

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One score of one dictionary against another, with what the same score is for controls.

    `gains` holds, for each control, the difference to it with a 95 % interval.
    """

    one: str
    two: str
    score: Score
    median: float
    controls: dict[str, Score]
    gains: dict[str, tuple[float, tuple[float, float] | None]]

    @classmethod
    def of(cls, one: str, two: str, measured: Measured, controls: Mapping[str, Measured], seed: int) -> "Comparison":
        """Score values per latent and those of the controls."""
        return cls(
            one=one,
            two=two,
            score=measured.score(seed),
            median=float(measured.values.nanmedian()),
            controls={name: control.score(seed) for name, control in controls.items()},
            gains={name: measured.minus(control, seed) for name, control in controls.items()},
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "one": self.one,
            "two": self.two,
            **self.score.to_json(),
            "median": self.median,
            "controls": {
                name: control.to_json() | {"gain": self.gains[name][0], "gain_interval": self.gains[name][1]}
                for name, control in self.controls.items()
            },
        }

    def row(self) -> tuple[str, str, str, str, str, str]:
        """Return a table row: metric, dictionaries, value, 95 % interval, latents, controls.

        A control whose difference may be 0 is marked as not distinguishable.
        """
        low_high = self.score.interval
        interval = f"[{low_high[0]:.3f}, {low_high[1]:.3f}]" if low_high else ""
        controls = [f"{name} {control.value:.3f}{self._doubt(name)}" for name, control in self.controls.items()]
        pair = f"{self.one} → {self.two}"
        return (self.score.name, pair, f"{self.score.value:.3f}", interval, f"{self.score.n:,}", "; ".join(controls))

    def _doubt(self, control: str) -> str:
        interval = self.gains[control][1]
        return " (not distinguishable)" if interval and interval[0] <= 0 <= interval[1] else ""


@dataclass(frozen=True, kw_only=True)
class Relation:
    """Everything that comparing dictionaries gave.

    `about` holds the dictionaries, stores and settings with their hashes; `per_latent` values and partners under
    "METRIC.I.J", I and J being places in the list of dictionaries.
    """

    HEADER: ClassVar = ("metric", "dictionaries", "mean", "95 % interval", "latents", "controls")
    """Columns of the table."""

    about: dict[str, Any]
    comparisons: list[Comparison]
    per_latent: dict[str, Tensor]

    def save(self, out: Path) -> None:
        """Write `relation.json`, and the values per latent as `latents.safetensors`."""
        data = {
            "format_version": FORMAT_VERSION,
            "about": self.about,
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
        }
        tensors = {name: values.contiguous() for name, values in self.per_latent.items()}
        write_durably(out / "latents.safetensors", [save(tensors)], EvaluationError)
        write_durably(out / "relation.json", [json.dumps(data, indent=1).encode()], EvaluationError)

    def rows(self) -> list[tuple[str, str, str, str, str, str]]:
        """Return table rows under `HEADER`."""
        return [comparison.row() for comparison in self.comparisons]
