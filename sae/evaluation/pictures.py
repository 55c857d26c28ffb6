"""Plots of reports; every one is written as PNG, as PDF, and as the CSV it was drawn from."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae.errors import EvaluationError
from sae.evaluation.report import Report


def label_scatter(report: Report, out: Path) -> Path:
    """Draw, for every label, the AUC of its best latent against that of its best raw neuron.

    Points above the diagonal are labels that a single latent separates better than any single neuron does.

    Args:
        report: one with label scores.
        out: path without suffix; `.png`, `.pdf` and `.csv` are written.

    Raises:
        EvaluationError: the report has no label scores.
    """
    if "labels" not in report.details:
        raise EvaluationError("label_scatter: the report has no label scores; evaluate on inputs with labels.")
    rows = report.details["labels"]["labels"]
    from matplotlib import colormaps

    figure, axes = _square_axes()
    families = sorted({row["label"].partition("=")[0] for row in rows})
    for number, family in enumerate(families):
        chosen = [row for row in rows if row["label"].startswith(f"{family}=")]
        axes.scatter(
            [row["neuron_auc"] for row in chosen],
            [row["latent_auc"] for row in chosen],
            s=14,
            alpha=0.8,
            label=family,
            color=colormaps["tab20"](number % 20),
        )
    axes.plot([0.5, 1], [0.5, 1], color="0.6", linewidth=0.8, zorder=0)
    axes.set(
        xlabel="best raw neuron, held-out AUC", ylabel="best latent, held-out AUC", xlim=(0.45, 1.01), ylim=(0.45, 1.01)
    )
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    about = report.about
    axes.set_title(f"{about['subject']['id']}  {about['hookpoint']}\n{len(rows)} labels", fontsize=9, loc="left")
    return save_picture(figure, out, rows, caption_hashes(about))


def caption_hashes(about: Mapping[str, Any]) -> str:
    """Return the short hashes of what a picture shows."""
    return f"dictionary {about['dictionary']['sha256'][:10]}, store {about['store']['sha256'][:10]}"


def save_picture(figure: Any, out: Path, rows: Sequence[Mapping[str, Any]], caption: str) -> Path:
    """Write a figure as PNG and PDF with the tidy data behind it as CSV; the caption goes below the axes.

    Returns:
        The path of the PNG.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.97))
    figure.text(0.01, 0.008, caption, fontsize=6, color="0.4")
    png = out.with_suffix(".png")
    figure.savefig(png, dpi=150)
    # Without a date the same figure is the same file.
    figure.savefig(out.with_suffix(".pdf"), metadata={"CreationDate": None})
    with out.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return png


def _square_axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
