"""Every judgement of an audit beside every sensitive value, and the latents that carry one to the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.errors import InputsError
from sae.evaluation.labels import best_labels
from sae.evaluation.sample import Units
from sae.features.live.words import Words
from sae.lab.bias.decision import Judge, scaled
from sae.lab.bias.leaning import LEVEL, Effects, Observed, observed, outlying, stands_out
from sae.lab.bias.population import Pairs, Population
from sae.lab.bias.removing import Knowing
from sae.lab.workbench import Workbench

NAMED_AUC = 0.7
N_TOLD = 4
"""Pairs of judgement and value that definitions and removals are worked out for, at most."""


@dataclass(frozen=True)
class Audit:
    """Every judgement beside every sensitive value.

    Attributes:
        judged: who.
        goes_with: as the items come.
        pairs: pictures that differ in appearance alone, by family.
        thresholds: of each family, what |mean| / error of its effects reaches by chance in one audit of twenty.
    """

    judged: Population
    goes_with: Observed
    pairs: Mapping[str, Pairs]
    thresholds: Mapping[str, float]

    @classmethod
    def of(cls, judged: Population, found: Mapping[str, Pairs], seed: int) -> "Audit":
        """Test every judgement beside every value."""
        goes_with = observed(judged.judged, judged.has, judged.shown, len(judged.judge.names))
        level = 1 - LEVEL / max(len(found), 1)
        chance = {name: float(one.effects.largest_by_chance(seed).quantile(level)) for name, one in found.items()}
        return cls(judged, goes_with, found, chance)

    @property
    def names(self) -> tuple[str, ...]:
        return self.judged.judge.names

    def effects(self, value: int) -> tuple[Effects, int] | None:
        """Return the effects of a value's family, and the value's place there; None without such pictures."""
        family, _, name = self.judged.values[value].partition("=")
        pair = self.pairs.get(family)
        return (
            None if pair is None or name not in pair.effects.values else (pair.effects, pair.effects.values.index(name))
        )

    @property
    def caused(self) -> tuple[Bool[Tensor, "judgements values"], Bool[Tensor, "judgements values"]]:
        """Return which effects are no chance, and which of these also differ from those on other judgements."""
        real = torch.zeros(len(self.names), len(self.judged.values), dtype=torch.bool)
        own = real.clone()
        n_tests = sum(one.effects.mean.numel() for one in self.pairs.values())
        for value, name in enumerate(self.judged.values):
            found = self.effects(value)
            if found is not None:
                effects, place = found
                real[:, value] = effects.scores[place].abs() > self.thresholds[name.partition("=")[0]]
                own[:, value] = stands_out(effects.outlying, n_tests)[place]
        return real, real & own

    def strongest(self, n: int = N_TOLD) -> list[tuple[int, int]]:
        """Return (judgement, value), those found first, by the difference of rates."""
        found, gap = self.goes_with.found, self.goes_with.rate_with - self.goes_with.rate_without
        order = (gap + 2.0 * found).flatten().argsort(descending=True)[:n].tolist()
        chosen = [divmod(place, len(self.judged.values)) for place in order]
        return [pair for pair in chosen if found[pair]] or chosen[:1]


@dataclass(frozen=True)
class Wording:
    """Sensitive values as words: what they are near to in the joint space, less the mean word.

    A value's words are its name and its family's first word ("gray hair"), of a yes or no the family's ("glasses").

    Attributes:
        values: the numbers of those whose words the subject knows.
        judgements: cosine of their words with each judgement's.
        places: cosine of their words with what each latent writes.
    """

    values: tuple[int, ...]
    judgements: Float[Tensor, "values judgements"]
    places: Float[Tensor, "values latents"]

    @classmethod
    def of(cls, bench: Workbench, judged: Population) -> "Wording":
        words, numbers, found = Words(bench.subject, bench.inputs), [], []
        for number, label in enumerate(judged.values):
            family, _, name = label.partition("=")
            phrase = family.replace("_", " ") if name in ("yes", "no") else f"{name} {family.partition('_')[0]}"
            try:
                towards = words.towards([phrase])[0]
            except InputsError:
                continue
            if name != "no":
                numbers.append(number)
                found.append(towards)
        directions = F.normalize(bench.dictionary.W_dec.detach().float().cpu(), dim=1)
        towards = torch.stack(found) if found else torch.zeros(0, directions.shape[1])
        names = [name.replace("_", " ") for name in judged.judge.names]
        return cls(tuple(numbers), towards @ words.towards(names).T, towards @ directions.T)

    @cached_property
    def outlying(self) -> Float[Tensor, "values judgements"]:
        return outlying(self.judgements)

    @property
    def stand_out(self) -> Bool[Tensor, "values judgements"]:
        """Which judgements' words are nearer to a value's, or farther, than chance allows beside the others'."""
        return stands_out(self.outlying, self.judgements.numel())


def latent_titles(latents: Units) -> dict[int, str]:
    """Return what latents are called, those that deserve a name.

    The label that a latent separates best on the half to match on, if its AUC on the other half is above `NAMED_AUC`.
    """
    names, labels, held_out = latents.sample.table.names, best_labels(latents), latents.auc[1]
    return {
        latent: names[label]
        for latent, label in enumerate(labels.tolist())
        if label >= 0 and held_out[latent, label] > NAMED_AUC
    }


def table(dictionary: Dictionary, audit: Audit, knowing: Knowing, words: Wording) -> list[dict[str, Any]]:
    """Return one row per judgement and value, those found first.

    `latent` carries most of what the value does to the judgement, or where that is not known separates the value best;
    `speaks` adds most to the judgement where it is made. Both are chosen on one half, their figures are those of the
    other.
    """
    judged, rows = audit.judged, []
    carried = {name: _carried(audit.judged.judge, dictionary, pair) for name, pair in audit.pairs.items()}
    matched, scored = _spoken(judged, dictionary)
    speaks = matched.argmax(1)
    for value, label in enumerate(judged.values):
        found, areas = audit.effects(value), knowing.auc("latents", value)
        place_of_word = words.values.index(value) if value in words.values else None
        for judgement in range(len(audit.names)):
            row, latent = _row(audit, judgement, value), int(areas[0].nan_to_num(0).argmax())
            row["carried, nats"] = ""
            if found is not None:
                effects, place = found
                on_match, on_score = (half[place, :, judgement] for half in carried[label.partition("=")[0]])
                latent = int((on_match * effects.mean[place, judgement].sign()).argmax())
                row["carried, nats"] = round(float(on_score[latent]), 3)
            row |= {"latent": latent, "auc": _rounded(areas[1][latent])}
            speaker = int(speaks[judgement])
            row |= {"speaks": speaker, "speaks, nats": _rounded(scored[judgement, speaker])}
            row["speaks, auc"] = _rounded(areas[1][speaker])
            for name, of in (("words", words.judgements), ("words, t", words.outlying if words.values else None)):
                row[name] = "" if place_of_word is None or of is None else _rounded(of[place_of_word, judgement])
            row["words, latent"] = "" if place_of_word is None else _rounded(words.places[place_of_word, latent])
            rows.append(row)
    return sorted(rows, key=lambda row: row["p"])


def _row(audit: Audit, judgement: int, value: int) -> dict[str, Any]:
    goes_with, (real, own) = audit.goes_with, audit.caused
    row: dict[str, Any] = {
        "judgement": audit.names[judgement],
        "value": audit.judged.values[value],
        "items": int(goes_with.n_with[value]),
        "judged so": round(float(goes_with.rate_with[judgement, value]), 4),
        "others judged so": round(float(goes_with.rate_without[judgement, value]), 4),
        "p": float(goes_with.p[judgement, value]),
        "found": bool(goes_with.found[judgement, value]),
    }
    found = audit.effects(value)
    if found is None:
        return row | dict.fromkeys(("effect, nats", "low", "high", "no chance", "t", "own"), "")
    effects, place = found
    effect, error = float(effects.mean[place, judgement]), 1.96 * float(effects.error[place, judgement])
    return row | {
        "effect, nats": round(effect, 3),
        "low": round(effect - error, 3),
        "high": round(effect + error, 3),
        "no chance": bool(real[judgement, value]),
        "t": _rounded(effects.outlying[place, judgement]),
        "own": bool(own[judgement, value]),
    }


def _rounded(value: Tensor) -> float:
    return round(float(value), 3)


def _carried(
    judge: Judge, dictionary: Dictionary, pair: Pairs
) -> tuple[Float[Tensor, "values latents judgements"], Float[Tensor, "values latents judgements"]]:
    """Return each latent's share of every effect, in nats, on the half to match on and on the other."""
    held = scaled(judge, dictionary, pair.x.flatten(0, 1)).unflatten(0, pair.x.shape[:2])
    n = held.shape[1]
    changes, towards = (held - held.mean(1, keepdim=True)) * n / (n - 1), _towards(judge, dictionary)
    return changes[pair.match].mean(0)[..., None] * towards, changes[~pair.match].mean(0)[..., None] * towards


def _spoken(
    judged: Population, dictionary: Dictionary
) -> tuple[Float[Tensor, "judgements latents"], Float[Tensor, "judgements latents"]]:
    """Return what each latent adds to every judgement where it is made, in nats, on both halves."""
    held, towards, halves = scaled(judged.judge, dictionary, judged.x), _towards(judged.judge, dictionary), []
    for half in (judged.sample.match, ~judged.sample.match):
        made = F.one_hot(judged.judged[half], towards.shape[1]).float()
        halves.append(((made.T @ held[half]) / made.sum(0).clamp(min=1)[:, None]) * towards.T)
    return halves[0], halves[1]


def _towards(judge: Judge, dictionary: Dictionary) -> Float[Tensor, "latents judgements"]:
    return dictionary.W_dec.detach().float().cpu() @ (judge.classifier - judge.classifier.mean(0)).T
