"""Plots of several dictionaries: what one score costs in another, and all scores at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae.errors import EvaluationError
from sae.evaluation.compare import CONTROL, Comparison
from sae.evaluation.definitions import definition
from sae.evaluation.metric import Score
from sae.evaluation.pictures import GREY, save_picture, style

_DASHES = (0, (4, 3))


@dataclass(frozen=True)
class Panel:
    """Two metrics against each other; `lost` draws one minus the vertical one, the share that is not recovered."""

    x: str
    y: str
    lost: bool = False


PANELS = (
    Panel("l0", "fvu"),
    Panel("l0", "ce_recovered", lost=True),
    Panel("l0", "zero_shot_ce_recovered", lost=True),
    Panel("fvu", "monosemantic_share"),
    Panel("fvu", "label_auc"),
)


def pareto_picture(comparison: Comparison, out: Path) -> Path:
    """Draw what sparsity costs in reconstruction and in the subject's loss, and what reconstruction in clarity.

    The grey line joins the dictionaries that no other one beats on both axes, the dashed one is the level of the raw
    neurons. Panels whose metrics the reports lack are left out.

    Args:
        comparison: of two dictionaries or more.
        out: path without suffix; `.png`, `.pdf` and `.csv` are written.

    Raises:
        EvaluationError: the reports have the metrics of no panel.
    """
    from matplotlib.figure import Figure

    panels = [panel for panel in PANELS if _shared(comparison, panel.x) and _shared(comparison, panel.y)]
    if not panels:
        raise EvaluationError("pareto_picture: the reports share neither fvu and l0 nor any other pair that is drawn.")
    n_columns = min(2, len(panels))
    n_rows = math.ceil(len(panels) / n_columns)
    figure = Figure(figsize=(3.6 * n_columns, 0.5 + 2.7 * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    rows: list[dict[str, Any]] = []
    for axes, panel in zip(grid, panels, strict=False):
        rows += _draw_panel(axes, comparison, panel)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    # The last panel has what all others have too.
    handles, labels = grid[len(panels) - 1].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside upper left", ncols=3, handletextpad=0.2)
    return save_picture(figure, out, rows, _caption(comparison))


def profile_picture(comparison: Comparison, out: Path) -> Path:
    """Draw every shared metric on an axis of its own, better to the right, and a line through each dictionary's dots.

    An axis runs from chance, or else from the worst possible value, to the best possible one; where these are
    infinite, or a value lies below chance, as far as the values go. The raw neurons are the dashed line.

    Args:
        comparison: of two dictionaries or more.
        out: path without suffix; `.png`, `.pdf` and `.csv` are written.

    Raises:
        EvaluationError: the reports share no metric that has a better direction.
    """
    from matplotlib.figure import Figure

    shared = [metric for metric in comparison.metrics if _shared(comparison, metric) and _directed(comparison, metric)]
    if not shared:
        raise EvaluationError("profile_picture: the reports share no metric of which more or less is better.")
    figure = Figure(figsize=(7.2, 1.3 + 0.36 * len(shared)), layout="constrained")
    axes = figure.add_subplot()
    lines: dict[str, list[tuple[float, int]]] = {name: [] for name in (*comparison.reports, CONTROL)}
    rows: list[dict[str, Any]] = []
    for place, metric in enumerate(shared):
        scores = comparison.scores(metric)
        if (control := comparison.control(metric)) is not None and math.isfinite(control.value):
            scores[CONTROL] = control
        ends = _ends(list(scores.values()))
        _draw_axis(axes, ends, place)
        for name, score in scores.items():
            lines[name].append((_along(score.value, ends), place))
            rows.append({"metric": metric, "who": name, "value": score.value, "worst": ends[0], "best": ends[1]})
    for number, (name, points) in enumerate(lines.items()):
        looks: dict[str, Any] = {"linestyle": "-", "linewidth": 1.2, "markersize": 5.5, **style(number)}
        if name == CONTROL:
            looks |= {"linestyle": _DASHES, "color": GREY, "marker": "d", "markerfacecolor": "white", "zorder": 2}
        if points:
            axes.plot(*zip(*points, strict=True), alpha=0.9, label=name, **looks)
    axes.set_yticks(range(len(shared)), [metric.replace("_", " ") for metric in shared], fontsize=9)
    axes.set(ylim=(len(shared) - 0.5, -0.7), xlim=(-0.13, 1.13), xticks=[0, 1])
    axes.set_xticklabels(["worse", "better"], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.legend(frameon=False, fontsize=8, loc="outside upper left", ncols=3)
    return save_picture(figure, out, rows, _caption(comparison))


def _shared(comparison: Comparison, metric: str) -> bool:
    scores = comparison.scores(metric)
    return len(scores) == len(comparison.reports) and all(math.isfinite(score.value) for score in scores.values())


def _directed(comparison: Comparison, metric: str) -> bool:
    return next(iter(comparison.scores(metric).values())).better != "neither"


def _draw_panel(axes: Any, comparison: Comparison, panel: Panel) -> list[dict[str, Any]]:
    """Draw one panel and return its points as rows of the CSV."""
    across, along = comparison.scores(panel.x), comparison.scores(panel.y)
    rows = []
    for number, name in enumerate(comparison.reports):
        x, y = _point(across[name]), _point(along[name], panel.lost)
        looks = style(number)
        axes.errorbar(
            x[0],
            y[0],
            xerr=[[x[0] - x[1]], [x[2] - x[0]]],
            yerr=[[y[0] - y[1]], [y[2] - y[0]]],
            elinewidth=1,
            markersize=6,
            color=looks["color"],
            fmt=looks["marker"],
            label=name,
        )
        keys = ("x", "x_low", "x_high", "y", "y_low", "y_high")
        values = dict(zip(keys, (*x, *y), strict=True))
        rows.append({"x_metric": panel.x, "y_metric": panel.y, "lost": panel.lost, "dictionary": name, **values})
    sign = -1 if panel.lost or along[name].better == "lower" else 1
    front = _front([(row["x"], sign * row["y"]) for row in rows])
    axes.plot(*zip(*((x, sign * y) for x, y in front), strict=True), color="0.7", linewidth=1, zorder=0)
    control = comparison.control(panel.y)
    if panel.x == "fvu" and control is not None:
        axes.axhline(control.value, color=GREY, linewidth=1, linestyle=_DASHES, zorder=0, label=f"raw {CONTROL}")
    axes.margins(0.12)
    name = panel.y.replace("_", " ")
    axes.set_xlabel(panel.x.replace("_", " "), fontsize=9)
    axes.set_ylabel(f"1 - {name}" if panel.lost else name, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return rows


def _point(score: Score, lost: bool = False) -> tuple[float, float, float]:
    """Return value, low and high end of the interval; the value thrice where there is none."""
    low, high = score.interval or (score.value, score.value)
    return (1 - score.value, 1 - high, 1 - low) if lost else (score.value, low, high)


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other one beats by a smaller x and a larger y, by growing x."""
    kept: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or y > kept[-1][1]:
            kept.append((x, y))
    return kept


def _ends(scores: Sequence[Score]) -> tuple[float, float]:
    """Return the worst and the best value of an axis."""
    values = [end for score in scores for end in (score.value, *(score.interval or ()))]
    lower = scores[0].better == "lower"
    worst_value, best_value = (max(values), min(values)) if lower else (min(values), max(values))
    meaning = definition(scores[0].name, scores[0].version)
    if meaning is None:
        return worst_value, best_value
    worst, best = reversed(meaning.bounds) if lower else meaning.bounds
    if meaning.chance is not None:
        worst = max(meaning.chance, worst_value) if lower else min(meaning.chance, worst_value)
    return worst if math.isfinite(worst) else worst_value, best if math.isfinite(best) else best_value


def _along(value: float, ends: tuple[float, float]) -> float:
    worst, best = ends
    return 0.5 if worst == best else (value - worst) / (best - worst)


def _draw_axis(axes: Any, ends: tuple[float, float], place: int) -> None:
    """Draw the axis of one metric with the values at its ends."""
    axes.plot((0, 1), (place, place), color="0.88", linewidth=1, zorder=0)
    for x, value, side in ((-0.02, ends[0], "right"), (1.02, ends[1], "left")):
        axes.text(x, place, f"{value:.3g}", fontsize=8, color=GREY, ha=side, va="center")


def _caption(comparison: Comparison) -> str:
    hashes = ", ".join(
        f"{name}: {report.about['dictionary']['sha256'][:10]}" for name, report in comparison.reports.items()
    )
    about = next(iter(comparison.reports.values())).about
    return f"{about['subject']['id']} {about['hookpoint']}, store {about['store']['sha256'][:10]}\n{hashes}"
