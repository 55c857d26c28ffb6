"""The picture of an arithmetic: how often both parts are found, by the number of terms."""

from collections.abc import Mapping, Sequence
from typing import Any

from sae.evaluation.pictures import style
from sae.lab.finding import Picture

SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
"""Numbers of terms that the picture shows."""
KINDS: tuple[str, ...] = ("latents", "neurons", "random_directions")


def arithmetic_picture(curves: Sequence[Mapping[str, Any]], over_words: Mapping[str, float]) -> Picture:
    """Draw the share found over the number of terms.

    Args:
        curves: rows with side, units, terms and the share.
        over_words: by side, the share found over the simpler words.
    """
    return Picture(
        lambda: _draw(curves, over_words),
        curves,
        "Share of the mixtures both of whose parts a sum speaks of most, by the number of its terms; dashed: the sum "
        "over the simpler words.",
    )


def _draw(curves: Sequence[Mapping[str, Any]], over_words: Mapping[str, float]) -> Any:
    """Draw one panel per side: the share found over the number of terms, a line per set of units."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    for axes, (side, share) in zip(figure.subplots(1, 2, sharey=True), over_words.items(), strict=True):
        for number, name in enumerate(KINDS):
            chosen = [row for row in curves if (row["side"], row["units"]) == (side, name)]
            look = style(number)
            label, grey = name.replace("_", " "), name != KINDS[0]
            axes.plot(
                [row["terms"] for row in chosen],
                [row["both_parts"] for row in chosen],
                label=label,
                color="0.55" if grey else look["color"],
                marker=look["marker"],
                markersize=5,
                linewidth=1.2 if grey else 1.8,
                zorder=2 if grey else 3,
            )
        axes.axhline(share, color="0.3", linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_title(f"from the {side}", fontsize=9, loc="left")
        axes.set(xscale="log", ylim=(-0.03, 1.03), xlabel="terms")
        axes.set_xticks(SIZES, list(map(str, SIZES)))
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.tick_params(labelsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    figure.supylabel("both parts found", fontsize=9)
    return figure
