"""The pictures of attacks, of what defends against them, and of attacks that nobody made."""

from collections.abc import Sequence
from typing import Any

import torch

from sae.evaluation.pictures import style
from sae.lab.typography.defence import CLEAN, MOST_LOSS, WRITTEN
from sae.lab.typography.defences import AS_ACTIVE, RANDOM, READING
from sae.lab.typography.stroop import CONDITIONS
from sae.lab.typography.written import READERS, succeeded

_SHOWN = 8


def attack(found: Any, bed: Any) -> Any:
    """Draw a gallery of successful attacks, success by manner, and Stroop's test."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.25, 2)).flat  # type: ignore[union-attr]
    _gallery(above, bed)
    left, right = below.subplots(1, 2, width_ratios=(1.5, 1))
    _manners(left, found.tried)
    _stroop(right, found.stroop)
    return figure


def _gallery(figure: Any, bed: Any) -> None:
    answers, names = bed.untouched(), bed.pairs.names
    wins = succeeded(answers[WRITTEN], answers[CLEAN], bed.pairs.word)[:, 0]
    shown = (wins & (answers[CLEAN][:, 0] == bed.pairs.truth)).nonzero()[:, 0]
    chosen = shown[torch.linspace(0, len(shown) - 1, min(_SHOWN, len(shown))).long()] if len(shown) else shown
    grid = figure.subplots(2, _SHOWN)
    for axes in grid.flat:
        axes.axis("off")
    for place, item in enumerate(chosen.tolist()):
        for row, (kind, number) in enumerate(((CLEAN, bed.pairs.truth[item]), (WRITTEN, bed.pairs.word[item]))):
            grid[row, place].imshow(bed.images[kind][item].permute(1, 2, 0).numpy())
            grid[row, place].set_title(names[int(number)], fontsize=8, pad=2)


def _manners(axes: Any, tried: Sequence[dict[str, Any]]) -> None:
    labels = [f"{row['manner']} ({row['pixels']:.0%})" for row in tried]
    factors = list(dict.fromkeys(row["varied"] for row in tried))
    places = [i + 0.5 * factors.index(row["varied"]) for i, row in enumerate(tried)]
    colours = [style(factors.index(row["varied"]))["color"] for row in tried]
    axes.barh(places, [row[f"succeeds, {READERS[0]}"] for row in tried], height=0.7, color=colours, alpha=0.85)
    probe = [row[f"succeeds, {READERS[1]}"] for row in tried]
    axes.plot(probe, places, "D", color="0.25", markersize=4, label=READERS[1])
    axes.set_yticks(places, labels, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="answers that become the written word")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_title("by size, place and font", fontsize=9, loc="left")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)


def _stroop(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    rows = [row for row in rows if row["read by"] == READERS[0]]
    place, ticks = 0.0, []
    for over in dict.fromkeys(row["word over"] for row in rows):
        for condition in CONDITIONS:
            row = next(one for one in rows if (one["word over"], one["condition"]) == (over, condition))
            axes.barh(place - 0.19, row["what is shown"], height=0.34, color=style(0)["color"])
            if row["what is written"] != "":
                axes.barh(place + 0.19, row["what is written"], height=0.34, color=style(3)["color"])
            ticks.append((place, f"{over}, {condition}"))
            place += 1
        place += 0.4
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of answers")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    for label, number in (("what is shown", 0), ("what is written", 3)):
        axes.barh(0, 0, color=style(number)["color"], label=label)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -0.16), ncols=2)
    axes.set_title("Stroop's test, zero-shot", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def defence(found: Any) -> Any:
    """Draw success against clean accuracy, and what is left of reading words alone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.8, 4.2), layout="constrained")
    left, right, names = figure.subplots(1, 3, width_ratios=(1.3, 1, 0.62))
    start = next(iter(found.points.values()))[0]
    for number, (name, points) in enumerate(found.points.items()):
        best, looks = points[found.picked[name]], _looks(number, name)
        for axes, share in ((left, "clean"), (right, "words")):
            across, up = [getattr(one, share)[0] for one in points], [one.success[0] for one in points]
            axes.plot(across, up, markersize=3.5, markerfacecolor="white", markeredgewidth=0.8, **looks)
            axes.plot(getattr(best, share)[0], best.success[0], markersize=8, zorder=5, **looks)
        names.plot([], [], markersize=6, label=f"{name} ({best.amount:g})", **looks)
    low = start.clean[0] - MOST_LOSS
    left.fill_between([low, 1], 0, start.success[0] / 2, color="0.9", zorder=0, linewidth=0)
    left.set(xlabel="clean accuracy", ylabel="attacks that succeed")
    left.set_xlim(start.clean[0] - 0.1, start.clean[0] + 0.015)
    right.set(xlabel="words alone that are read", xlim=(-0.02, 1.02))
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.spines[["top", "right"]].set_visible(False)
    names.axis("off")
    names.legend(loc="center left", frameon=False, fontsize=8, labelspacing=0.9, borderpad=0)
    return figure


def _looks(number: int, name: str) -> dict[str, Any]:
    """Return colour, marker and line: latents that read are blue, random ones grey."""
    marker = style(number)["marker"]
    if name in READING:
        place = READING.index(name)
        lines = ("-", "--", ":", "-.")
        return {"color": style(0)["color"], "marker": marker, "linestyle": lines[place], "linewidth": 1.6 - 0.2 * place}
    if name in (RANDOM, AS_ACTIVE):
        return {"color": "0.55", "marker": marker, "linestyle": "-" if name == RANDOM else "--", "linewidth": 1.1}
    return {"color": style(1 + number % 5)["color"], "marker": marker, "linestyle": "-", "linewidth": 1.1}


def wild(found: Any) -> Any:
    """Draw the pictures whose wrong answer is the word in them, those that are explained first."""
    from matplotlib.figure import Figure

    rows = found.rows()
    order = sorted(range(len(rows)), key=lambda i: _rank(rows[i]))[: 3 * _SHOWN]
    place_of = {int(item): i for i, item in enumerate(found.items.tolist())}
    lines = -(-len(order) // _SHOWN)
    figure = Figure(figsize=(9.6, 2.0 * lines), layout="constrained")
    grid = figure.subplots(lines, _SHOWN, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for place, i in enumerate(order):
        row, axes = rows[i], grid.flat[place]
        axes.imshow(found.images[place_of[row["item"]]].permute(1, 2, 0).numpy())
        axes.set_title(
            f"{row['shown']}\nanswer: {row['answer']}\nlatents removed: {row['without the latents']}\n"
            f"painted over: {row['painted over'] or '?'}", fontsize=6, pad=2,
        )  # fmt: skip
    return figure


def _rank(row: dict[str, Any]) -> int:
    """Put first what both removals put right, then what either does."""
    return -sum(row[name] == row["shown"] for name in ("without the latents", "painted over"))
