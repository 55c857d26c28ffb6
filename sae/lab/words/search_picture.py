"""The picture of a search: what names find, between what units drawn at random and the best of all would."""

from collections.abc import Mapping
from typing import Any

from sae.evaluation.labels import MONOSEMANTIC_AUC
from sae.lab.finding import Picture

READINGS = ("activation", "pre-activation")
"""What a unit is read by: as its dictionary selects it, or before anything is selected."""
UNITS: tuple[str, ...] = ("latents", "neurons", "random_directions")
BLUE = "#0072B2"


def search_picture(figures: Mapping[str, float], way: str, n_top: int) -> Picture:
    return Picture(
        lambda: _draw(figures, way),
        _picture_rows(figures, way),
        f"Share of the inputs' concepts for which one of the first {n_top} units found by the concept's name detects "
        f"it with an AUC above {MONOSEMANTIC_AUC} on held-out images, places by {way}; the bar reaches from as many "
        "units drawn at random to the best of all units.",
    )


def _picture_rows(figures: Mapping[str, float], way: str) -> list[dict[str, Any]]:
    return [
        {"units": name, "reading": reading, "how": how, "share": figures[f"{name}, {reading}, {key}"]}
        for name in UNITS
        for reading in READINGS
        for how, key in (("found by name", way), ("drawn at random", "drawn"), ("any unit", "any unit"))
    ]


def _draw(figures: Mapping[str, float], way: str) -> Any:
    """Draw one panel per reading: a dot for what is found, between what random units and the best units reach."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 2.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    rows = _picture_rows(figures, way)
    for axes, reading in zip(panels, READINGS, strict=True):
        for place, name in enumerate(UNITS):
            values = {row["how"]: row["share"] for row in rows if (row["units"], row["reading"]) == (name, reading)}
            axes.plot((values["drawn at random"], values["any unit"]), (place, place), color="0.85", linewidth=5)
            axes.plot(values["drawn at random"], place, "|", color="0.35", markersize=11, label="drawn at random")
            axes.plot(values["any unit"], place, "d", color="0.55", markersize=6, label="any unit")
            axes.plot(
                values["found by name"],
                place,
                markersize=7,
                linestyle="",
                label="found by name",
                color=BLUE,
                marker="o",
            )
            axes.annotate(
                f"{values['found by name']:.0%}",
                (values["found by name"], place),
                (0, 9),
                fontsize=8,
                ha="center",
                textcoords="offset points",
            )
        axes.tick_params(labelsize=9)
        axes.set_title(f"read by {reading}", fontsize=9, loc="left")
        axes.set(xlim=(-0.04, 1.04), xlabel="share of concepts", ylim=(len(UNITS) - 0.5, -0.7))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(UNITS)), [name.replace("_", " ") for name in UNITS])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles[:3], labels[:3], loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    return figure
