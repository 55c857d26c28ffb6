"""The pictures of an atlas: its mosaic, where labels lie, and how far neighbours agree."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from torch import Tensor

from sae.lab.atlas.cells import Atlas
from sae.lab.finding import Picture

PAPER = 255
MOST_COLOURS, MOST_BARS = 12, 8
COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7F3C8D", "#A5AA99", "#8C564B", "#1B9E77",
    "#E7298A", "#666666",
)  # fmt: skip


def mosaic(
    cells: Int[np.ndarray, "cells 2"], frames: Sequence[UInt8[np.ndarray, "height width 3"]], n_cells: int
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Put the cells' pictures where they lie, y upwards; empty cells are white."""
    height, width = frames[0].shape[:2]
    whole = np.full((n_cells * height, n_cells * width, 3), PAPER, dtype=np.uint8)
    for (column, row), frame in zip(cells.tolist(), frames, strict=True):
        top = (n_cells - 1 - row) * height
        whole[top : top + height, column * width : (column + 1) * width] = frame
    return whole


def atlas_picture(
    atlas: Atlas,
    frames: Sequence[UInt8[np.ndarray, "height width 3"]],
    colours: tuple[Tensor, tuple[str, ...]],
    figures: Mapping[str, float],
    rows: Sequence[Mapping[str, Any]],
) -> Picture:
    """Draw the mosaic, the items coloured by a family of labels, and agreement beside shuffled places."""
    caption = (
        f"Left: one vector of each of {figures['items']:.0f} pictures, laid out by UMAP of the cosines; every cell "
        f"shows the picture nearest to the mean of its vectors. Right: the same pictures by label; and how often items "
        "of cells side by side have the same label (dots), where the same cells lie in shuffled places (bars: 95 %), "
        "and within a cell (circles)."
    )
    whole = mosaic(atlas.cells.numpy(), frames, atlas.n_cells)
    return Picture(lambda: _draw(atlas, whole, colours, figures), rows, caption)


def _draw(
    atlas: Atlas, whole: np.ndarray, colours: tuple[Tensor, tuple[str, ...]], figures: Mapping[str, float]
) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.2, 8.0), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.9, 1))[0]
    axes = left.subplots()
    axes.imshow(whole, interpolation="antialiased", extent=(0, atlas.n_cells, 0, atlas.n_cells))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    above, below = right.subplots(2, 1, height_ratios=(1.15, 1))
    _items(above, atlas, *colours)
    _agreement(below, figures)
    return figure


def visualised_picture(
    atlas: Atlas,
    shown: Mapping[str, Sequence[UInt8[np.ndarray, "height width 3"]]],
    figures: Mapping[str, float],
    rows: Sequence[Mapping[str, Any]],
) -> Picture:
    """Draw the mosaics of both ways side by side, and how often a picture is nearest to what it is of."""
    caption = (
        "Left: every cell's mean, less that of all items, visualised: optimised for the dot product times the cosine. "
        "Middle: the real picture whose vector is nearest to it. Right: how often the subject's own vector of a "
        "picture is nearest to the mean of the cell that it is of (95 % intervals); the same for visualisations of "
        "cells with shuffled items and of random directions, each among as many of its kind; and their mean cosine."
    )
    wholes = {way: mosaic(atlas.cells.numpy(), frames, atlas.n_cells) for way, frames in shown.items()}
    return Picture(lambda: _draw_both(wholes, figures), rows, caption)


def _draw_both(wholes: Mapping[str, np.ndarray], figures: Mapping[str, float]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14.6, 6.2), layout="constrained")
    *mosaics, right = figure.subplots(1, len(wholes) + 1, width_ratios=[1.0] * len(wholes) + [0.32])
    for axes, (way, whole) in zip(mosaics, wholes.items(), strict=True):
        axes.imshow(whole, interpolation="antialiased")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_title(way, fontsize=10, loc="left")
    names = [name.removesuffix(", nearest to its own") for name in figures if name.endswith(", nearest to its own")]
    for place, name in enumerate(names):
        of = [figures[f"{name}, nearest to its own{part}"] for part in ("", ", low", ", high")]
        colour = COLOURS[0] if place < 2 else "0.6"
        right.plot(of[1:], [place, place], color=colour, linewidth=2.5)
        right.plot(of[0], place, "o", color=colour, markersize=7)
        right.plot(figures[f"{name}, cosine to its own"], place, "|", color=colour, markersize=11, markeredgewidth=2)
    right.set_yticks(range(len(names)), [name.replace(" ", "\n") for name in names])
    right.set_ylim(len(names) - 0.5, -0.5)
    right.set_xlim(0, 1.03)
    right.set_xlabel("nearest to its own (dots)\nmean cosine (ticks)", fontsize=9)
    right.tick_params(labelsize=8)
    right.tick_params(axis="y", length=0)
    right.grid(axis="x", color="0.93", linewidth=0.8)
    right.set_axisbelow(True)
    right.set_box_aspect(1.6)
    right.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _items(axes: Any, atlas: Atlas, values: Tensor, names: tuple[str, ...]) -> None:
    order = values[values >= 0].bincount().argsort(descending=True)[:MOST_COLOURS].tolist()
    for number, one in enumerate(order):
        chosen = (values == one).numpy()
        axes.scatter(*atlas.place[chosen].T, s=3, linewidths=0, alpha=0.7, color=COLOURS[number], label=names[one])
    low, high = np.quantile(atlas.place, [0.002, 0.998], axis=0)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), box_aspect=1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("0.85")
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=4, fontsize=7.5, frameon=False, markerscale=3,
        handletextpad=0.1, columnspacing=0.8, labelspacing=0.3,
    )  # fmt: skip


def _agreement(axes: Any, figures: Mapping[str, float]) -> None:
    names = [name.removesuffix(", neighbours agree") for name in figures if name.endswith(", neighbours agree")]
    names = sorted(names, key=lambda name: figures[f"{name}, shuffled"] - figures[f"{name}, neighbours agree"])[
        :MOST_BARS
    ]
    for place, name in enumerate(names):
        low, high = figures[f"{name}, shuffled, low"], figures[f"{name}, shuffled, high"]
        axes.plot([low, high], [place, place], color="0.6", linewidth=5, solid_capstyle="butt")
        axes.plot(figures[f"{name}, neighbours agree"], place, "o", color=COLOURS[0], markersize=6)
        axes.plot(
            figures[f"{name}, within a cell"], place, "o", color=COLOURS[0], markersize=6, markerfacecolor="white",
            zorder=1,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel("two items have the same label", fontsize=9)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.tick_params(labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.93", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
