"""The picture of what reads."""

from collections.abc import Mapping
from typing import Any

from sae.evaluation.labels import MONOSEMANTIC_AUC
from sae.evaluation.pictures import style
from sae.evaluation.responses import Responses
from sae.lab.typography.lettered import CLASS, KINDS, Shown

_N_LATENTS, _N_PICTURES = 4, 8


def draw(shown: Shown, responses: Responses, read: Mapping[str, Any], figures: Mapping[str, float]) -> Any:
    """Draw areas, shares of strings, reading beside seeing, and the strings of the best latents."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.2, 6.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(3.4, 2)).flat  # type: ignore[union-attr]
    left, middle, right = above.subplots(1, 3, width_ratios=(1, 1.25, 1))
    _areas(left, read)
    _shares(middle, shown, figures, list(read))
    _seeing(right, shown, read["latents before selection"])
    _pictures(below, shown, responses, read["latents"][0])
    return figure


def _areas(axes: Any, read: Mapping[str, Any]) -> None:
    colours = {"random directions": "0.75", "neurons": style(1)["color"], "latents": style(0)["color"]}
    for number, (name, colour) in enumerate(colours.items()):
        x, y = read[name][0].share, read[name][0].letters_share
        axes.scatter(x, y, s=7, alpha=0.5, linewidths=0, color=colour, label=name, zorder=number)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, zorder=0)
    for line in (axes.axvline, axes.axhline):
        line(0.5, color="0.9", linewidth=0.8, zorder=0)
    axes.set(xlabel="share of activation on words, not things", ylabel="the same of random letters")
    axes.set_title("does it read, or see text?", fontsize=9, loc="left")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)


def _shares(axes: Any, shown: Shown, figures: Mapping[str, float], names: list[str]) -> None:
    kinds = [kind for kind in KINDS if shown.strings.are(kind).any()]
    for number, name in enumerate(names):
        shares = [figures[f"{name}: {kind} strings with a unit"] for kind in kinds]
        axes.plot(shares, range(len(kinds)), linestyle="", markersize=6, label=name, **style(number))
    labels = [f"{kind} ({int(shown.strings.are(kind).sum())})" for kind in kinds]
    axes.set_yticks(range(len(kinds)), labels)
    axes.set(xlabel="share of strings that one unit reads", xlim=(-0.03, 1.03), ylim=(len(kinds) - 0.5, -0.5))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="y", color="0.92")
    axes.set_title("strings with a unit of their own", fontsize=9, loc="left")
    axes.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _seeing(axes: Any, shown: Shown, read: Any) -> None:
    _, words, see = read
    n = int(shown.strings.are(CLASS).sum())
    axes.scatter(words.auc[:n], see.reader_sees, s=9, alpha=0.7, linewidths=0, color=style(0)["color"])
    for line in (axes.axvline, axes.axhline):
        line(MONOSEMANTIC_AUC, color="0.85", linewidth=0.8, zorder=0)
    axes.axhline(0.5, color="0.7", linewidth=0.8, linestyle=":", zorder=0)
    axes.set(xlabel="AUC, the name among strings", ylabel="AUC, the thing among things", xlim=(0.48, 1.02))
    axes.set_title("the best reader of each name", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _pictures(figure: Any, shown: Shown, responses: Responses, area: Any) -> None:
    keep = (shown.string >= 0) & ~shown.sample.match
    top = area.matched_words.nan_to_num(0).topk(min(2 * _N_LATENTS, len(area.words))).indices[: 2 * _N_LATENTS]
    columns, numbers = responses.on(keep).columns(top), keep.nonzero()[:, 0] - shown.n_things
    grid = figure.subplots(_N_LATENTS, 2 * _N_PICTURES + 1, gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    for axes in grid.flat:
        axes.axis("off")
    for place, (unit, column) in enumerate(zip(top.tolist(), columns.T, strict=True)):
        row, side = place % _N_LATENTS, place // _N_LATENTS
        seen: list[int] = []
        for item in column.argsort(descending=True).tolist():
            text = int(shown.string[keep][item])
            if text not in seen and len(seen) < _N_PICTURES:
                axes = grid[row, side * (_N_PICTURES + 1) + len(seen)]
                axes.imshow(shown.pictures[numbers[item]].permute(1, 2, 0).numpy())
                if not seen:
                    axes.set_title(f"latent {unit}", fontsize=7, loc="left", pad=2)
                seen.append(text)
