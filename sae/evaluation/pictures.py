"""Plots of a report; every one is written as PNG, as PDF, and as the CSV it was drawn from."""

import csv
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae.errors import EvaluationError
from sae.evaluation.definitions import definition
from sae.evaluation.metric import Score
from sae.evaluation.report import DICTIONARY, Report

# Okabe and Ito's colours, which the colour-blind can tell apart, without yellow; markers say the same once more.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "0.45"
_CHARACTERS_PER_INCH = 17
"""Of a caption, in 7 points."""


def style(number: int) -> dict[str, str]:
    """Return colour and marker of the number-th of several things; 49 differ."""
    turn, place = divmod(number, len(_COLOURS))
    return {"color": _COLOURS[place], "marker": _MARKERS[(place + turn) % len(_MARKERS)]}


def label_scatter(report: Report, out: Path) -> Path:
    """Draw, for every label, the AUC of its best latent against that of its best raw neuron.

    Points above the diagonal are labels that a single latent separates better than any single neuron does.

    Args:
        report: one with label scores of dictionary and neurons.
        out: path without suffix; `.png`, `.pdf` and `.csv` are written.

    Raises:
        EvaluationError: the report has no label scores.
    """
    if not {DICTIONARY, "neurons"} <= report.details.get("labels", {}).keys():
        raise EvaluationError("label_scatter: the report has no label scores; evaluate on inputs with labels.")
    neurons = {row["label"]: row["auc"] for row in report.details["labels"]["neurons"]}
    rows = [
        {"label": row["label"], "latent_auc": row["auc"], "neuron_auc": neurons[row["label"]]}
        for row in report.details["labels"][DICTIONARY]
        if row["label"] in neurons
    ]
    figure, axes = _square_axes()
    families: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault(row["label"].partition("=")[0], []).append(row)
    for number, (family, chosen) in enumerate(sorted(families.items())):
        axes.scatter(
            [row["neuron_auc"] for row in chosen],
            [row["latent_auc"] for row in chosen],
            s=16,
            alpha=0.75,
            linewidths=0,
            label=f"{family} ({len(chosen)})",
            **style(number),
        )
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, zorder=0)
    low = min(0.47, *(min(row["latent_auc"], row["neuron_auc"]) - 0.02 for row in rows))
    axes.set(xlabel="best raw neuron, held-out AUC", ylabel="best latent, held-out AUC")
    axes.set(xlim=(low, 1.01), ylim=(low, 1.01))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.02), handletextpad=0.2)
    above = sum(row["latent_auc"] > row["neuron_auc"] for row in rows)
    axes.set_title(f"{_place(report)}\n{len(rows)} labels, {above} above the diagonal", fontsize=9, loc="left")
    return save_picture(figure, out, rows, caption_hashes(report.about))


def controls_picture(report: Report, metrics: Sequence[str], out: Path) -> Path:
    """Draw metrics of the dictionary and of all controls as dots with their intervals, one panel per metric.

    A hollow dot is a control from which the dictionary cannot be distinguished; a dashed line is chance.

    Args:
        report: one with controls.
        metrics: which scores of it to draw, at most four or so.
        out: path without suffix; `.png`, `.pdf` and `.csv` are written.

    Raises:
        EvaluationError: a metric is not in the report.
    """
    from matplotlib.figure import Figure

    names = [DICTIONARY, *report.controls]
    figure = Figure(figsize=(2.2 + 1.9 * len(metrics), 1.5 + 0.27 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    rows: list[dict[str, Any]] = []
    for axes, metric in zip(panels, metrics, strict=True):
        own = report[metric]
        scores = {name: own if name == DICTIONARY else report.score(metric, name) for name in names}
        for place, (name, score) in enumerate(scores.items()):
            if score is not None:
                rows.append(_dot(axes, report, name, score, place))
        meaning = definition(own.name, own.version)
        if meaning is not None and meaning.chance is not None:
            axes.axvline(meaning.chance, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        axes.axvline(own.value, color=_COLOURS[0], linewidth=0.6, alpha=0.5, zorder=0)
        direction = {"higher": " →", "lower": " ←", "neither": ""}[own.better]
        axes.set_title(metric.replace("_", " ") + direction, fontsize=9)
        axes.margins(x=0.12)
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(labelsize=8)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", color="0.93", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), names, fontsize=9)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    figure.suptitle(_place(report), fontsize=9, x=0.01, ha="left")
    note = "95 % intervals; hollow: not distinguishable from the dictionary; dashed: chance; arrow: towards better"
    return save_picture(figure, out, rows, f"{note}\n{caption_hashes(report.about)}")


def _dot(axes: Any, report: Report, name: str, score: Score, place: int) -> dict[str, Any]:
    """Draw one score and return it as a row of the CSV."""
    colour = _COLOURS[0] if name == DICTIONARY else "0.25"
    difference = report.difference(score.name, name)
    verdict = difference.verdict if difference else ""
    if score.interval:
        axes.plot(score.interval, (place, place), color=colour, linewidth=1.6, solid_capstyle="butt")
    fill = "white" if verdict == "not distinguishable" else colour
    axes.plot(score.value, place, "o", color=colour, markerfacecolor=fill, markersize=5.5, markeredgewidth=1.3)
    low, high = score.interval or ("", "")
    return {
        "metric": score.name,
        "who": name,
        "value": score.value,
        "low": low,
        "high": high,
        "dictionary_is": verdict,
    }


def caption_hashes(about: Mapping[str, Any]) -> str:
    """Return the short hashes of what a picture shows."""
    return f"dictionary {about['dictionary']['sha256'][:10]}, store {about['store']['sha256'][:10]}"


def save_picture(figure: Any, out: Path, rows: Sequence[Mapping[str, Any]], caption: str) -> Path:
    """Write a figure as PNG and PDF with the tidy data behind it as CSV; the caption goes below the axes.

    Returns:
        The path of the PNG.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    width, height = figure.get_size_inches()
    lines = [part for line in caption.splitlines() for part in textwrap.wrap(line, int(width * _CHARACTERS_PER_INCH))]
    below = (0.04 + 0.13 * len(lines)) / height
    figure.get_layout_engine().set(rect=(0, below, 1, 1 - below))
    figure.text(0.01, 0.02 / height, "\n".join(lines), fontsize=7, color=GREY, va="bottom")
    png = out.with_suffix(".png")
    figure.savefig(png, dpi=150)
    # Without a date the same figure is the same file.
    figure.savefig(out.with_suffix(".pdf"), metadata={"CreationDate": None})
    with out.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return png


def _place(report: Report) -> str:
    return f"{report.about['subject']['id']}  {report.about['hookpoint']}"


def _square_axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
