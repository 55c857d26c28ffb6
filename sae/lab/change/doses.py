"""Doses of an intervention, and what the subject answers to each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sae.features.removal import copied
from sae.lab.change.answers import Answers
from sae.lab.change.interventions import Change, Kind, Parts, edits
from sae.lab.change.positions import ALL, At
from sae.subjects.base import Edit
from sae.tensors import Batch, Rows

REACH, HALVINGS = 4, 9
"""How many times a dose is looked for one that costs as much, and how often what is left of that is halved."""


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
        directions = length * F.normalize(direction[None].to(length))
        return replace(self, name=name, parts=replace(self.parts, directions=directions))


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
    at: At = ALL

    def rows(self, batch: Batch) -> Rows:
        """Return what the positions of some examples are where the dictionary writes."""
        return self.subject.rows(batch, self.subject.hookpoints()[self.writes].grid)

    def writing(self) -> "Bed":
        """Return the same for texts that begin with the one there is: positions stay where they are in that one."""
        return replace(self, at=self.at.fixed(int(self.rows(self.batch).keep.sum())))

    def edits(self, steering: Steering, strength: float, batch: Batch) -> dict[str, Edit]:
        """Return the edits of a dose for some examples; positions that no dictionary is trained on stay.

        Raises:
            ConfigError: an example has no such positions.
        """
        size = strength * (steering.unit if self.kind in ("add", "clamp") else 1.0)
        return edits(steering.parts, Change(self.kind, size, self.at), self.reads, self.writes, self.rows(batch))

    @cached_property
    def clean(self) -> Float[Tensor, "items things"]:
        """Log-probabilities of the untouched subject's answers."""
        with torch.no_grad():
            return self.answers.log_probs(self.batch, {})

    def answered(self, steering: Steering, strength: float, batch: Batch) -> Float[Tensor, "items things"]:
        """Return log-probabilities of the answers to some examples under a dose."""
        with torch.no_grad():
            return self.answers.log_probs(batch, self.edits(steering, strength, batch))

    def steered(self, steering: Steering, strength: float) -> tuple[Float[Tensor, " things"], float]:
        """Return the mean probability of every answer, and the divergence from the untouched subject's in nats."""
        now = self.answered(steering, strength, self.batch)
        return now.exp().mean(0), float((self.clean.exp() * (self.clean - now)).sum(1).mean())

    def by_example(self, steering: Steering, strength: float, answer: int) -> Float[Tensor, " examples"]:
        """Return the mean probability of one answer in each example."""
        ones = [copied(self.batch, torch.tensor([number])) for number in range(len(self.batch))]
        return torch.stack([self.answered(steering, strength, one)[:, answer].exp().mean() for one in ones])


@dataclass(frozen=True)
class Curve:
    """What a steering does at every dose on the examples of one half.

    Attributes:
        name: of what is steered with.
        strengths: doses, rising.
        clean: mean probability of every answer of the untouched subject.
        odds: the same at every dose.
        kl: divergence of all answers from the untouched subject's, in nats.
    """

    name: str
    strengths: tuple[float, ...]
    clean: Float[Tensor, " things"]
    odds: Float[Tensor, "doses things"]
    kl: Float[Tensor, " doses"]

    @classmethod
    def of(cls, bed: Bed, steering: Steering, strengths: Sequence[float]) -> "Curve":
        """Run every dose."""
        odds, kl = zip(*(bed.steered(steering, one) for one in strengths), strict=True)
        return cls(steering.name, tuple(strengths), bed.clean.exp().mean(0), torch.stack(odds), torch.tensor(kl))

    def moves(self, answer: int) -> Float[Tensor, " doses"]:
        """Return by how much every dose moves the probability of an answer."""
        return self.odds[:, answer] - self.clean[answer]

    def moved_most(self) -> int:
        """Return the answer that the largest dose moves most."""
        return int((self.odds[-1] - self.clean).abs().argmax())

    def rows(self, answer: int) -> list[dict[str, Any]]:
        """Return the response of an answer to every dose, one mapping each."""
        values = zip(self.strengths, self.odds[:, answer].tolist(), self.kl.tolist(), strict=True)
        return [{"steered": self.name, "strength": one, "probability": odds, "kl": kl} for one, odds, kl in values]


@dataclass(frozen=True)
class Response:
    """What a steering does on both halves: its dose is chosen on one and scored on the other."""

    matched: Curve
    scored: Curve

    @classmethod
    def of(cls, beds: Sequence[Bed], steering: Steering, strengths: Sequence[float]) -> "Response":
        """Run every dose on the half to choose on and on the half to score on."""
        return cls(*(Curve.of(bed, steering, strengths) for bed in beds))

    def dose(self, answer: int) -> int:
        """Return the number of the dose that moves an answer most on the half to choose on."""
        return int(self.matched.moves(answer).abs().argmax())

    def strength(self, answer: int) -> float:
        """Return that dose."""
        return self.scored.strengths[self.dose(answer)]

    def move(self, answer: int) -> float:
        """Return by how much that dose moves the answer on the half to score on."""
        return float(self.scored.moves(answer)[self.dose(answer)])

    def kl(self, answer: int) -> float:
        """Return what that dose costs on the half to score on, in nats."""
        return float(self.scored.kl[self.dose(answer)])


def strength_at_cost(bed: Bed, steering: Steering, cost: float, towards: float) -> float:
    """Return how strong a steering must be for all answers to move by `cost` nats, found by halving.

    Looked for between no change and `REACH` times as much as a strength that says which way; where that still costs
    less, it is the answer.
    """
    neutral = 1.0 if bed.kind == "scale" else 0.0
    low, high = 0.0, float(REACH)
    strength = lambda share: neutral + share * (towards - neutral)  # noqa: E731
    if bed.steered(steering, strength(high))[1] <= cost:
        return strength(high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if bed.steered(steering, strength(middle))[1] <= cost else (low, middle)
    return strength(low)
