"""Which units mean something else when they are strongly active than when they are active at medium strength.

For every unit, the mix of labels at 50-70 % of its maximum is compared with that at 90-100 % by the Jensen-Shannon
divergence. From few items it is large by chance, so labels are dealt out within both bands, and of all units only
those count whose divergence chance would not reach in any of them. After Goh et al. 2021 (*Multimodal Neurons*,
Distill), where an East Africa neuron shows other things at medium strength, by eye.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sae.errors import ConfigError
from sae.evaluation.families import entropy_family
from sae.evaluation.pictures import GREY, style
from sae.lab.concepts import beside
from sae.lab.finding import Finding, Picture
from sae.lab.levels import mixes
from sae.lab.levels.counted import called, shares
from sae.lab.levels.levels import MEDIUM, STRONG
from sae.lab.readings import Family, Readings, latents, neurons, random
from sae.lab.workbench import Workbench, WorkbenchConfig

N_NAMED = 5
"""Units whose numbers are written into the picture, those with the largest standard scores."""


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of a search for regimes."""

    family: str | None = None
    """Family of labels; null takes the first of concept, class and role that the inputs know."""
    fewest: int = 10
    """Items, at most one of an example, that each of the two bands must have for a unit to be tested."""
    n_deals: int = 999
    """Deal labels out so often."""
    n_listed: int = 20
    """List so many units, those with the largest change first."""
    neurons_at: str | None = None
    """Take neurons from this hookpoint instead, as from the one before a nonlinearity; the subject is run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.fewest, self.n_deals, self.n_listed) < 1:
            raise ConfigError("fewest, n_deals and n_listed must be at least 1.")


@dataclass(frozen=True)
class Regimes:
    """The changes of many units; None for those that are too rarely near their maximum.

    Attributes:
        name: kind of the units.
        changes: of each unit.
        limit: standard score from which a change is beyond chance, whatever the unit.
        found: which units' changes are.
        commonest: of each unit, the labels most frequent in either band, with their shares.
    """

    name: str
    changes: list[mixes.Change | None]
    limit: float
    found: list[bool]
    commonest: list[tuple[str, str]]

    @classmethod
    def of(cls, readings: Readings, family: Family, fewest: int = 10, n_deals: int = 999, seed: int = 0) -> "Regimes":
        """Compare the two bands of every unit, on all items of the sample: nothing is chosen."""
        changes: list[mixes.Change | None] = []
        commonest: list[tuple[str, str]] = []
        example = readings.sample.example.numpy()
        for first, block in readings.blocks():
            for place, values in enumerate(block.numpy().T):
                top, draw = float(values.max()), [seed, first + place]
                bands = [mixes.band(values, top, limits, example, draw) for limits in (MEDIUM, STRONG)]
                medium, strong = (np.bincount(family.values[one], minlength=len(family.names)) for one in bands)
                enough = min(map(len, bands)) >= fewest
                changes.append(mixes.Change.of(medium, strong, n_deals, draw) if enough else None)
                commonest.append((_commonest(medium, family), _commonest(strong, family)))
        limit, found = mixes.significant(changes)
        return cls(readings.name, changes, limit, found, commonest)

    @property
    def n_tested(self) -> int:
        return sum(change is not None for change in self.changes)

    def figures(self) -> dict[str, float]:
        """Return how many units there are, could be tested, and change."""
        tested = [change for change in self.changes if change is not None]
        found = {"units": len(self.changes), "tested": len(tested), "change beyond chance": sum(self.found)}
        shares = {"share of tested": sum(self.found) / max(len(tested), 1)}
        shares |= {"p <= 0.05": sum(change.p <= 0.05 for change in tested) / max(len(tested), 1)}
        if tested:
            shares["median excess, bits"] = float(np.median([change.excess for change in tested]))
        return {f"{self.name}, {name}": float(value) for name, value in (found | shares).items()}

    def rows(self) -> list[dict[str, Any]]:
        """Return a table with one tested unit per line, the largest standard score first."""
        found = []
        for number, change in enumerate(self.changes):
            if change is not None:
                score = float(change.standard(np.array(change.divergence)))
                row = {"unit": f"{self.name}:{number}", "bits": round(change.divergence, 3)}
                row |= {"dealt": round(float(change.dealt.mean()), 3), "score": round(score, 2), "p": change.p}
                row |= {"beyond_chance": self.found[number], "n_medium": change.n[0], "n_strong": change.n[1]}
                found.append(row | dict(zip(("medium", "strong"), self.commonest[number], strict=True)))
        return sorted(found, key=lambda row: -row["score"])


def _commonest(counts: Any, family: Family, n: int = 3) -> str:
    order = [int(one) for one in np.argsort(-counts, kind="stable")[:n] if counts[one]]
    return ", ".join(f"{family.names[one]} {counts[one] / counts.sum():.0%}" for one in order)


def draw_regimes(found: Sequence[Regimes]) -> Any:
    """Draw every tested unit's divergence beyond chance, a panel for each kind, and the shares that change."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.4, 3.6), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(3, 1.15))[0]
    panels = left.subplots(1, len(found), sharex=True, sharey=True, squeeze=False)[0]
    for number, (axes, kind) in enumerate(zip(panels, found, strict=True)):
        _units(axes, kind, style(number))
    panels[0].set_ylabel("divergence beyond chance, bits", fontsize=9)
    axes = right.subplots()
    shares(axes, [(called(kind.name), sum(kind.found), kind.n_tested) for kind in found])
    axes.set_xlim(left=0)
    axes.set_xlabel("of those tested, beyond chance", fontsize=8)
    return figure


def _units(axes: Any, kind: Regimes, look: dict[str, str]) -> None:
    """Draw the units of one kind: grey if chance would do, coloured if not, and the clearest with their numbers."""
    rows = kind.rows()
    # Many units have as many items; they are spread a little around that number.
    aside = np.random.default_rng(0).uniform(-0.32, 0.32, len(rows))
    across = np.array([row["n_strong"] for row in rows]) + aside
    height = np.array([row["bits"] - row["dealt"] for row in rows])
    beyond = np.array([row["beyond_chance"] for row in rows], dtype=bool)
    axes.scatter(across[~beyond], height[~beyond], s=9, color="0.78", linewidths=0)
    axes.scatter(across[beyond], height[beyond], s=22, linewidths=0, **look)
    for row, x, y in list(zip(rows, across, height, strict=True))[:N_NAMED]:
        if row["beyond_chance"]:
            axes.annotate(row["unit"].partition(":")[2], (x, y), (4, 2), textcoords="offset points", fontsize=7)
    axes.axhline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.set_title(f"{called(kind.name)}: {kind.n_tested:,} of {len(kind.changes):,} tested", fontsize=9, loc="left")
    axes.set_xlabel("items at 90-100 % of the maximum", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def run(config: Config) -> Finding:
    """Search latents, neurons and random directions for changes of regime."""
    bench = Workbench.open(config)
    name = config.family or entropy_family(bench.sample)
    if name is None:
        raise ConfigError(f"family: name one of {', '.join(bench.sample.labels)}; the inputs have no usual one.")
    family = Family.of(bench.sample, name)
    raw = neurons(bench, config.neurons_at)
    kinds = (latents(bench), raw, random(bench.sample, raw.n_units, config.seed))
    found = [Regimes.of(kind, family, config.fewest, config.n_deals, config.seed) for kind in kinds]
    figures = {name: value for kind in found for name, value in kind.figures().items()}
    rows = [row for kind in found for row in kind.rows()]
    caption = (
        f"Jensen-Shannon divergence between the mix of {family.name} at 50-70 % and at 90-100 % of each unit's "
        "maximum, less its mean when labels are dealt out within both bands. Coloured: beyond chance, 5 % family-wise; "
        "the clearest with their numbers. Right: their share of the units that have enough items in both bands to be "
        "tested, with 95 % intervals."
    )
    pictures = {"lab-regimes": Picture(lambda: draw_regimes(found), rows, caption)} if rows else {}
    return Finding("regimes", bench.about, figures, rows[: config.n_listed], say(found, family.name), pictures)


def say(found: Sequence[Regimes], family: str) -> str:
    """Return the verdict."""
    parts = [f"{sum(kind.found)} of {kind.n_tested} tested {kind.name.replace('_', ' ')}s" for kind in found]
    text = f"between medium and strong activation the mix of {family} changes beyond chance in {'; '.join(parts)}"
    if not found[0].n_tested:
        return "no latent is near its maximum often enough to be tested; take more vectors."
    share, *others = ((kind.name, sum(kind.found) / kind.n_tested, kind.n_tested) for kind in found if kind.n_tested)
    controls = {called(name): (control, n) for name, control, n in others}
    return f"{text}; latents {beside(*share[1:], controls)}." if controls else f"{text}."
