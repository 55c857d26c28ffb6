"""Every judgement of an audit beside every sensitive value, and the latents that carry one to the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.evaluation.labels import best_labels
from sae.evaluation.sample import Units
from sae.lab.bias.decision import Judge, scaled
from sae.lab.bias.leaning import LEVEL, Effects, Observed, observed, stands_out
from sae.lab.bias.population import Pairs, Population
from sae.lab.bias.removing import Knowing
from sae.lab.bias.speaking import spoken, towards
from sae.lab.bias.wording import Wording

NAMED_AUC = 0.7
COUNTED = ("items", "judged so", "others judged so", "p", "found")
CAUSED = ("effect, nats", "low", "high", "no chance", "t", "own")
CARRIED = ("carried, nats", "latent", "auc", "speaks", "speaks, nats", "speaks, auc")
WORDED = ("words", "words, t", "words, latent", "by words", "by words, cosine", "by words, auc")
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
    """Return one row per judgement and value, those found first, then values that are words alone.

    `latent` carries most of what the value does to the judgement, or where that is not known separates the value best;
    `speaks` adds most to the judgement where it is made. Both are chosen on one half, their figures are those of the
    other. `by words` writes the value's words most, against those of its family's other values.
    """
    judged, rows = audit.judged, []
    carried = {name: _carried(audit.judged.judge, dictionary, pair) for name, pair in audit.pairs.items()}
    matched, scored = spoken(judged, scaled(judged.judge, dictionary, judged.x), towards(judged.judge, dictionary))
    written = _written(knowing, words)
    speaks = matched.argmax(1)
    for value, label in enumerate(judged.values):
        found, areas = audit.effects(value), knowing.auc("latents", value)
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
            rows.append(row | _worded(words, written, label, judgement, latent))
    rows.sort(key=lambda row: row["p"])
    blank = dict.fromkeys(("judgement", "value", *COUNTED, *CAUSED, *CARRIED), "")
    return rows + [
        blank | {"judgement": name, "value": label} | _worded(words, written, label, judgement, None)
        for label in words.values
        if label not in judged.values
        for judgement, name in enumerate(audit.names)
    ]


@dataclass(frozen=True)
class _Written:
    """What latents write: unit directions, and of each value's words the latent that writes them most.

    Its number, cosine, and held-out area for the value, which is empty of a value that no item is labelled with.
    """

    directions: Float[Tensor, "latents d_joint"]
    most: dict[str, tuple[int, Any, Any]]


def _written(knowing: Knowing, words: Wording) -> _Written:
    directions = F.normalize(knowing.dictionary.W_dec.detach().float().cpu(), dim=1)
    cosines = words.association(directions).masked_fill(~knowing.units["latents"].alive[:, None], -1)
    values, most = knowing.judged.values, {}
    for label, cosine in zip(words.values, cosines.T, strict=True):
        first = int(cosine.argmax())
        known = knowing.auc("latents", values.index(label))[1][first] if label in values else None
        most[label] = (first, _rounded(cosine[first]), "" if known is None else _rounded(known))
    return _Written(directions, most)


def _worded(words: Wording, written: _Written, label: str, judgement: int, latent: int | None) -> dict[str, Any]:
    """Return what a value's words are near to: the judgement, a latent, and the latent that writes them most."""
    place = words.place(label)
    if place is None:
        return dict.fromkeys(WORDED, "")
    found = (
        _rounded(words.judgements[place, judgement]),
        _rounded(words.outlying[place, judgement]),
        "" if latent is None else _rounded(words.towards[place] @ written.directions[latent]),
        *written.most[label],
    )
    return dict(zip(WORDED, found, strict=True))


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
        return row | dict.fromkeys(CAUSED, "")
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
    changes, products = (held - held.mean(1, keepdim=True)) * n / (n - 1), towards(judge, dictionary)
    return changes[pair.match].mean(0)[..., None] * products, changes[~pair.match].mean(0)[..., None] * products
