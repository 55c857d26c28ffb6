"""Which units speak for a judgement when it is made, and which of these know a sensitive look as well."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.lab.bias.decision import Judge, scaled
from sae.lab.bias.leaning import LEVEL
from sae.lab.bias.population import Population
from sae.lab.bias.removing import Knowing
from sae.lab.bias.wording import Wording

FEWEST = 5
"""Decisions with a value, and without, below which nothing is said of what units know of it."""
DRAWS = 200
THERE = " where judged so"


def towards(judge: Judge, dictionary: Dictionary) -> Float[Tensor, "units judgements"]:
    """Return the product of what each unit writes with every judgement, less the mean judgement."""
    return dictionary.W_dec.detach().float().cpu() @ (judge.classifier - judge.classifier.mean(0)).T


def spoken(
    judged: Population, held: Float[Tensor, "items units"], products: Float[Tensor, "units judgements"]
) -> tuple[Float[Tensor, "judgements units"], Float[Tensor, "judgements units"]]:
    """Return what each unit adds to every judgement where it is made, in nats, on both halves.

    Args:
        judged: the items.
        held: how much of each unit they hold (`decision.scaled`).
        products: of what units write with the judgements (`towards`).
    """
    halves = []
    for half in (judged.sample.match, ~judged.sample.match):
        made = F.one_hot(judged.judged[half], products.shape[1]).float()
        halves.append(((made.T @ held[half]) / made.sum(0).clamp(min=1)[:, None]) * products.T)
    return halves[0], halves[1]


@dataclass(frozen=True)
class Known:
    """What units know of looks among some items.

    Attributes:
        auc: area under the ROC curve of each unit for every value; nan where fewer than five items have it or lack it.
        score: how far that is from 1/2 in standard deviations by chance (Mann and Whitney's z).
        threshold: what the largest |score| reaches in one audit of twenty with looks dealt out among the items.
        by_chance: how many units then know a look, on average.
    """

    auc: Float[Tensor, "judgements n values"]
    score: Float[Tensor, "judgements n values"]
    threshold: float
    by_chance: float

    @property
    def beyond_chance(self) -> Bool[Tensor, "judgements n values"]:
        return self.score.abs().nan_to_num(0) > self.threshold

    @classmethod
    def of(cls, parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> "Known":
        """Put together what is known of the units of each judgement (see `_known`)."""
        auc, score, dealt = (torch.stack(column) for column in zip(*parts, strict=True))
        threshold = float(dealt.amax((0, 1)).quantile(1 - LEVEL))
        return cls(auc, score, threshold, float((dealt > threshold).double().sum((0, 1)).mean()))


@dataclass(frozen=True)
class Speaking:
    """The units of one kind that add most to each judgement where it is made, and what they know of looks.

    They are chosen on the half to match on, by what they add alone.

    Attributes:
        units: best first.
        adds: to the judgement's log-odds where it is made, a mean over decisions of the other half, in nats.
        elsewhere: the same where another judgement is made.
        active: share of its decisions, of the other half, in which the unit is not zero.
        anywhere: what is known of looks among the items of the other half, whatever they are judged.
        there: among the items judged so, of both halves; what the judgement itself says of a look counts no more.
    """

    units: Int[Tensor, "judgements n"]
    adds: Float[Tensor, "judgements n"]
    elsewhere: Float[Tensor, "judgements n"]
    active: Float[Tensor, "judgements n"]
    anywhere: Known
    there: Known

    @classmethod
    def of(cls, knowing: Knowing, kind: str, n: int, seed: int) -> "Speaking":
        """Choose the n units of one kind that speak most for every judgement."""
        judged, unit = knowing.judged, knowing.units[kind]
        held, products = scaled(judged.judge, unit.dictionary, judged.x), towards(judged.judge, unit.dictionary)
        units = spoken(judged, held, products)[0].topk(min(n, unit.n_units), dim=1).indices
        scored, generator = ~judged.sample.match, torch.Generator().manual_seed(seed)
        # Activations, as a contribution is over the vector's length, which a look may change.
        activations = unit.responses.columns(units.flatten()).unflatten(1, units.shape)
        there, said = [], []
        for judgement, chosen in enumerate(units):
            made = judged.judged == judgement
            here, others = held[scored & made][:, chosen], held[scored & ~made][:, chosen]
            said.append((here.mean(0), others.mean(0), (here != 0).float().mean(0)))
            there.append(_known(judged, activations[:, judgement], made, generator))
        adds, elsewhere, active = (torch.stack(column) for column in zip(*said, strict=True))
        known = (part.unflatten(0, units.shape) for part in _known(judged, activations.flatten(1), scored, generator))
        weights = products.T.gather(1, units)
        return cls(
            units, adds * weights, elsewhere * weights, active,
            Known.of([*zip(*known, strict=True)]), Known.of(there),
        )  # fmt: skip


def _known(
    judged: Population, activations: Float[Tensor, "items n"], among: Bool[Tensor, " items"], generator: torch.Generator
) -> tuple[Float[Tensor, "n values"], Float[Tensor, "n values"], Float[Tensor, "n draws"]]:
    """Return areas and scores among some items, and the largest |score| of each unit with looks dealt out there."""
    from scipy.stats import rankdata

    n_units, n_values = activations.shape[1], len(judged.values)
    area, score, dealt = *torch.full((2, n_units, n_values), torch.nan), torch.zeros(n_units, DRAWS)
    for value in range(n_values):
        keep = among & judged.shown[:, value]
        has = judged.has[keep, value].double()
        n, n_with = len(has), float(has.sum())
        if min(n_with, n - n_with) < FEWEST:
            continue
        ranks = torch.from_numpy(np.asarray(rankdata(activations[keep].numpy(), axis=0))).double().T
        n_pairs = n_with * (n - n_with)
        order = torch.rand(n, DRAWS, generator=generator).argsort(0)
        wins = ranks @ torch.cat([has[:, None], has[order]], 1) - n_with * (n_with + 1) / 2
        scores = ((wins - n_pairs / 2) / (n_pairs * (n + 1) / 12) ** 0.5).float()
        area[:, value], score[:, value] = (wins[:, 0] / n_pairs).float(), scores[:, 0]
        dealt = torch.maximum(dealt, scores[:, 1:].abs())
    return area, score, dealt


def speaking_figures(found: Mapping[str, Speaking]) -> dict[str, float]:
    """Return by kind what the units that speak most add, and how many of them know a look, beside chance."""
    figures: dict[str, float] = {}
    for kind, one in found.items():
        name = f"{kind} that speak most"
        figures |= {
            f"{name}: in all": float(one.units.numel()),
            f"{name}: add, nats": float(one.adds.sum(1).mean()),
            f"{name}: add elsewhere, nats": float(one.elsewhere.sum(1).mean()),
        }
        for what, known in (("know a look", one.anywhere), ("know a look where judged so", one.there)):
            figures[f"{name}: {what}"] = float(known.beyond_chance.any(-1).sum())
            figures[f"{name}: {what}, looks dealt out"] = known.by_chance
    return figures


def speaking_rows(
    found: Mapping[str, Speaking], knowing: Knowing, words: Wording, titles: Mapping[int, str]
) -> list[dict[str, Any]]:
    """Return one row per judgement, kind and rank.

    Each with the value that the unit knows best, among all items and among those judged so, and the value whose words
    it writes most.
    """
    judged, rows = knowing.judged, []
    cosines = {kind: words.association(units.dictionary.W_dec) for kind, units in knowing.units.items()}
    for judgement, name in enumerate(judged.judge.names):
        for kind, one in found.items():
            for rank, unit in enumerate(one.units[judgement].tolist()):
                row: dict[str, Any] = {
                    "judgement": name,
                    "kind": kind,
                    "rank": rank + 1,
                    "unit": unit,
                    "called": titles.get(unit, "") if kind == "latents" else "",
                }
                for key, of in (("adds", one.adds), ("adds elsewhere", one.elsewhere), ("active", one.active)):
                    row[key] = round(float(of[judgement, rank]), 3)
                for where, known in (("", one.anywhere), (THERE, one.there)):
                    row |= _best(known, judged.values, (judgement, rank), where)
                nearest = int(cosines[kind][unit].abs().argmax()) if words.values else None
                row["words"] = "" if nearest is None else words.values[nearest]
                row["cosine"] = "" if nearest is None else round(float(cosines[kind][unit, nearest]), 3)
                rows.append(row)
    return rows


def _best(known: Known, values: Sequence[str], place: tuple[int, int], where: str) -> dict[str, Any]:
    """Return the value that a unit knows best; empty where no value can be told."""
    names = [f"{name}{where}" for name in ("knows", "auc", "z", "beyond chance")]
    score = known.score[place].abs().nan_to_num(-1)
    if not len(score) or score.max() < 0:
        return dict.fromkeys(names, "")
    value = int(score.argmax())
    found = (
        values[value],
        round(float(known.auc[place][value]), 3),
        round(float(known.score[place][value]), 2),
        bool(known.beyond_chance[place][value]),
    )
    return dict(zip(names, found, strict=True))
