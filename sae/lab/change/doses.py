"""Doses of an intervention, and what the subject answers to each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sae.evaluation.splicing import trained_rows
from sae.lab.change.answers import Answers
from sae.lab.change.interventions import At, Change, Kind, Parts, edits
from sae.subjects.base import Edit
from sae.tensors import Batch


@dataclass(frozen=True)
class Steering:
    """One thing to steer with, at any strength.

    Attributes:
        name: to show.
        parts: one direction.
        unit: the amount of it that one unit of strength is, of "add" and "clamp".
    """

    name: str
    parts: Parts
    unit: float

    def along(self, name: str, direction: Float[Tensor, " d_out"]) -> "Steering":
        """Return the same changes, at the same positions and as long, written along another direction."""
        length = self.parts.directions.norm(dim=1, keepdim=True)
        return replace(self, name=name, parts=replace(self.parts, directions=length * F.normalize(direction[None])))


@dataclass(frozen=True)
class Bed:
    """What is steered and watched: examples of one half, and answers.

    Attributes:
        subject, answers: what runs, and what is watched.
        batch: the examples.
        reads, writes: the hookpoints of the dictionary.
        kind, at: what is done, where.
    """

    subject: Any
    answers: Answers
    batch: Batch
    reads: str
    writes: str
    kind: Kind
    at: At

    def edits(self, steering: Steering, strength: float, batch: Batch) -> dict[str, Edit]:
        """Return the edits of a dose for some examples; positions that no dictionary is trained on stay."""
        size = strength * (steering.unit if self.kind in ("add", "clamp") else 1.0)
        keep = trained_rows(self.subject, batch, self.writes)
        return edits(steering.parts, Change(self.kind, size, self.at), self.reads, self.writes, keep)

    @cached_property
    def clean(self) -> Float[Tensor, "items things"]:
        """Log-probabilities of the untouched subject's answers."""
        with torch.no_grad():
            return self.answers.log_probs(self.batch, {})

    def steered(self, steering: Steering, strength: float) -> tuple[Float[Tensor, " things"], float]:
        """Return the mean probability of every answer, and the divergence from the untouched subject's in nats."""
        with torch.no_grad():
            now = self.answers.log_probs(self.batch, self.edits(steering, strength, self.batch))
        return now.exp().mean(0), float((self.clean.exp() * (self.clean - now)).sum(1).mean())


def doses(bed: Bed, steering: Steering, strengths: Sequence[float], target: int) -> list[dict[str, float | str]]:
    """Return the response to every dose, one mapping each."""
    rows = []
    for strength in strengths:
        probability, kl = bed.steered(steering, strength)
        rows.append(
            {"steered": steering.name, "strength": strength, "probability": float(probability[target]), "kl": kl}
        )
    return rows


def moved_most(bed: Bed, steering: Steering, strength: float) -> int:
    """Return the answer whose mean probability a dose moves most."""
    return int((bed.steered(steering, strength)[0] - bed.clean.exp().mean(0)).abs().argmax())
