"""The picture of association strengths: shares by planted rate with controls, and who answers to whom."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae.evaluation.pictures import style
from sae.lab.associations.strengths import Pairs, percent
from sae.lab.finding import Picture

MOST_MATRICES = 2
MOST_NAMES = 20
MOST_SHARE = 0.6


def picture(figures: Mapping[str, float], pairs: Pairs, shares: Float[Tensor, "owners classes"]) -> Picture:
    """Draw every control's shares by rate, and the latents' answers within the groups that hold most pairs."""
    rates = pairs.rates
    names = [name.removesuffix(", correlation") for name in figures if name.endswith(", correlation")]
    names = [name for name in names if not name.endswith("reversed")]
    rows = [
        {
            "units": name,
            "rate": rate,
            "rank_in_kin": figures[f"{name}, {percent(rate)}, rank in kin"],
            "low": figures[f"{name}, {percent(rate)}, rank in kin, low"],
            "high": figures[f"{name}, {percent(rate)}, rank in kin, high"],
            "share": figures[f"{name}, {percent(rate)}, share"],
            "share_of_kin": figures[f"{name}, {percent(rate)}, share of kin"],
        }
        for name in names
        for rate in rates
    ]
    matrices = [_matrix(pairs, shares, owners) for owners in _groups(pairs)[:MOST_MATRICES]]
    caption = (
        "Left: where the associate stands among its kin, classes of the same kind that never go with the owner (chance "
        "1/2; 95 % intervals over owners). Right: the answer of each owner's latent (rows) to pictures of each class "
        "(columns), as a share of its answer to the owner, above the mean of its row. Squares: planted pairs, "
        "dashed the rarer."
    )
    return Picture(lambda: _draw(rows, rates, matrices), rows, caption)


def _groups(pairs: Pairs) -> list[Tensor]:
    """Return owners with their associates in a common group of classes, the largest first."""
    kind = pairs.kind[pairs.owners]
    square = torch.zeros(len(pairs.names), len(pairs.names), dtype=torch.bool)
    square[pairs.owners] = pairs.rate > 0
    found: list[set[int]] = []
    for one in kind.unique().tolist():
        members = set(pairs.owners[kind == one].tolist())
        reached = {other for owner in members for other in square[owner].nonzero()[:, 0].tolist()}
        # Kinds whose owners bring one another along belong together, as the regions of several climates do.
        joined = members | (reached & set(pairs.owners.tolist()))
        for group in [group for group in found if group & joined]:
            found.remove(group)
            joined |= group
        found.append(joined)
    inner = [group for group in found if any(square[owner][list(group)].any() for owner in group)]
    return [torch.tensor(sorted(group)) for group in sorted(inner, key=len, reverse=True)]


def _matrix(pairs: Pairs, shares: Tensor, classes: Tensor) -> dict[str, Any]:
    """Return the answers of a group's latents to the group, and the planted pairs among them."""
    classes = classes[:MOST_NAMES]
    places = [(pairs.owners == one).nonzero()[0, 0].item() for one in classes.tolist()]
    values = shares[places][:, classes].clone()
    return {
        "names": [pairs.names[one] for one in classes.tolist()],
        "values": values.numpy(),
        "rate": pairs.rate[places][:, classes].numpy(),
    }


def _draw(rows: list[dict[str, Any]], rates: list[float], matrices: list[dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 + 4.1 * len(matrices), 4.5), layout="constrained")
    panels = figure.subplots(1, 1 + len(matrices), squeeze=False, width_ratios=[1.05] + [1.0] * len(matrices))[0]
    _dots(panels[0], rows, rates)
    image = None
    for axes, matrix in zip(panels[1:], matrices, strict=True):
        image = _heat(axes, matrix, rates)
    if image is not None:
        bar = figure.colorbar(image, ax=list(panels[1:]), shrink=0.55, aspect=18, pad=0.015)
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        bar.ax.tick_params(labelsize=7, length=2)
        bar.outline.set_visible(False)
    return figure


def _dots(axes: Any, rows: list[dict[str, Any]], rates: list[float]) -> None:
    names = list(dict.fromkeys(row["units"] for row in rows))
    for number, rate in enumerate(rates):
        look = style(number)
        for row in (row for row in rows if row["rate"] == rate):
            height = names.index(row["units"]) + 0.22 * (number - (len(rates) - 1) / 2)
            axes.plot([row["low"], row["high"]], [height, height], color=look["color"], linewidth=1.5)
            axes.plot(
                row["rank_in_kin"], height, linestyle="", markersize=6, **look,
                label=f"goes with it at {percent(rate)}" if row["units"] == names[0] else None,
            )  # fmt: skip
    axes.axvline(0.5, color="0.45", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    low, high = min(row["low"] for row in rows), max(row["high"] for row in rows)
    axes.set(
        xlim=(min(low - 0.03, 0.4), max(high + 0.03, 0.6)),
        ylim=(len(names) - 0.45, -0.55),
        xlabel="share of its kin that the unit answers less",
    )
    axes.set_yticks(range(len(names)), [name.replace(", ", ",\n") for name in names])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.xaxis.label.set_size(9)
    axes.tick_params(labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.93", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False, fontsize=8, handletextpad=0.3)


def _heat(axes: Any, matrix: dict[str, Any], rates: list[float]) -> Any:
    from matplotlib.patches import Rectangle

    values, names = matrix["values"].copy(), matrix["names"]
    np.fill_diagonal(values, np.nan)
    values -= np.nanmean(values, 1, keepdims=True)
    image = axes.imshow(values, cmap="RdBu_r", vmin=-MOST_SHARE, vmax=MOST_SHARE)
    axes.set_facecolor("0.88")
    for row, column in np.argwhere(matrix["rate"] > 0):
        strong = matrix["rate"][row, column] == rates[0]
        box = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, linewidth=1.5 if strong else 0.8, edgecolor="0.05")
        box.set_linestyle("-" if strong else (0, (2, 1.5)))
        axes.add_patch(box)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(labelsize=7, length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("planted: " + ", ".join(percent(rate) for rate in rates), fontsize=8, loc="left")
    return image
