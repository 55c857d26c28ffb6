"""What is left of a sensitive value's influence once the units that know it are taken out, and what that costs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.evaluation.controls import random_directions
from sae.evaluation.responses import Responses
from sae.evaluation.sample import Units
from sae.features.building.known import raw_neurons
from sae.lab.bias.decision import without
from sae.lab.bias.fairness import DEFINITIONS, Gap, gaps
from sae.lab.bias.population import Pairs, Population
from sae.lab.change.interventions import Change, changed, vector_parts
from sae.lab.change.rivals import probes

Removal = Callable[[Float[Tensor, "n d_joint"]], Float[Tensor, "n d_joint"]]
N_RANDOM = 10
"""Draws of random latents."""


class Knowing:
    """Which units know a value, by the area under the ROC curve among the items that show its family.

    Latents, neurons and random directions, on the half to match on and on the half to score on.
    """

    def __init__(self, dictionary: Dictionary, judged: Population, seed: int) -> None:
        sample = judged.sample
        self.judged, self.dictionary = judged, dictionary
        self._areas: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
        latents = Units("latents", dictionary, sample)
        rates = latents.responses.n_fired.double() / sample.n_items
        self.units = {
            "latents": latents,
            "neurons": Units("neurons", raw_neurons(dictionary.d_in), sample),
            "random directions": Units("random directions", random_directions(sample.x, rates, seed), sample),
        }

    def auc(self, kind: str, value: int) -> tuple[Float[Tensor, " units"], Float[Tensor, " units"]]:
        """Return the areas of units for a value on both halves; of labels on one side only, nan."""
        if (kind, value) not in self._areas:
            responses, match = self.units[kind].responses, self.judged.sample.match
            self._areas[kind, value] = (self._on(responses, value, match), self._on(responses, value, ~match))
        return self._areas[kind, value]

    def auc_of_judgement(self, kind: str, judgement: int) -> tuple[Float[Tensor, " units"], Float[Tensor, " units"]]:
        """Return the areas of units for a judgement that is true, on both halves."""
        responses, match = self.units[kind].responses, self.judged.sample.match
        truth = (self.judged.truth == judgement)[:, None]
        return responses.on(match).auc(truth[match])[:, 0], responses.on(~match).auc(truth[~match])[:, 0]

    def can_choose(self, value: int) -> bool:
        """Whether the half to match on shows items with a value and without; else no unit can be chosen for it."""
        has = self.judged.has[self.judged.sample.match & self.judged.shown[:, value], value]
        return bool(has.any() and not has.all())

    def _on(self, responses: Responses, value: int, half: Tensor) -> Float[Tensor, " units"]:
        keep = half & self.judged.shown[:, value]
        return responses.on(keep).auc(self.judged.has[keep][:, [value]])[:, 0]


def removals(knowing: Knowing, value: int, n: int, seed: int) -> Iterator[tuple[str, Removal]]:
    """Yield ways to take a value out of vectors, chosen on the half to match on.

    The n latents that know it best; beside them as many random ones, the n neurons that know it best on either side
    set to their mean, the difference of means and a linear probe projected out. Of a value that units cannot be chosen
    for (`Knowing.can_choose`) there are none.
    """
    if not knowing.can_choose(value):
        return
    judged, dictionary = knowing.judged, knowing.dictionary
    keep = judged.sample.match & judged.shown[:, value]
    x, has = judged.x[keep], judged.has[keep, value]
    best = knowing.auc("latents", value)[0].topk(n).indices.tolist()
    yield "latents", lambda rows: without(dictionary, rows, best)
    alive = knowing.units["latents"].alive.nonzero()[:, 0]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(N_RANDOM):
        drawn = alive[torch.randperm(len(alive), generator=generator)[:n]].tolist()
        yield "random latents", lambda rows, drawn=drawn: without(dictionary, rows, drawn)
    neurons = (knowing.auc("neurons", value)[0] - 0.5).abs().topk(min(n, dictionary.d_in)).indices
    yield "best neurons", _projected(torch.eye(dictionary.d_in)[neurons], x)
    yield "difference of means", _projected((x[has].mean(0) - x[~has].mean(0))[None], x)
    yield "linear probe", _projected(probes(x, has[:, None]), x)


def _projected(vectors: Float[Tensor, "n d_joint"], x: Float[Tensor, "items d_joint"]) -> Removal:
    parts = vector_parts(vectors, x.mean(0))
    return lambda rows: rows + changed(rows, parts, Change("remove"))


def left(knowing: Knowing, pair: Pairs, value: int, n: int, seed: int) -> dict[str, dict[str, float]]:
    """Return what is left after every removal, on held-out items and pictures, and before any.

    By how much the value moves judgements (`Effects.moved`, nats), and how many judgements are right. Where units
    cannot be chosen for the value there is nothing but what is left without any removal.
    """
    judged = knowing.judged
    scored, number = ~judged.sample.match, list(pair.effects.values).index(judged.values[value].partition("=")[2])
    x, truth, flat = judged.x[scored], judged.truth[scored], pair.x.flatten(0, 1)
    found: dict[str, list[dict[str, float]]] = {}
    ways: list[tuple[str, Removal]] = [("nothing", lambda rows: rows), *removals(knowing, value, n, seed)]
    for name, remove in ways:
        effects = pair.on(~pair.match, judged.judge, remove(flat).view_as(pair.x))
        right = judged.judge.logits(remove(x)).argmax(-1) == truth
        found.setdefault(name, []).append(
            {"moved, nats": float(effects.moved[number]), "accuracy": float(right.double().mean())}
        )
    return {name: {key: _mean(tried, key) for key in tried[0]} for name, tried in found.items()}


@dataclass(frozen=True)
class After:
    """What a judgement is once something was taken out of the held-out items.

    Attributes:
        gaps: of every definition of fairness, between those with the value and the others.
        rate: share of all items judged so.
        accuracy: share of all items judged rightly.
        effect: what the value alone does to the judgement, in nats; nan where pictures cannot show that.
    """

    gaps: Mapping[str, Gap]
    rate: float
    accuracy: float
    effect: float


def fairness_left(
    knowing: Knowing,
    pair: Pairs | None,
    of: tuple[int, int],
    speaking: Mapping[str, Sequence[int]],
    n: int,
    seed: int,
) -> dict[str, After]:
    """Return the definitions of fairness before and after every removal, on held-out items.

    Beside the removals of `removals`, the latents and the neurons that speak most for the judgement. Of random latents
    values are means of the draws, and intervals their range.

    Args:
        knowing: the units of the items.
        pair: pictures with every value of the family, where there are any.
        of: judgement and value.
        speaking: latents and neurons that speak most for the judgement.
        n: how many units are taken out.
        seed: of the draws.
    """
    dictionary, (_, value) = knowing.dictionary, of
    matched = knowing.judged.x[knowing.judged.sample.match]
    spoke, neurons = list(speaking["latents"])[:n], list(speaking["neurons"])[:n]
    found: dict[str, list[After]] = {}
    for name, remove in (
        ("nothing", lambda rows: rows),
        ("speaking latents", lambda rows: without(dictionary, rows, spoke)),
        *removals(knowing, value, n, seed),
        ("speaking neurons", _projected(torch.eye(dictionary.d_in)[neurons], matched)),
    ):
        found.setdefault(name, []).append(_after(knowing.judged, pair, of, remove, seed))
    return {name: tried[0] if len(tried) == 1 else _pooled(tried) for name, tried in found.items()}


def _after(judged: Population, pair: Pairs | None, of: tuple[int, int], remove: Removal, seed: int) -> After:
    (judgement, value), scored = of, ~judged.sample.match
    probability = judged.judge.logits(remove(judged.x[scored])).softmax(-1)
    made, truth = probability.argmax(-1), judged.truth[scored]
    shown, has = judged.shown[scored, value], judged.has[scored, value]
    found = gaps(
        (truth == judgement)[shown], (made == judgement)[shown], probability[shown, judgement], has[shown], seed
    )
    effect = torch.nan
    if pair is not None:
        number = list(pair.effects.values).index(judged.values[value].partition("=")[2])
        rows = remove(pair.x.flatten(0, 1)).view_as(pair.x)
        effect = float(pair.on(~pair.match, judged.judge, rows).mean[number, judgement])
    right, rate = (made == truth).double().mean(), (made == judgement).double().mean()
    return After(found, float(rate), float(right), effect)


def _pooled(tried: Sequence[After]) -> After:
    found = {}
    for name in DEFINITIONS:
        values = torch.tensor([one.gaps[name].value for one in tried], dtype=torch.float64)
        known = values[~values.isnan()] if not values.isnan().all() else values
        found[name] = Gap(float(known.mean()), float(known.min()), float(known.max()))
    rate, accuracy, effect = (
        sum(getattr(one, name) for one in tried) / len(tried) for name in ("rate", "accuracy", "effect")
    )
    return After(found, rate, accuracy, effect)


def _mean(tried: list[dict[str, Any]], key: str) -> float:
    return sum(one[key] for one in tried) / len(tried)
