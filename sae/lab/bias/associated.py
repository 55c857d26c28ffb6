"""Units beside a sensitive value, once through prompts and once through images, and whether the two agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from sae.lab.bias.removing import Knowing
from sae.lab.bias.wording import Wording
from sae.lab.spread import Spread, rank_correlation

JUDGED = "the judgement itself: "
"""Marks what is known of the words of a judgement, where prompts and images should agree."""
N_RANKED = 4
"""Units told of each ranking."""
BY = ("prompts", "images")


@dataclass(frozen=True)
class Association:
    """How units of one kind go with one value.

    Attributes:
        value: the value.
        kind: of the units.
        alive: units that fire.
        prompts: cosine of what each writes with the value's words, against those of its family's other values.
        images: area under the ROC curve of each for the value, on the half to match on and on the other; None of a
            value that no image is labelled with.
    """

    value: str
    kind: str
    alive: Bool[Tensor, " units"]
    prompts: Float[Tensor, " units"]
    images: tuple[Float[Tensor, " units"], Float[Tensor, " units"]] | None

    @cached_property
    def agreement(self) -> Spread | None:
        """Spearman's correlation of the two over the units that fire, held-out areas, resampling units."""
        if self.images is None:
            return None
        return rank_correlation(self.prompts[self.alive], self.images[1][self.alive]).spread

    def ranked(self, by: str, n: int = N_RANKED) -> list[int]:
        """Return the units that go with the value most, by prompts, or by images of the half to match on."""
        if by == "images" and self.images is None:
            return []
        score = self.prompts if by == "prompts" or self.images is None else self.images[0].nan_to_num(0)
        return score.masked_fill(~self.alive, -1).topk(min(n, int(self.alive.sum()))).indices.tolist()

    def auc(self, unit: int) -> float | None:
        """Return a unit's held-out area."""
        return None if self.images is None else float(self.images[1][unit])


def associations(knowing: Knowing, words: Wording) -> list[Association]:
    """Return every value whose words the subject knows beside latents, neurons and random directions.

    After them come the judgements' own names, as the positive control: pictures show what is judged.
    """
    values, found = knowing.judged.values, []
    cosines = {kind: words.association(units.dictionary.W_dec) for kind, units in knowing.units.items()}
    for number, value in enumerate(words.values):
        for kind, units in knowing.units.items():
            images = knowing.auc(kind, values.index(value)) if value in values else None
            found.append(Association(value, kind, units.alive, cosines[kind][:, number], images))
    own = {kind: words.naming(units.dictionary.W_dec) for kind, units in knowing.units.items()}
    for number, name in enumerate(knowing.judged.judge.names):
        for kind, units in knowing.units.items():
            images = knowing.auc_of_judgement(kind, number)
            found.append(Association(f"{JUDGED}{name}", kind, units.alive, own[kind][:, number], images))
    return found


def association_figures(found: Sequence[Association], told: Sequence[str]) -> dict[str, float]:
    """Return by kind the mean agreement and what the unit chosen by prompts is worth, and both for values to tell of.

    For values that are words alone it is the cosine of the unit that prompts choose.
    """
    figures: dict[str, float] = {}
    for kind in dict.fromkeys(one.kind for one in found):
        of_kind = [one for one in found if one.kind == kind and not one.value.startswith(JUDGED)]
        names = [one for one in found if one.kind == kind and one.value.startswith(JUDGED)]
        for group, members in (("values", of_kind), ("judgements themselves", names)):
            known = [one for one in members if one.images is not None]
            if known:
                figures |= {f"{group} by prompts, {kind}: {name}": value for name, value in _mean(known).items()}
        for one in of_kind:
            if one.value in told or one.images is None:
                unit = one.ranked("prompts", 1)[0]
                figures[f"{one.value}: cosine of the best of {kind} by prompts"] = float(one.prompts[unit])
            if one.value in told and one.images is not None and one.agreement is not None:
                figures[f"{one.value}: auc of the best of {kind} by prompts"] = float(one.images[1][unit])
                figures |= one.agreement.figures(f"{one.value}: prompts and images agree, {kind}")
    return figures


def _mean(known: Sequence[Association]) -> dict[str, float]:
    agreements = [one.agreement for one in known if one.agreement is not None]
    areas = [one.auc(one.ranked("prompts", 1)[0]) or 0.0 for one in known]
    by_images = [one.auc(one.ranked("images", 1)[0]) or 0.0 for one in known]
    return {
        "auc of the best": sum(areas) / len(known),
        "auc of the best by images": sum(by_images) / len(known),
        "rank correlation with images": sum(one.mean for one in agreements) / len(known),
        "agree beyond chance": float(sum(one.low > 0 for one in agreements)),
        "of": float(len(known)),
    }


def association_rows(found: Sequence[Association], titles: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return one row per value, kind, way to rank and rank."""
    return [
        {
            "value": one.value,
            "kind": one.kind,
            "by": by,
            "rank": rank,
            "unit": unit,
            "called": titles.get(unit, "") if one.kind == "latents" else "",
            "cosine": round(float(one.prompts[unit]), 4),
            "auc": "" if (area := one.auc(unit)) is None else round(area, 4),
            "agree": "" if one.agreement is None else round(one.agreement.mean, 4),
            "low": "" if one.agreement is None else round(one.agreement.low, 4),
            "high": "" if one.agreement is None else round(one.agreement.high, 4),
        }
        for one in found
        for by in BY
        for rank, unit in enumerate(one.ranked(by), start=1)
    ]
