"""The picture of tuning curves: units in the order of what they prefer, single curves, all factors with controls."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sae.evaluation.pictures import style
from sae.lab.finding import Picture
from sae.lab.tuning.sweeps import Sweep
from sae.lab.tuning.tuned import Tuned

WORDS = (
    (0.0, "red"), (0.075, "orange"), (0.155, "yellow"), (0.35, "green"), (0.49, "cyan"), (0.62, "blue"),
    (0.77, "purple"), (0.92, "pink"),
)  # fmt: skip
N_CURVES, CLEAR = 5, 0.1
UNITS = ("latents", "neurons", "random directions")


def tuning_picture(
    sweeps: Mapping[str, Sweep], found: Mapping[str, Mapping[str, Tuned]], figures: Mapping[str, float]
) -> Picture:
    """Draw the first factor's latents by what they prefer, some of their curves, and every factor beside controls."""
    first = next(iter(sweeps))
    rows = [
        {
            "factor": factor,
            "units": who,
            "explained": figures[f"{factor}, {who}, explained"],
            "explained_by_chance": figures[f"{factor}, {who}, explained by chance"],
            "tuned": figures[f"{factor}, {who}, tuned"],
            "tuned_by_chance": figures[f"{factor}, {who}, tuned by chance"],
            "step_like": figures.get(f"{factor}, {who}, step-like", ""),
            "width": figures.get(f"{factor}, {who}, width", ""),
        }
        for factor in sweeps
        for who in UNITS
    ]
    caption = (
        f"Left: latents of which {first} explains at least {CLEAR:.0%}, each a row, in the order of what they prefer "
        "on half of the pictures, shown on the other. Middle: the latents that it explains best. Right: the share of "
        "variance within pictures that a factor explains, mean over all units, and how many tuned units a step fits "
        "better than a smooth bump (95 % intervals over units). Grey: what is explained with dealt levels, in 95 % of "
        "the deals."
    )
    if of_classes := [factor for factor, sweep in sweeps.items() if sweep.n_classes]:
        caption += (
            f" {', '.join(of_classes)}: of the variance between classes, of which half is scored by the curve of the "
            "other half, and among which levels are dealt."
        )
    return Picture(lambda: _draw(sweeps[first], found[first]["latents"], rows, figures), rows, caption)


def _draw(sweep: Sweep, tuned: Tuned, rows: list[dict[str, Any]], figures: Mapping[str, float]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.4, 4.4), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, squeeze=False, width_ratios=(1.0, 1.1, 1.55))[0]
    _heat(left, sweep, tuned)
    _lines(middle, sweep, tuned)
    explained, steps = right.subplots(1, 2, sharey=True)
    _dots(explained, rows, "explained", figures)
    _dots(steps, rows, "step_like", figures)
    explained.set_xlabel("variance explained", fontsize=9)
    steps.set_xlabel("tuned units that a step fits better", fontsize=9)
    steps.axvline(0.5, color="0.45", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    steps.set_xlim(0, 1)
    explained.set_xlim(left=0)
    right.legend(*explained.get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    return figure


def _strip(axes: Any, sweep: Sweep) -> None:
    """Paint hues below an axis, and name the colours that the world has words for; other factors get numbers."""
    if sweep.factor != "hue":
        axes.set_xlabel(sweep.factor, fontsize=9)
        return
    from matplotlib.colors import hsv_to_rgb

    hues = np.linspace(0, 1, 240, endpoint=False)
    colours = hsv_to_rgb(np.stack([hues, 0.85 * np.ones_like(hues), 0.92 * np.ones_like(hues)], 1))[None]
    strip = axes.inset_axes((0, -0.055, 1, 0.04))
    strip.imshow(colours, aspect="auto", extent=(0, 1, 0, 1))
    strip.set_yticks([])
    strip.set_xticks([place for place, _ in WORDS], [word for _, word in WORDS], rotation=60, fontsize=7)
    strip.tick_params(length=2)
    strip.spines[:].set_visible(False)
    axes.set_xticks([])


def _heat(part: Any, sweep: Sweep, tuned: Tuned) -> None:
    axes, curves = part.subplots(), tuned.curves
    units = (curves.explained > max(CLEAR, tuned.bar)).nonzero()[:, 0]
    if len(units):
        units = units[curves.match[units].argmax(1).argsort(stable=True)]
        shown = curves.score[units]
        shown = shown / shown.abs().amax(1, keepdim=True).clamp(min=1e-12)
        low, high = sweep.values[0], _end(sweep)
        axes.imshow(
            shown.numpy(), aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest",
            extent=(low, high, len(units), 0),
        )  # fmt: skip
    axes.set_yticks([])
    axes.set_title(f"{len(units)} latents of which {sweep.factor} explains {CLEAR:.0%}", fontsize=9, loc="left")
    axes.spines[:].set_visible(False)
    _strip(axes, sweep)


def _end(sweep: Sweep) -> float:
    return 2 * sweep.values[-1] - sweep.values[-2] if sweep.circular else sweep.values[-1]


def _lines(part: Any, sweep: Sweep, tuned: Tuned) -> None:
    """Draw the held-out curves of the latents that are explained best, no two of which prefer the same level."""
    axes = part.subplots()
    preferred, picked = tuned.curves.preferred, []
    for unit in tuned.curves.explained.argsort(descending=True).tolist():
        taken = [int(preferred[other]) for other in picked]
        if all(abs(int(preferred[unit]) - other) > 1 for other in taken):
            picked.append(unit)
        if len(picked) == N_CURVES:
            break
    places = torch.tensor(sweep.values)
    for number, unit in enumerate(sorted(picked, key=lambda one: int(preferred[one]))):
        curve = tuned.curves.score[unit]
        look = _hue(sweep, preferred[unit]) or style(number)["color"]
        axes.plot(
            places, curve / tuned.curves.score[unit].abs().max(), color=look, linewidth=1.6, marker=".", markersize=3,
            label=f"{unit} ({float(tuned.curves.explained[unit]):.2f})",
        )  # fmt: skip
    axes.axhline(0, color="0.85", linewidth=0.8, zorder=0)
    axes.set_title("latent (share explained)", fontsize=9, loc="left")
    axes.set_xlim(sweep.values[0], _end(sweep))
    axes.set_ylabel("answer, of its largest", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.06), handlelength=1.2)
    _strip(axes, sweep)


def _hue(sweep: Sweep, level: Any) -> Any:
    if sweep.factor != "hue":
        return None
    from matplotlib.colors import hsv_to_rgb

    return tuple(hsv_to_rgb((sweep.values[int(level)], 0.85, 0.8)))


def _dots(axes: Any, rows: list[dict[str, Any]], key: str, figures: Mapping[str, float]) -> None:
    factors = list(dict.fromkeys(row["factor"] for row in rows))
    for number, who in enumerate(UNITS):
        look = style(number)
        for row in (row for row in rows if row["units"] == who and row[key] != ""):
            height = factors.index(row["factor"]) + 0.2 * (number - 1)
            name = f"{row['factor']}, {who}, {key.replace('_', '-')}"
            if key == "explained":
                chance = [figures[f"{name} by chance, {end}"] for end in ("low", "high")]
                axes.plot(chance, [height] * 2, color="0.82", linewidth=5, solid_capstyle="butt", zorder=0)
            axes.plot(
                [figures[f"{name}, low"], figures[f"{name}, high"]], [height] * 2, color=look["color"], linewidth=1.4
            )
            axes.plot(
                row[key], height, linestyle="", markersize=5.5, **look,
                label=who if row["factor"] == factors[0] else None,
            )  # fmt: skip
    axes.set_yticks(range(len(factors)), factors)
    axes.set_ylim(len(factors) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.tick_params(labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.93", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
