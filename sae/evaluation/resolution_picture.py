"""The picture of a polysemantic neuron beside the latents that take it apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae.evaluation.pictures import save_picture
from sae.evaluation.resolution import RESOLVED_AUC


def resolution_picture(rows: Sequence[Mapping[str, Any]], out: Path, caption: str) -> Path:
    """Draw how well a neuron, and the latent matched to each concept it mixes, detect these concepts.

    A neuron that is resolved has a first row of high values and below it a diagonal. What a latent carries of its
    concept into the neuron stands at its right.

    Args:
        rows: those of `resolution.resolution_details` of one neuron.
        out: path without suffix; `.png`, `.pdf` and `.csv` are written.
        caption: what the picture shows, in small print.

    Returns:
        The path of the PNG.
    """
    from matplotlib.figure import Figure

    concepts = [row["concept"] for row in rows]
    neuron = f"neuron {rows[0]['neuron']}"
    aucs = {neuron: {row["concept"]: row["neuron_auc"] for row in rows}}
    grid = [list(aucs[neuron].values())] + [[row["aucs"][concept] for concept in concepts] for row in rows]
    names = [neuron] + [f"latent {row['latent']}" for row in rows]
    figure = Figure(figsize=(3.4 + 0.72 * len(concepts), 1.7 + 0.42 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(grid, vmin=0.5, vmax=1, cmap="Blues", aspect="auto")
    for y, line in enumerate(grid):
        for x, auc in enumerate(line):
            weight = "bold" if auc > RESOLVED_AUC else "normal"
            axes.text(
                x, y, f"{auc:.2f}", ha="center", va="center", color="white" if auc > 0.8 else "0.25", weight=weight
            )
    for y, row in enumerate(rows, start=1):
        said = f"carries {row['share']:.0%}" if row["outcome"] == "resolved" else row["outcome"]
        axes.text(len(concepts) - 0.4, y, said, va="center", fontsize=8, color="0.2")
    axes.axhline(0.5, color="white", linewidth=4)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_xticks(range(len(concepts)), concepts, rotation=30, ha="left", fontsize=8)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, label="held-out AUC", pad=0.28, shrink=0.8)
    tidy = [
        {"unit": name, "concept": concept, "auc": auc}
        for name, line in zip(names, grid, strict=True)
        for concept, auc in zip(concepts, line, strict=True)
    ]
    return save_picture(figure, out, tidy, caption)
