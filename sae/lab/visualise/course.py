"""How pictures come about: what their units say at every step, with the intermediate pictures beside."""

from typing import Any

import numpy as np

from sae.evaluation.pictures import GREY, style
from sae.lab.finding import Picture, unit_name
from sae.lab.visualise.chosen import Chosen
from sae.lab.visualise.judge import as_frames
from sae.lab.visualise.optimise import Visualised

ROWS = 6
"""Units that are drawn, the first ones."""
N_POINTS = 64
"""Steps, evenly spaced, that the table has at most."""


def course_picture(title: str, chosen: Chosen, made: Visualised, copies: int) -> Picture:
    """Draw the pre-activations of units over the steps of their ascent, beside the pictures kept on the way.

    Args:
        title: what and how is visualised.
        chosen: the units.
        made: their pictures, so many copies for each in turn; the first copy is drawn.
        copies: how many.
    """
    course = made.course[:, ::copies].double().numpy() / chosen.strong.detach().clamp_min(1e-6).double().numpy()
    steps = np.unique(np.linspace(0, len(course) - 1, min(N_POINTS, len(course))).round().astype(int)).tolist()
    rows = [
        {"unit": unit_name(chosen.name, unit), "step": step, "of_strong": round(float(course[step, place]), 4)}
        for place, unit in enumerate(chosen.numbers.tolist())
        for step in steps
    ]
    caption = (
        f"{title}: pre-activation at every step, of the picture moved, turned and recoloured as that step sees it, in "
        "units of the 99th percentile of the latent's activations on data (dashed). Beside it the picture at the steps "
        "that are marked, and the last one."
    )
    return Picture(lambda: _draw(course, chosen.numbers.tolist(), made, copies), rows, caption)


def _draw(course: np.ndarray, units: list[int], made: Visualised, copies: int) -> Any:
    from matplotlib.figure import Figure

    shown, moments = units[:ROWS], sorted(made.kept)
    frames = [as_frames(made.kept[step])[::copies] for step in moments] + [as_frames(made.pictures)[::copies]]
    names = [f"step {step}" for step in moments] + [f"after {len(course)}"]
    size = (3.6 + 1.0 * len(frames), 1.05 * len(shown) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)  # type: ignore[union-attr]
    grid = figure.add_gridspec(len(shown), 1 + len(frames), width_ratios=[2.9, *[1.0] * len(frames)])
    first: Any = None
    for row, unit in enumerate(shown):
        axes = figure.add_subplot(grid[row, 0], sharex=first, sharey=first)
        first = first or axes
        axes.plot(course[:, row], color=style(0)["color"], linewidth=1.2)
        axes.plot(moments, course[moments, row], linestyle="", marker="o", markersize=3.5, color=style(0)["color"])
        axes.axhline(1, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axes.set_ylabel(str(unit), fontsize=8, rotation=0, ha="right", va="center", labelpad=6)
        axes.tick_params(labelsize=7, labelbottom=row == len(shown) - 1)
        axes.spines[["top", "right"]].set_visible(False)
        for column, (name, of_step) in enumerate(zip(names, frames, strict=True), 1):
            cell = figure.add_subplot(grid[row, column])
            cell.imshow(of_step[row].permute(1, 2, 0).numpy(), interpolation="lanczos")
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_visible(False)
            if row == 0:
                cell.set_title(name, fontsize=8)
    first.set_title("pre-activation, of a strong one on data", fontsize=8, loc="left")
    axes.set_xlabel("step", fontsize=8)
    return figure
