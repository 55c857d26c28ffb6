"""What units suppress most: labels over-represented where their pre-activation is most negative.

After the negative sides of neurons in Goh et al. 2021 (*Multimodal Neurons*, Distill). An item's value is here the
lowest over its rows: the unit with its sign reversed. The label is the one most over-represented among the lowest 1 %
of the half to match on; how often it is found there is then counted on the other half.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.errors import ConfigError
from sae.evaluation.pictures import GREY, style
from sae.features.judging.agreement import wilson
from sae.lab.concepts import beside
from sae.lab.finding import Finding, Picture
from sae.lab.levels.counted import called, shares
from sae.lab.levels.levels import held_out_areas
from sae.lab.readings import Readings, latents, neurons, random
from sae.lab.workbench import Workbench, WorkbenchConfig

LEVEL = 0.05
N_EXAMPLES = 4


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of a search for what units suppress."""

    share: float = 0.01
    """Share of the items that count as most negative."""
    n_rolls: int = 20
    """Count what is found by chance with labels moved along the items so often."""
    n_listed: int = 20
    """List so many units, those with the most significant labels first."""
    neurons_at: str | None = None
    """Take neurons from this hookpoint instead, as from the one before a nonlinearity; the subject is run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1 or min(self.n_rolls, self.n_listed) < 1:
            raise ConfigError("share must lie between 0 and 1; n_rolls and n_listed be at least 1.")


@dataclass(frozen=True)
class Negative:
    """The most negative items of units, in each half; -1 where a unit has no negative side.

    A unit has none if it is not negative there, or if as many items again have the same value as those at the edge.
    """

    lowest: tuple[Int[Tensor, "units low"], Int[Tensor, "units low"]]
    auc: Float[Tensor, "units labels"]

    @classmethod
    def of(cls, readings: Readings, share: float) -> "Negative":
        """Find them; `auc` is held out, of the unit with its sign reversed."""
        sample, found, reversed_auc = readings.sample, ([], []), []
        for _, block in readings.blocks(lowest=True):
            for half, into in zip((sample.match, ~sample.match), found, strict=True):
                into.append(lowest_items(block[half], share))
            reversed_auc.append(held_out_areas(-block, sample))
        match, score = (torch.cat(parts) for parts in found)
        return cls((match, score), torch.cat(reversed_auc))

    @property
    def there(self) -> Bool[Tensor, " units"]:
        """Units with a negative side in both halves."""
        return (self.lowest[0][:, 0] >= 0) & (self.lowest[1][:, 0] >= 0)


def lowest_items(values: Float[Tensor, "items units"], share: float) -> Int[Tensor, "units low"]:
    """Return the items with the lowest values, lowest first, as many as that share; -1 where there is no such side."""
    n = min(max(round(share * len(values)), 1), len(values) // 2)
    found = values.topk(min(2 * n, len(values)), dim=0, largest=False)
    sided = (found.values[n - 1] < 0) & (found.values[n - 1] < found.values[-1])
    return torch.where(sided, found.indices[:n], -1).T


@dataclass(frozen=True)
class Suppressed:
    """The label that each unit suppresses most, chosen on one half and counted on the other.

    Attributes:
        label: of each unit, its number in the sample's table; -1 without a negative side.
        hits: items with it among the most negative ones of the other half.
        p: chance of as many, were the label dealt at random; 1 without a negative side.
    """

    label: Int[np.ndarray, " units"]
    hits: Int[np.ndarray, " units"]
    p: Float[np.ndarray, " units"]

    @classmethod
    def of(
        cls, negative: Negative, halves: tuple[Bool[Tensor, "match labels"], Bool[Tensor, "score labels"]]
    ) -> "Suppressed":
        """Choose by the hypergeometric tail of each label's count on the half to match on."""
        units = negative.there.nonzero()[:, 0]
        n_units = len(negative.there)
        label, hits, p = np.full(n_units, -1), np.zeros(n_units, dtype=int), np.ones(n_units)
        if not len(units):
            return cls(label, hits, p)
        (matched, tail), (scored, held_tail) = (
            (_hits(columns, low[units]), tails(len(columns), tuple(columns.sum(0).tolist()), low.shape[1]))
            for columns, low in zip(halves, negative.lowest, strict=True)
        )
        chosen, here = tail[np.arange(len(tail)), matched].argmin(1), np.arange(len(units))
        label[units], hits[units] = chosen, scored[here, chosen]
        p[units] = held_tail[chosen, scored[here, chosen]]
        return cls(label, hits, p)

    @property
    def found(self) -> Bool[np.ndarray, " units"]:
        """Units whose label is there beyond chance, family-wise over all units (Bonferroni)."""
        return self.p <= LEVEL / len(self.p)


@cache
def tails(n_items: int, totals: tuple[int, ...], n_drawn: int) -> Float[np.ndarray, "labels hits"]:
    """Return the chance that at least so many of the items drawn have each label, from 0 hits on (hypergeometric)."""
    from scipy.stats import hypergeom

    mass = hypergeom.pmf(np.arange(n_drawn + 1), n_items, np.array(totals)[:, None], n_drawn)
    return mass[:, ::-1].cumsum(1)[:, ::-1].clip(max=1)


def _hits(columns: Bool[Tensor, "items labels"], low: Int[Tensor, "units low"]) -> Int[np.ndarray, "units labels"]:
    parts = [columns[part].sum(1) for part in low.split(64)]
    return torch.cat(parts).numpy()


@dataclass(frozen=True)
class Side:
    """What one kind of units suppresses, and what is found so with labels that are moved along the items."""

    readings: Readings
    negative: Negative
    suppressed: Suppressed
    by_chance: float

    @classmethod
    def of(cls, readings: Readings, config: Config) -> "Side":
        """Search; neighbouring tokens share labels, so the control moves all labels together and keeps that."""
        sample = readings.sample
        negative = Negative.of(readings, config.share)
        halves = tuple(sample.table.columns[half] for half in (sample.match, ~sample.match))
        rng, chance = np.random.default_rng(config.seed), []
        for _ in range(config.n_rolls):
            moved = [half.roll(int(rng.integers(len(half) // 4, len(half) * 3 // 4)), 0) for half in halves]
            chance.append(int(Suppressed.of(negative, (moved[0], moved[1])).found.sum()))
        return cls(readings, negative, Suppressed.of(negative, (halves[0], halves[1])), float(np.mean(chance)))

    def figures(self) -> dict[str, float]:
        """Return how many units there are, have a negative side, and suppress a label."""
        found, name = self.suppressed.found, self.readings.name
        figures = {"units": len(found), "with a negative side": int(self.negative.there.sum())}
        figures |= {"suppress a label": int(found.sum()), "suppress a label, labels moved": self.by_chance}
        if found.any():
            label = torch.from_numpy(self.suppressed.label[found])
            figures |= {"median AUC of these": float(self.negative.auc[found].gather(1, label[:, None]).median())}
        return {f"{name}, {called}": float(value) for called, value in figures.items()}

    def rows(self) -> list[dict[str, Any]]:
        """Return a table with one unit per line that has a negative side, the most significant first."""
        sample, found = self.readings.sample, []
        columns, low = sample.table.columns[~sample.match], self.negative.lowest[1]
        items = (~sample.match).nonzero()[:, 0]
        for unit in np.argsort(self.suppressed.p, kind="stable"):
            label, hits = int(self.suppressed.label[unit]), int(self.suppressed.hits[unit])
            if label < 0:
                continue
            ends, base = wilson(hits, low.shape[1]), float(columns[:, label].double().mean())
            shown = sample.example[items[low[unit, :N_EXAMPLES]]].tolist()
            row = {"unit": f"{self.readings.name}:{unit}", "label": sample.table.names[label]}
            row |= {"share": round(hits / low.shape[1], 3), "low": round(ends[0], 3), "high": round(ends[1], 3)}
            row |= {"base": round(base, 4), "auc": round(float(self.negative.auc[unit, label]), 3)}
            row |= {"p": float(f"{self.suppressed.p[unit]:.2g}"), "beyond_chance": bool(self.suppressed.found[unit])}
            found.append(row | {"examples": " ".join(map(str, shown))})
        return found


def draw_sides(sides: Sequence[Side], rows: Sequence[Sequence[Mapping[str, Any]]]) -> Any:
    """Draw how much more often the suppressed label is on the most negative items than anywhere, and how many have one.

    Args:
        sides: of each kind of units.
        rows: of each, as `Side.rows` returns them.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    for number, (side, of_side) in enumerate(zip(sides, rows, strict=True)):
        excess = np.sort([row["share"] - row["base"] for row in of_side])[::-1]
        x = (np.arange(len(excess)) + 0.5) / len(side.suppressed.p)
        none = "" if len(excess) else " (none has a negative side)"
        left.plot(x, excess, color=style(number)["color"], linewidth=1.6, label=called(side.readings.name) + none)
    left.axhline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    left.set_xlabel("units, of all", fontsize=9)
    left.set_ylabel("suppressed label's share of the most\nnegative items, less that of all items", fontsize=9)
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:.0%}")
    left.tick_params(labelsize=8)
    left.legend(frameon=False, fontsize=8)
    left.spines[["top", "right"]].set_visible(False)
    counts = [(called(side.readings.name), int(side.suppressed.found.sum()), len(side.suppressed.p)) for side in sides]
    shares(right, counts, [side.by_chance for side in sides])
    right.set_xlim(-0.02, 1)
    right.set_xlabel("of all units, suppress a label beyond chance", fontsize=9)
    return figure


def run(config: Config) -> Finding:
    """Search latents, neurons and random directions for labels on their negative side."""
    bench = Workbench.open(config)
    raw = neurons(bench, config.neurons_at)
    kinds = (latents(bench), raw, random(bench.sample, raw.n_units, config.seed))
    sides = [Side.of(kind, config) for kind in kinds]
    figures = {name: value for side in sides for name, value in side.figures().items()}
    by_side = [side.rows() for side in sides]
    rows = [row for of_side in by_side for row in of_side]
    caption = (
        f"Left: of the most negative {config.share:.0%} of held-out items, the share with the label that the other "
        "half names, less that label's share of all held-out items; units in order, those without a negative side left "
        "out. Right: units whose label is there beyond chance, family-wise, with 95 % intervals; grey: with labels "
        "moved along the items."
    )
    pictures = {"lab-suppression": Picture(lambda: draw_sides(sides, by_side), rows, caption)} if rows else {}
    return Finding("suppression", bench.about, figures, rows[: config.n_listed], say(sides), pictures)


def say(sides: Sequence[Side]) -> str:
    """Return the verdict."""
    parts = [
        f"{side.suppressed.found.sum()} of {len(side.suppressed.p)} {side.readings.name.replace('_', ' ')}s "
        f"({side.by_chance:.1f} with labels moved)"
        for side in sides
    ]
    share, *others = ((float(side.suppressed.found.mean()), len(side.suppressed.p)) for side in sides)
    controls = {called(side.readings.name): one for side, one in zip(sides[1:], others, strict=True)}
    return (
        f"a label is over-represented on the negative side of {', '.join(parts)}; latents {beside(*share, controls)}."
    )
