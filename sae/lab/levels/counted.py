"""How many units of each kind something is true of, as a panel of a picture."""

from collections.abc import Sequence
from typing import Any

from sae.evaluation.pictures import GREY, style
from sae.features.judging.agreement import wilson


def called(kind: str) -> str:
    """Return what a picture calls units of a kind: random_direction are random directions."""
    return f"{kind.replace('_', ' ')}s"


def shares(axes: Any, kinds: Sequence[tuple[str, int, int]], chance: Sequence[float] = ()) -> None:
    """Draw the share of each kind of units, given as name, hits and number, with Wilson's 95 % intervals.

    Args:
        axes: to draw in.
        kinds: from top to bottom.
        chance: hits by chance of each, drawn as a grey line.
    """
    for number, (_, hits, n) in enumerate(kinds):
        if not n:
            axes.text(0.01, number, "none", va="center", fontsize=8, color=GREY)
            continue
        look = style(number)
        axes.plot(wilson(hits, n), [number] * 2, color=look["color"], linewidth=1.4)
        axes.plot(hits / n, number, linestyle="", markersize=6, **look)
        said = f"{hits:,} of {n:,}"
        axes.annotate(said, (hits / n, number), (3, 7), textcoords="offset points", fontsize=7.5, color=GREY)
    for number, (one, (_, _, n)) in enumerate(zip(chance, kinds, strict=bool(chance))):
        axes.plot([one / max(n, 1)] * 2, [number - 0.22, number + 0.22], color="0.6", linewidth=2, zorder=0)
    axes.set_yticks(range(len(kinds)), [name for name, _, _ in kinds], fontsize=9)
    axes.set_ylim(len(kinds) - 0.3, -0.7)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="x", color="0.93", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
