"""The picture of a unit's levels: stacked shares of labels above, densities of activation by label below."""

from typing import Any

import numpy as np

from sae.evaluation.pictures import GREY, style
from sae.lab.levels import mixes
from sae.lab.levels.table import Levels
from sae.lab.readings import NO_LABEL, Family

N_SHOWN = 6
"""Labels that have a colour; the others together are grey."""
OTHERS, NONE = "0.88", "0.72"


def shown_labels(found: Levels, family: Family) -> list[int]:
    """Return the label in question and those that levels have most of, each level counting alike; none comes last."""
    heights = np.nan_to_num(mixes.shares(found.counts)).sum(0)
    heights[found.label] = np.inf
    order = [int(one) for one in np.argsort(-heights, kind="stable")[:N_SHOWN] if heights[one] > 0]
    return sorted(order, key=lambda one: family.names[one] == NO_LABEL)


def draw_levels(found: Levels, family: Family, unit: str) -> Any:
    """Draw both panels over the same axis of pre-activations, which is also told in standard deviations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 5.6), layout="constrained")
    mix, reverse = figure.subplots(2, 1, sharex=True, height_ratios=(2.1, 1))
    labels = shown_labels(found, family)
    _draw_mix(mix, found, family, labels)
    _draw_densities(reverse, found, family, labels)
    mix.set_title(f"{unit}, {family.name}={family.names[found.label]}", fontsize=10, loc="left")
    for axes in (mix, reverse):
        axes.axvline(0, color="0.2", linewidth=0.8, linestyle=(0, (1, 2)))
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    reverse.set_xlabel("pre-activation", fontsize=9)
    above = mix.secondary_xaxis("top", functions=(lambda x: x / found.deviation, lambda x: x * found.deviation))
    above.set_xlabel("standard deviations from zero", fontsize=8, color=GREY)
    above.tick_params(labelsize=8, colors=GREY)
    above.spines["top"].set_visible(False)
    return figure


def _colour(number: int, label: str) -> str:
    return NONE if label == NO_LABEL else style(number)["color"]


def _draw_mix(axes: Any, found: Levels, family: Family, labels: list[int]) -> None:
    share, drawn = mixes.shares(found.counts), found.counts.sum(1)
    centres = (found.edges[1:] + found.edges[:-1]) / 2
    bottom = np.zeros(len(drawn))
    for number, label in enumerate(labels):
        top = bottom + np.nan_to_num(share[:, label])
        _area(axes, found.edges, bottom, top, drawn > 0, _colour(number, family.names[label]), family.names[label])
        bottom = top
    if (bottom[drawn > 0] < 1 - 1e-9).any():
        _area(axes, found.edges, bottom, np.ones(len(drawn)), drawn > 0, OTHERS, "all others")
    low, high = mixes.intervals(found.counts[:, found.label], drawn)
    own = share[:, found.label]
    axes.errorbar(
        centres, own, np.abs(np.stack([own - low, high - own])), color="black", linewidth=0, elinewidth=0.9, capsize=1.5
    )
    for edge in found.band:
        there = ~np.isnan(edge)
        axes.plot(centres[there], edge[there], color="black", linewidth=0.8, linestyle=(0, (4, 3)))
    for centre, n in zip(centres, drawn, strict=True):
        axes.text(centre, 1.012, str(n) if n else "–", ha="center", va="bottom", fontsize=6, color=GREY)
    axes.set(ylim=(0, 1.06), xlim=(found.edges[0], found.edges[-1]))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_ylabel("share of the level's items", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.005, 1.0), handlelength=1.0)


def _area(axes: Any, edges: Any, bottom: Any, top: Any, there: Any, colour: str, label: str) -> None:
    """Fill between two heights; levels without items stay white, and the first and last reach the edge."""
    starts = np.flatnonzero(there & ~np.concatenate([[False], there[:-1]]))
    stops = np.flatnonzero(there & ~np.concatenate([there[1:], [False]])) + 1
    centres = (edges[1:] + edges[:-1]) / 2
    for number, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        x = np.concatenate([[edges[start]], centres[start:stop], [edges[stop]]])
        low, high = (np.concatenate([[one[start]], one[start:stop], [one[stop - 1]]]) for one in (bottom, top))
        axes.fill_between(x, low, high, color=colour, linewidth=0, alpha=0.9, label=label if not number else None)


def _draw_densities(axes: Any, found: Levels, family: Family, labels: list[int]) -> None:
    density = mixes.densities(mixes.shares(found.counts), found.mass, found.edges)
    everything = found.mass / np.diff(found.edges)
    axes.stairs(everything, found.edges, fill=True, color=OTHERS, label="all items")
    for number, label in enumerate(labels):
        axes.stairs(density[:, label], found.edges, color=_colour(number, family.names[label]), linewidth=1.4)
    axes.set_ylabel(f"p(pre-activation |\n{family.name})", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.005, 1.0), handlelength=1.0)
