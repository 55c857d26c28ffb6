"""Pictures of what an audit says of latents: by prompts and images, those that speak, and what is left without them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sae.evaluation.pictures import GREY, style

COLOURS = {"latents": style(0)["color"], "neurons": style(3)["color"], "random directions": GREY}
WAYS = {
    "nothing": "nothing taken out",
    "latents": "latents that know the look",
    "speaking latents": "latents that speak for it",
    "random latents": "as many random latents",
    "best neurons": "neurons that know the look",
    "speaking neurons": "neurons that speak for it",
    "difference of means": "difference of means",
    "linear probe": "linear probe",
}
SHOWN = ("demographic parity", "equalised odds", "calibration")


def draw_associations(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Draw, for every value, the unit that prompts choose, what it is worth on images, and whether the two agree."""
    from matplotlib.figure import Figure

    values = list(dict.fromkeys(row["value"] for row in rows))
    figure = Figure(figsize=(10.5, 1.6 + 0.24 * max(len(values), 6)), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    first = [row for row in rows if row["rank"] == 1]
    for row in first:
        y, look = _line(values.index(row["value"]), row["kind"]), {"color": COLOURS[row["kind"]], "markersize": 4.5}
        hollow = {} if row["by"] == "prompts" else {"markerfacecolor": "white"}
        if row["by"] == "prompts":
            panels[0].plot(row["cosine"], y, "o", **look)
        if row["auc"] != "":
            panels[1].plot(row["auc"], y, "o", **look, **hollow)
        if row["agree"] != "" and row["by"] == "prompts":
            panels[2].plot((row["low"], row["high"]), (y, y), color=look["color"], linewidth=1.2)
            panels[2].plot(row["agree"], y, "o", **look)
    titles = (
        "cosine with the value's words,\nof the unit that prompts choose",
        "held-out AUC on images, of that unit,\nhollow: of the unit that images choose",
        "do prompts and images agree?\nrank correlation over units",
    )
    for panel, title, rest in zip(panels, titles, (0.0, 0.5, 0.0), strict=True):
        panel.set_title(title, fontsize=9, loc="left")
        panel.axvline(rest, color="0.6", linewidth=0.8, zorder=0)
    _settle(panels, [_spaced(value) for value in values])
    _legend(panels[0])
    return figure


def draw_speaking(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Draw what the units that speak most add to every judgement, and whether they know a look, there or anywhere.

    Where no look is labelled, the cosine with the words that each is nearest to takes the place of what it knows.
    """
    from matplotlib.figure import Figure

    judgements = list(dict.fromkeys(row["judgement"] for row in rows))
    columns = {
        "adds": ("adds to the judgement where it is made, nats\n(filled: the one that adds most)", 0.0),
        "auc": ("AUC for the look it knows best, all held-out items\n(filled and named: beyond chance)", 0.5),
        "auc where judged so": ("the same among the items judged so", 0.5),
        "cosine": ("cosine with the value whose words it writes most", 0.0),
    }
    shown = [one for one in columns if any(row[one] != "" for row in rows)]
    shown = [one for one in shown if one != "cosine" or "auc" not in shown]
    figure = Figure(figsize=(1.5 + 3.3 * len(shown), 1.6 + 0.33 * max(len(judgements), 5)), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for panel, column in zip(panels, shown, strict=True):
        for row in rows:
            if row[column] != "":
                _dot(panel, row, column, _line(judgements.index(row["judgement"]), row["kind"]))
        title, rest = columns[column]
        panel.set_title(title, fontsize=9, loc="left")
        panel.axvline(rest, color="0.6", linewidth=0.8, zorder=0)
        panel.margins(x=0.22 if column.startswith("auc") else 0.06)
    _settle(panels, judgements)
    _legend(panels[0])
    return figure


def _dot(panel: Any, row: Mapping[str, Any], column: str, y: float) -> None:
    where, colour = column.removeprefix("auc"), COLOURS[row["kind"]]
    known = column.startswith("auc") and row[f"beyond chance{where}"]
    filled = known if column.startswith("auc") else column == "adds" and row["rank"] == 1
    look = {"color": colour, "markersize": 4.5, "markerfacecolor": colour if filled else "white"}
    panel.plot(row[column], y, "o", **look, zorder=3 if filled else 2)
    if known:
        name, low = f"{row['unit']}: {_spaced(row[f'knows{where}'])}", row[column] < 0.5
        panel.annotate(name, (row[column], y), (-5 if low else 5, 0), textcoords="offset points", fontsize=6.5,
                       ha="right" if low else "left", va="center", color=colour)  # fmt: skip


def draw_removed(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Draw definitions of fairness, accuracy and rate of a judgement before and after every removal."""
    from matplotlib.figure import Figure

    pairs = list(dict.fromkeys((row["judgement"], row["value"]) for row in rows))
    figure = Figure(figsize=(11, 0.9 + 2.3 * len(pairs)), layout="constrained")
    grid = figure.subplots(len(pairs), len(SHOWN) + 1, sharey=True, sharex="col", squeeze=False)
    ways = list(dict.fromkeys(row["without"] for row in rows))
    for panels, pair in zip(grid, pairs, strict=True):
        of_pair = [row for row in rows if (row["judgement"], row["value"]) == pair]
        for panel, name in zip(panels, (*SHOWN, "accuracy"), strict=True):
            for row in of_pair:
                y = ways.index(row["without"])
                colour = COLOURS["latents"] if "latents" in row["without"] else GREY
                colour = "black" if row["without"] == "nothing" else GREY if "random" in row["without"] else colour
                if row[name] != row[name]:
                    if row["without"] == "nothing":
                        panel.text(0.5, 0.5, "too few to tell", transform=panel.transAxes, ha="center", fontsize=8,
                                   color="0.45")  # fmt: skip
                    continue
                if name != "accuracy":
                    panel.plot((row[f"{name}, low"], row[f"{name}, high"]), (y, y), color=colour, linewidth=1.2)
                else:
                    panel.plot(row["judged so"], y, "D", color=colour, markersize=4, markerfacecolor="white")
                panel.plot(row[name], y, "o", color=colour, markersize=4.5)
                if row["without"] == "nothing":
                    panel.axvline(row[name], color="0.8", linewidth=0.8, zorder=0)
            if name != "accuracy":
                panel.axvline(0, color="0.6", linewidth=0.8, zorder=0)
            panel.xaxis.set_major_formatter(lambda value, _: f"{value:+.0%}" if value else "0")
        panels[-1].xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        _settle(panels, [WAYS[way] for way in ways])
        panels[0].set_title(f"{pair[0]}, {_spaced(pair[1])}", fontsize=9, loc="left", fontweight="bold")
    for panel, name in zip(grid[-1], (*SHOWN, "accuracy (hollow: judged so)"), strict=True):
        panel.set_xlabel(name, fontsize=8)
    return figure


def _line(place: int, kind: str) -> float:
    return place + 0.24 * (list(COLOURS).index(kind) - 1)


def _spaced(value: str) -> str:
    return value.replace("=", " ").replace("_", " ")


def _settle(panels: Sequence[Any], names: Sequence[str]) -> None:
    panels[0].set_yticks(range(len(names)), names, fontsize=8)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    for panel in panels:
        panel.tick_params(axis="y", length=0)
        panel.tick_params(axis="x", labelsize=8)
        panel.spines[["top", "right", "left"]].set_visible(False)
        for line in range(len(names) - 1):
            panel.axhline(line + 0.5, color="0.92", linewidth=0.6, zorder=0)


def _legend(panel: Any) -> None:
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], marker="o", linestyle="", color=colour, markersize=5) for colour in COLOURS.values()]
    below = {"loc": "upper left", "bbox_to_anchor": (0, -0.1)}
    panel.legend(marks, list(COLOURS), frameon=False, fontsize=8, ncols=3, columnspacing=1, handletextpad=0.2, **below)
