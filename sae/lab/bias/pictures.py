"""Pictures of an audit: judgements beside values, definitions of fairness, and one decision taken apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from sae.evaluation.pictures import style
from sae.lab.bias.decision import Account
from sae.lab.bias.fairness import Gap

BLUE, ORANGE = style(0)["color"], style(3)["color"]
MOST_BARS = 12


def draw_audit(
    judgements: Sequence[str],
    values: Sequence[str],
    goes_with: tuple[Float[Tensor, "judgements values"], Bool[Tensor, "judgements values"]],
    caused: tuple[Float[Tensor, "judgements values"], Bool[Tensor, "judgements values"]],
    definitions: Mapping[str, Mapping[str, Gap]],
) -> Any:
    """Draw what goes together, what looks cause, and the definitions for what was found."""
    from matplotlib.figure import Figure

    height = 1.4 + 0.2 * max(len(judgements), 8)
    figure = Figure(figsize=(11.5, height + 1.0), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.1, 1.0, 0.9))
    _heat(figure, left, judgements, values, goes_with, "judged so more often, as items come", percent=True)
    _heat(figure, middle, judgements, values, caused, "moved by looks alone, nats", percent=False)
    middle.set_yticks(range(len(judgements)), [""] * len(judgements))
    names = list(next(iter(definitions.values())))
    step = 0.7 / len(definitions)
    for number, (title, gaps) in enumerate(definitions.items()):
        for place, name in enumerate(names):
            gap, y = gaps[name], place - 0.35 + step * (number + 0.5)
            right.plot((gap.low, gap.high), (y, y), color=style(number)["color"], linewidth=1.5)
            right.plot(gap.value, y, markersize=5, **style(number), label=title if place == 0 else None, linestyle="")
    right.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    right.set_yticks(range(len(names)), names, fontsize=8)
    right.set_ylim(len(names) - 0.4, -0.6)
    right.tick_params(axis="x", labelsize=8)
    right.xaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
    right.set_title("definitions of fairness", fontsize=9, loc="left")
    right.spines[["top", "right", "left"]].set_visible(False)
    right.tick_params(axis="y", length=0)
    right.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -0.08))
    return figure


def _heat(
    figure: Any,
    axes: Any,
    judgements: Sequence[str],
    values: Sequence[str],
    shown: tuple[Any, Any],
    title: str,
    percent: bool,
) -> None:
    amounts, framed = shown[0].numpy(), shown[1].numpy()
    most = max(float(np.nanmax(np.abs(amounts), initial=0.0)), 1e-9)
    image = axes.imshow(amounts, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
    for row, column in np.argwhere(framed):
        axes.add_patch(_frame(column, row))
    axes.set_yticks(range(len(judgements)), judgements, fontsize=8)
    axes.set_xticks(
        range(len(values)), [one.replace("=", " ").replace("_", " ") for one in values], fontsize=7, rotation=90
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=9, loc="left")
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    if percent:
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")


def _frame(column: float, row: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.4)


def draw_decision(image: np.ndarray, told: Account, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Draw a picture beside what spoke for its judgement and against it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2.2))
    left.imshow(image, interpolation="nearest")
    left.set_axis_off()
    left.set_title(
        f"judged {told.judged} ({told.probability:.0%})\nahead of {told.rival} by {told.margin:.1f} nats", fontsize=9
    )
    chosen = sorted(range(len(rows)), key=lambda one: -abs(rows[one]["nats"]))[:MOST_BARS]
    keys = list(told.parts)
    for place, one in enumerate(chosen):
        colour = ORANGE if keys[one] in told.flip else BLUE if keys[one] >= 0 else "0.6"
        right.barh(place, rows[one]["nats"], color=colour, height=0.7)
        right.annotate(
            f"{rows[one]['nats']:+.1f}", (rows[one]["nats"], place), (3 if rows[one]["nats"] >= 0 else -3, 0),
            textcoords="offset points", va="center", ha="left" if rows[one]["nats"] >= 0 else "right", fontsize=8,
        )  # fmt: skip
    right.set_yticks(range(len(chosen)), [rows[one]["part"] for one in chosen], fontsize=8)
    right.set_ylim(len(chosen) - 0.4, -0.6)
    right.axvline(0, color="0.6", linewidth=0.8)
    right.margins(x=0.14)
    right.tick_params(axis="y", length=0)
    right.tick_params(axis="x", labelsize=8)
    right.set_xlabel(f"for {told.judged}, against {told.rival} (nats)", fontsize=8)
    after = f"without the orange ones it is judged {told.after}" if told.flip else "no removal changes it"
    right.set_title(after, fontsize=9, loc="left")
    right.spines[["top", "right", "left"]].set_visible(False)
    return figure
