"""The picture of families: units per group by label and by text, and frequency against having a latent of one's own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sae.evaluation.pictures import style
from sae.features.judging.agreement import wilson
from sae.lab.associations.frequency import OTHER_SEED, Owned, Related
from sae.lab.associations.grouping import Grouped
from sae.lab.finding import Picture

N_BINS = 8
HOW = ("by label", "by text", "by both")
Drawn = tuple[Float[Tensor, " classes"], Owned, Mapping[str, Related]]


def families_picture(groups: Sequence[str], grouped: Mapping[str, Grouped], drawn: Drawn | None) -> Picture:
    """Draw the shares of units per group, and the relation with frequency where it is known."""
    rows = [
        {"group": group, "units": who, "how": how, "share": count / len(one.by_label)}
        for who, one in grouped.items()
        for how, counts in zip(HOW, one.counts(len(groups)), strict=True)
        for group, count in zip(groups, counts, strict=True)
    ]
    caption = (
        "Share of all units that have each group by the label they separate best, by their nearest words, by both. "
    )
    if drawn is not None:
        caption += (
            "Right: every class by how often it occurs in training; above, those with a latent of their own; dots: "
            "shares with 95 % intervals, line: logistic regression, dashed: the same on the other seed's frequencies."
        )
    return Picture(lambda: _draw(groups, rows, list(grouped), drawn), rows, caption)


def _draw(groups: Sequence[str], rows: list[dict[str, Any]], who: list[str], drawn: Drawn | None) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.6 if drawn else 7.4, 0.6 + 0.32 * max(len(groups), 10)), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.75, 1))[0] if drawn else (figure, None)
    panels = left.subplots(1, len(HOW), sharey=True)
    for axes, how in zip(panels, HOW, strict=True):
        for number, name in enumerate(who):
            chosen = [row for row in rows if row["units"] == name and row["how"] == how]
            heights = [groups.index(row["group"]) + 0.2 * (number - 1) for row in chosen]
            values = [row["share"] for row in chosen]
            look = style(number)
            axes.hlines(heights, 0, values, color=look["color"], linewidth=1.2, alpha=0.55)
            axes.plot(values, heights, linestyle="", markersize=5, **look, label=name)
        axes.set_title(how, fontsize=9, loc="left")
        wide = max(row["share"] for row in rows if (row["how"] == HOW[0]) == (how == HOW[0]))
        axes.set_xlim(0, 1.08 * wide + 1e-4)
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.tick_params(labelsize=8)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="0.93", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_yticks(range(len(groups)), groups)
    panels[0].set_ylim(len(groups) - 0.5, -0.5)
    panels[1].set_xlabel("share of all units", fontsize=9)
    left.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    if right is not None and drawn is not None:
        _frequency(right, *drawn)
    return figure


def _frequency(part: Any, frequency: Tensor, owned: Owned, related: Mapping[str, Related]) -> None:
    axes, x = part.subplots(), frequency.log10().numpy()
    own = owned.own.numpy().astype(float)
    jitter = np.random.default_rng(0).uniform(-0.025, 0.025, len(x))
    axes.scatter(frequency, own + jitter, s=9, color=style(0)["color"], alpha=0.45, linewidths=0)
    for place in np.array_split(np.argsort(x), N_BINS):
        low, high = wilson(own[place].sum(), len(place))
        middle = 10 ** x[place].mean()
        axes.plot([middle, middle], [low, high], color="0.15", linewidth=1.3)
        axes.plot(middle, own[place].mean(), "o", color="0.15", markersize=4.5)
    span = np.linspace(x.min(), x.max(), 100)
    looks = {"latents": ("-", style(0)["color"]), OTHER_SEED: ((0, (4, 2)), "0.5")}
    for name, (line, colour) in looks.items():
        if name in related:
            slope = related[name].slope.spread
            chance = 1 / (1 + np.exp(-(related[name].intercept + slope.mean * span)))
            label = f"{name.removeprefix('latents, ')}: {slope.mean:+.2f} [{slope.low:+.2f}, {slope.high:+.2f}]"
            axes.plot(10**span, chance, linestyle=line, color=colour, linewidth=1.4, label=label)
    axes.set_xscale("log")
    axes.set_ylim(-0.06, 1.06)
    axes.set_xlabel("share of the training pictures", fontsize=9)
    axes.set_ylabel("has a latent of its own", fontsize=9)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        frameon=False, fontsize=7.5, loc="lower left", bbox_to_anchor=(0, 1.0), title="log odds per decade",
        title_fontsize=7.5, alignment="left",
    )  # fmt: skip
