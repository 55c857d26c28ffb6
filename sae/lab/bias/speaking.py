"""Which units speak for a judgement when it is made, and which of these know a sensitive look as well."""

from collections.abc import Mapping
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


def towards(judge: Judge, dictionary: Dictionary) -> Float[Tensor, "units judgements"]:
    """Return the product of what each unit writes with every judgement, less the mean judgement."""
    return dictionary.W_dec.detach().float().cpu() @ (judge.classifier - judge.classifier.mean(0)).T


def spoken(
    judged: Population, dictionary: Dictionary
) -> tuple[Float[Tensor, "judgements units"], Float[Tensor, "judgements units"]]:
    """Return what each unit adds to every judgement where it is made, in nats, on both halves."""
    held, products, halves = scaled(judged.judge, dictionary, judged.x), towards(judged.judge, dictionary), []
    for half in (judged.sample.match, ~judged.sample.match):
        made = F.one_hot(judged.judged[half], products.shape[1]).float()
        halves.append(((made.T @ held[half]) / made.sum(0).clamp(min=1)[:, None]) * products.T)
    return halves[0], halves[1]


@dataclass(frozen=True)
class Speaking:
    """The units of one kind that add most to each judgement where it is made, and what they know of looks there.

    They are chosen on the half to match on, by what they add alone.

    Attributes:
        units: best first.
        adds: to the judgement's log-odds where it is made, a mean over decisions of the other half, in nats.
        elsewhere: the same where another judgement is made.
        active: share of its decisions, of the other half, in which the unit is not zero.
        auc: area under the ROC curve for every value among the held-out items, whatever they are judged.
        within: the same among the items judged so, of both halves; nan where fewer than five have the value or lack it.
        score: how far `within` is from 1/2 in standard deviations by chance (Mann and Whitney's z).
        threshold: what the largest |score| reaches in one audit of twenty with looks dealt out among the items judged
            alike.
        by_chance: how many of the units then know a look, on average.
    """

    units: Int[Tensor, "judgements n"]
    adds: Float[Tensor, "judgements n"]
    elsewhere: Float[Tensor, "judgements n"]
    active: Float[Tensor, "judgements n"]
    auc: Float[Tensor, "judgements n values"]
    within: Float[Tensor, "judgements n values"]
    score: Float[Tensor, "judgements n values"]
    threshold: float
    by_chance: float

    @property
    def knows(self) -> Bool[Tensor, "judgements n values"]:
        """Which know a look beyond what the judgement itself says of it."""
        return self.score.abs().nan_to_num(0) > self.threshold

    @classmethod
    def of(cls, knowing: Knowing, kind: str, n: int, seed: int) -> "Speaking":
        """Choose the n units of one kind that speak most for every judgement."""
        judged, dictionary = knowing.judged, knowing.units[kind].dictionary
        units = spoken(judged, dictionary)[0].topk(min(n, dictionary.d_sae), dim=1).indices
        held, products = scaled(judged.judge, dictionary, judged.x), towards(judged.judge, dictionary)
        scored, parts = ~judged.sample.match, []
        within, score, largest, n_found = [], [], torch.zeros(DRAWS), []
        generator = torch.Generator().manual_seed(seed)
        for judgement, chosen in enumerate(units):
            made = judged.judged == judgement
            columns = held[:, chosen]
            here, there = columns[scored & made], columns[scored & ~made]
            active = (here != 0).float()
            parts.append([part.mean(0) for part in (here, there, active)])
            # Activations, as a contribution is over the vector's length, which a look may change.
            activations = knowing.units[kind].responses.columns(chosen)
            area, z, dealt = _within(judged, activations, made, generator)
            within.append(area)
            score.append(z)
            n_found.append(dealt)
            largest = torch.maximum(largest, dealt.amax(0))
        here, there, active = (torch.stack(column) for column in zip(*parts, strict=True))
        weights = products.T.gather(1, units)
        areas = torch.zeros(*units.shape, len(judged.values))
        for value in range(len(judged.values)):
            areas[..., value] = knowing.auc(kind, value)[1][units].float()
        threshold = float(largest.quantile(1 - LEVEL))
        by_chance = float((torch.stack(n_found) > threshold).double().sum((0, 1)).mean())
        return cls(units, here * weights, there * weights, active, areas, torch.stack(within), torch.stack(score),
                   threshold, by_chance)  # fmt: skip


def _within(
    judged: Population, activations: Float[Tensor, "items n"], made: Bool[Tensor, " items"], generator: torch.Generator
) -> tuple[Float[Tensor, "n values"], Float[Tensor, "n values"], Float[Tensor, "n draws"]]:
    """Return areas and scores among the items judged so, and the largest |score| with looks dealt out among them."""
    from scipy.stats import rankdata

    shape = (activations.shape[1], len(judged.values))
    area, z, dealt = torch.full(shape, torch.nan), torch.full(shape, torch.nan), torch.zeros(shape[0], DRAWS)
    for value in range(len(judged.values)):
        keep = made & judged.shown[:, value]
        has = judged.has[keep, value].double()
        n, n_with = len(has), float(has.sum())
        if min(n_with, n - n_with) < FEWEST:
            continue
        ranks = torch.from_numpy(np.asarray(rankdata(activations[keep].numpy(), axis=0))).double().T
        n_pairs = n_with * (n - n_with)
        order = torch.rand(n, DRAWS, generator=generator).argsort(0)
        wins = ranks @ torch.cat([has[:, None], has[order]], 1) - n_with * (n_with + 1) / 2
        scores = ((wins - n_pairs / 2) / (n_pairs * (n + 1) / 12) ** 0.5).float()
        area[:, value], z[:, value] = (wins[:, 0] / n_pairs).float(), scores[:, 0]
        dealt = torch.maximum(dealt, scores[:, 1:].abs())
    return area, z, dealt


def speaking_figures(found: Mapping[str, Speaking]) -> dict[str, float]:
    """Return by kind what the units that speak most add, and how many of them know a look, beside chance."""
    figures: dict[str, float] = {}
    for kind, one in found.items():
        name = f"{kind} that speak most"
        figures |= {
            f"{name}: in all": float(one.units.numel()),
            f"{name}: add, nats": float(one.adds.sum(1).mean()),
            f"{name}: add elsewhere, nats": float(one.elsewhere.sum(1).mean()),
            f"{name}: know a look": float(one.knows.any(-1).sum()),
            f"{name}: know a look, looks dealt out": one.by_chance,
        }
    return figures


def speaking_rows(
    found: Mapping[str, Speaking], knowing: Knowing, words: Wording, titles: Mapping[int, str]
) -> list[dict[str, Any]]:
    """Return one row per judgement, kind and rank.

    Each with the value that the unit knows best where it is judged so, and with the value whose words it writes most.
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
                row |= _known(one, judged, (judgement, rank))
                nearest = int(cosines[kind][unit].abs().argmax()) if words.values else None
                row["words"] = "" if nearest is None else words.values[nearest]
                row["cosine"] = "" if nearest is None else round(float(cosines[kind][unit, nearest]), 3)
                rows.append(row)
    return rows


def _known(one: Speaking, judged: Population, place: tuple[int, int]) -> dict[str, Any]:
    """Return what a unit knows best among the items judged so; empty where no value can be told there."""
    score = one.score[place].abs().nan_to_num(-1)
    if not len(score) or score.max() < 0:
        return dict.fromkeys(("value", "auc", "auc where judged so", "z", "knows"), "")
    value = int(score.argmax())
    return {
        "value": judged.values[value],
        "auc": round(float(one.auc[place][value]), 3),
        "auc where judged so": round(float(one.within[place][value]), 3),
        "z": round(float(one.score[place][value]), 2),
        "knows": bool(one.knows[place][value]),
    }
