"""How many latents are related at every masked cosine, beside what chance relates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae.evaluation.pictures import GREY, save_picture, style
from sae.evaluation.splitting import CHANCE, Step

SOURCE_BAR = 0.4
"""The masked cosine above which Bricken et al. 2023 draw an edge."""
_BARS = [number / 100 for number in range(30, 101)]


def chance_picture(growths: Mapping[str, Mapping[str, Step]], out: Path, caption: str = "") -> Path:
    """Draw the share of latents that are inherited, and that split, against the masked cosine asked for.

    Args:
        growths: per pair of sizes, by its title, the step to the larger dictionary (the first) and to its controls.
        out: path without suffix; `.png`, `.pdf` and `.csv` are written.
        caption: what goes below the picture.

    Returns:
        The path of the PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 0.5 + 2.5 * len(growths)), layout="constrained")
    panels = figure.subplots(len(growths), 2, sharex=True, sharey=True, squeeze=False)
    rows: list[dict[str, Any]] = []
    for (title, steps), (inherited, split) in zip(growths.items(), panels, strict=True):
        for number, (name, step) in enumerate(steps.items()):
            curves = [step.inherited_share(bar) for bar in _BARS], [step.split_share(bar) for bar in _BARS]
            for axes, curve in zip((inherited, split), curves, strict=True):
                look = {"color": style(number)["color"], "linewidth": 1.0 if number else 2.0}
                axes.plot(_BARS, curve, label=name.replace("_", " "), **look)
            rows += [
                {"step": title, "who": name, "masked_cosine": bar, "inherited_share": one, "split_share": two}
                for bar, one, two in zip(_BARS, *curves, strict=True)
            ]
        own = next(iter(steps.values()))
        for axes, what in ((inherited, "latents with a parent"), (split, "latents that split")):
            axes.axvline(own.bar, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
            axes.axvline(SOURCE_BAR, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)), zorder=0)
            axes.set_title(f"{title}: {what}", fontsize=9, loc="left")
            axes.set(xlim=(_BARS[0], 1), ylim=(0, 1.02))
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
        inherited.set_ylabel("share", fontsize=8)
    for axes in panels[-1]:
        axes.set_xlabel("masked cosine above", fontsize=8)
    names = panels[0, 0].get_legend_handles_labels()
    figure.legend(*names, frameon=False, fontsize=8, loc="outside upper left", ncols=5)
    note = f"Dashed: the bar, which {CHANCE:.0%} of random directions reach; dotted: the source's {SOURCE_BAR}."
    return save_picture(figure, out, rows, f"{note}\n{caption}")
