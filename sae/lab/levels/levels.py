"""What a unit answers to at each level of its activation, from its most negative to its strongest, and the reverse.

After the conditional probability plots of Goh et al. 2021 (*Multimodal Neurons*, Distill): levels of equal width, and
equally many items drawn from each, so that P(label | activation) is seen where items are rare; weighted by how many
items each level has, the same draws give p(activation | label) and recall. Labels are the inputs' own, so nobody has to
be blinded.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.dictionaries.linear import Directions
from sae.errors import ConfigError, nearest
from sae.evaluation.responses import DenseResponses
from sae.evaluation.sample import ENCODED_ROWS, Sample
from sae.features.judging.agreement import wilson
from sae.lab.finding import Finding, Picture
from sae.lab.levels import mixes
from sae.lab.levels.picture import draw_levels
from sae.lab.levels.table import Levels
from sae.lab.readings import Family, Readings, difference, neurons, random, unit_of
from sae.lab.workbench import Workbench, WorkbenchConfig

TOP = 0.5
"""Share of its maximum from which on a unit counts as strongly active."""
MEDIUM, STRONG = (0.5, 0.7), (0.9, 1.0)
"""Bands of a unit's maximum between which its mix of labels may change."""
RIDGE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of the levels of a unit."""

    unit: str
    """latent:12, neuron:3, or direction:concept=dog, the difference of the means with and without a label."""
    family: str | None = None
    """Family of labels whose mix is shown; null takes that of the label which the unit separates best."""
    label: str | None = None
    """Label that intervals and controls are about, such as facet=word; null takes the family's best."""
    n_levels: int = 20
    """Levels of equal width."""
    n_each: int = 50
    """Draw so many items from each level, where it has as many."""
    n_random: int = 32
    """Compare with so many random directions, each with its own best label."""
    n_deals: int = 999
    """Deal labels out so often to judge a change of regime."""
    neurons_at: str | None = None
    """Take neurons from this hookpoint instead, as from the one before a nonlinearity; the subject is run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.n_levels - 1, self.n_each, self.n_random, self.n_deals) < 1:
            raise ConfigError("n_levels must be at least 2; n_each, n_random and n_deals at least 1.")


@dataclass(frozen=True)
class Strong:
    """How many of the items on which a unit is strongly active have a label, and of the label's items how many."""

    auc: float
    hits: int
    n: int
    n_labelled: int

    @classmethod
    def of(cls, values: Float[np.ndarray, " items"], has: Bool[np.ndarray, " items"], auc: float) -> "Strong":
        active = values >= TOP * values.max() if values.max() > 0 else np.zeros(len(values), dtype=bool)
        return cls(auc, int((active & has).sum()), int(active.sum()), int(has.sum()))

    @property
    def precision(self) -> float:
        return self.hits / self.n if self.n else float("nan")

    @property
    def recall(self) -> float:
        return self.hits / self.n_labelled

    def figures(self, who: str) -> dict[str, float]:
        known = {"precision": self.precision} if self.n else {}
        return {f"{who}, {name}": value for name, value in ({"AUC": self.auc, "recall": self.recall} | known).items()}


def areas(pre: Float[Tensor, "items units"], sample: Sample) -> tuple[Float[Tensor, "units labels"], ...]:
    """Return the AUC of values for every label of the sample, on the half to match on and on the other."""
    matched = _responses(pre[sample.match]).auc(sample.label_halves[0])
    return matched, held_out_areas(pre, sample)


def held_out_areas(pre: Float[Tensor, "items units"], sample: Sample) -> Float[Tensor, "units labels"]:
    """Return the AUC of values for every label, on the half to score on."""
    return _responses(pre[~sample.match]).auc(sample.label_halves[1])


def _responses(pre: Float[Tensor, "items units"]) -> DenseResponses:
    return DenseResponses.of(lambda chosen: pre[:, chosen], len(pre), pre.shape[1])


def of_family(sample: Sample, family: str) -> Int[Tensor, " labels"]:
    """Return which labels of the sample's table belong to a family.

    Raises:
        ConfigError: there is no such family, or its labels are too rare.
    """
    Family.of(sample, family)
    names = sample.table.names
    found = [place for place, name in enumerate(names) if name.partition("=")[0] == family]
    if not found:
        raise ConfigError(f"family: every label of {family!r} is too rare in this sample; take more vectors.")
    return torch.tensor(found)


def chosen_label(
    sample: Sample, auc: Float[Tensor, " labels"], family: str | None = None, label: str | None = None
) -> int:
    """Return the number of a label by its name, or of the one that is separated best, of a family or of all.

    Raises:
        ConfigError: there is no such label or family.
    """
    names = sample.table.names
    if label is not None:
        if label not in names or family not in (None, label.partition("=")[0]):
            raise ConfigError(f"label: no {label!r} in {family or 'any family'}.{nearest(label, names)}")
        return names.index(label)
    if family is None:
        return int(auc.argmax())
    columns = of_family(sample, family)
    return int(columns[auc[columns].argmax()])


def probe(sample: Sample, label: int) -> Readings:
    """Return Fisher's linear discriminant of a label, fitted by least squares on the rows of the half to match on."""
    keep, _ = sample.labelled_rows[0]
    x = sample.x[keep.nonzero()[:, 0]]
    mean = x.float().mean(0).double()
    covariance = sum((one := part.double() - mean).T @ one for part in x.split(ENCODED_ROWS)) / len(x)
    assert isinstance(covariance, Tensor)
    ridge = RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    towards = torch.linalg.solve(covariance + ridge, sample.label_excess[0][:, label])
    return Readings("linear_probe", Directions.of(towards[None], mean.float()), sample)


def controls(bench: Workbench, family: Int[Tensor, " labels"], label: int, config: Config) -> dict[str, list[Strong]]:
    """Return what other directions do: random ones for their own best label of the family, the others for this one."""
    sample, found = bench.sample, {}
    columns = sample.table.columns[~sample.match].numpy()

    def strong(pre: Float[Tensor, "items units"], units: list[int], labels: list[int], auc: Tensor) -> list[Strong]:
        held_out = pre[~sample.match].numpy()
        return [
            Strong.of(held_out[:, unit], columns[:, one], float(auc[unit, one]))
            for unit, one in zip(units, labels, strict=True)
        ]

    drawn = random(sample, config.n_random, config.seed).of(range(config.n_random))
    match, score = areas(drawn, sample)
    own = family[match[:, family].argmax(1)].tolist()
    found["random directions"] = strong(drawn, list(range(config.n_random)), own, score)
    raw = neurons(bench, config.neurons_at)
    pre = torch.cat([block for _, block in raw.blocks()], dim=1)
    match, score = areas(pre, sample)
    found["best neuron"] = strong(pre, [int(match[:, label].argmax())], [label], score)
    name = sample.table.names[label]
    for called, made in (("difference of means", difference(sample, name)), ("linear probe", probe(sample, label))):
        pre = made.of(range(1))
        found[called] = strong(pre, [0], [label], areas(pre, sample)[1])
    return found


def run(config: Config) -> Finding:
    """Read a unit at all of its levels, on items that had no part in choosing its label."""
    bench = Workbench.open(config)
    sample = bench.sample
    readings, number = unit_of(bench, config.unit, config.neurons_at)
    pre = readings.of(range(number, number + 1))
    match, score = areas(pre, sample)
    table = sample.table.names
    label = chosen_label(sample, match[0], config.family, config.label)
    family_name = table[label].partition("=")[0]
    family, held_out = Family.of(sample, family_name), (~sample.match).numpy()
    values, labels = pre[:, 0].numpy()[held_out], family.values[held_out]
    place = family.names.index(table[label].partition("=")[2])
    found = Levels.of(values, labels, len(family.names), place, config.n_levels, config.n_each, config.seed)
    own = Strong.of(values, labels == place, float(score[0, label]))
    others = controls(bench, of_family(sample, family_name), label, config)
    # Nothing is chosen for a change of regime, so both halves count, and more items are near the maximum.
    example = sample.example.numpy()
    change = regime(pre[:, 0].numpy(), family.values, example, len(family.names), config.n_deals, config.seed)
    figures = {"base rate": found.base} | own.figures(config.unit)
    for who, those in others.items():
        every = [one.figures(who) for one in those]
        figures |= {name: float(np.mean([one[name] for one in every if name in one])) for name in every[0]}
    figures |= {"levels outside the band of dealt labels": float(found.outside.sum())}
    figures |= {"levels with items": float((found.mass > 0).sum())}
    if change is not None:
        figures |= {"regime, bits": change.divergence, "regime, dealt, bits": float(change.dealt.mean())}
        figures |= {"regime, p": change.p}
    picture = Picture(
        lambda: draw_levels(found, family, config.unit), found.rows(family.names), caption(found, family, config)
    )
    verdict = say(config.unit, table[label], own, others["random directions"], found, change)
    return Finding("levels", bench.about, figures, found.rows(family.names), verdict, {"lab-levels": picture})


def regime(
    values: Float[np.ndarray, " items"],
    labels: Int[np.ndarray, " items"],
    example: Int[np.ndarray, " items"],
    n_labels: int,
    n_deals: int,
    seed: int,
    fewest: int = 10,
) -> mixes.Change | None:
    """Compare a unit's mix of labels at medium activation with that at strong activation.

    Returns:
        None where either band has fewer than `fewest` items, at most one of an example.
    """
    top = float(values.max())
    bands = [mixes.band(values, top, limits, example, seed) for limits in (MEDIUM, STRONG)]
    if min(map(len, bands)) < fewest:
        return None
    medium, strong = (np.bincount(labels[one], minlength=n_labels) for one in bands)
    return mixes.Change.of(medium, strong, n_deals, seed)


def say(unit: str, label: str, own: Strong, drawn: list[Strong], found: Levels, change: mixes.Change | None) -> str:
    """Return the verdict."""
    if not own.n:
        return f"{unit}: its pre-activation is never positive, so it has no strong level."
    low, high = wilson(own.hits, own.n)
    rival = [one.precision for one in drawn if one.n]
    beyond = low > found.base and np.mean([own.precision > one for one in rival]) > 0.95
    text = (
        f"{unit}: {own.precision:.0%} [{low:.0%}, {high:.0%}] of the {own.n} held-out items from half its maximum on "
        f"have {label} (base rate {found.base:.1%}; random directions with their own best label {np.mean(rival):.0%}); "
    )
    text += "" if beyond else "this is not distinguishable from the random directions; "
    if change is None:
        return text + "too few items are near its maximum to compare regimes."
    told = "changes" if change.p <= 0.05 else "does not change beyond chance"
    return text + (
        f"between medium and strong activation its mix of labels {told} ({change.divergence:.2f} bits, "
        f"dealt {change.dealt.mean():.2f}, p {change.p:.3f})."
    )


def caption(found: Levels, family: Family, config: Config) -> str:
    """Return what the picture shows."""
    return (
        f"Above: P({family.name} | pre-activation), at most {config.n_each} held-out items drawn from each of "
        f"{config.n_levels} levels of equal width; whiskers: 95 % Wilson intervals of {family.names[found.label]}; "
        "dashed: what it stays within in 95 of 100 deals of the labels. Numbers: items drawn. Below: "
        f"p(pre-activation | {family.name}), from the same items weighted by the mass of their level."
    )
