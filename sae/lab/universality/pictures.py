"""Counterparts side by side: what each fires on most, and how many networks units are found in."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sae.evaluation.pictures import GREY, style
from sae.evaluation.responses import Responses
from sae.features.show import token_decoder
from sae.lab.workbench import Workbench

N_TOP, AROUND, GAP = 4, 4, 2
"""Items in a cell; tokens shown on either side; pixels between pictures."""


@dataclass(frozen=True)
class Cell:
    """A unit in the gallery: the items on which it is largest.

    Attributes:
        unit: its number; -1 if there is none.
        r: correlation with the latent of the row.
        found: whether it counts.
        pictures: side by side, [height width 3]; None of text.
        lines: the tokens in their context, of text.
    """

    unit: int
    r: float
    found: bool
    pictures: np.ndarray | None
    lines: tuple[str, ...] = ()

    @classmethod
    def of(cls, bench: Workbench, responses: Responses, unit: int, r: float, found: bool) -> "Cell":
        """Take the items on which a unit of any network is largest; the workbench's inputs show them."""
        if unit < 0:
            return cls(unit, r, found, None)
        column = responses.columns(torch.tensor([unit]))[:, 0]
        top = [item for item in column.topk(min(N_TOP, len(column))).indices.tolist() if column[item] > 0]
        examples = bench.sample.example[top].tolist() if top else []
        batches = [bench.inputs.batch(one, one + 1) for one in examples]
        if batches and batches[0].images is not None:
            images = [one.images[0].permute(1, 2, 0).cpu().numpy() for one in batches]  # type: ignore[index]
            blank = np.full((images[0].shape[0], GAP, 3), 255, np.uint8)
            images += [np.full_like(images[0], 255)] * (N_TOP - len(images))
            strip = [part for image in images for part in (image, blank)]
            return cls(unit, r, found, np.concatenate(strip[:-1], 1))
        decode = token_decoder(bench.subject)
        lines = []
        for item, batch in zip(top, batches, strict=True):
            position = int(bench.sample.rows.position[item])
            pieces = [decode(int(token)) for token in batch.tokens[0]]  # type: ignore[index]
            before = "".join(pieces[max(position - AROUND, 0) : position])
            after = "".join(pieces[position + 1 : position + 1 + AROUND // 2])
            lines.append(re.sub(r"\s+", " ", f"{before}[{pieces[position]}]{after}")[-40:])
        return cls(unit, r, found, None, tuple(lines))


def draw_gallery(
    titles: Sequence[str], names: Sequence[str], found_in: Sequence[str], cells: Sequence[Sequence[Cell]]
) -> Any:
    """Draw latents as rows, each with in how many networks it is found, and networks as columns."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.5 * len(titles) + 0.9, 0.95 * len(names) + 0.6), layout="constrained")
    panels = figure.subplots(len(names), len(titles), squeeze=False)
    for row, (name, of_row) in enumerate(zip(names, cells, strict=True)):
        for column, cell in enumerate(of_row):
            axes = panels[row, column]
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if cell.pictures is not None:
                faded = 255 - (255 - cell.pictures.astype(float)) * (1.0 if cell.found else 0.35)
                axes.imshow(faded.astype(np.uint8), interpolation="nearest")
            for number, line in enumerate(cell.lines):
                axes.text(
                    0, 1 - (number + 0.5) / N_TOP, line, fontsize=6, family="monospace", va="center", clip_on=True,
                    color="black" if cell.found else GREY, transform=axes.transAxes, parse_math=False,
                )  # fmt: skip
            own = f"{cell.unit}   $\\bf{{{found_in[row].replace(' ', '~')}}}$"
            said = "none" if cell.unit < 0 else own if column == 0 else f"{cell.unit}   r {cell.r:.2f}"
            axes.set_xlabel(said, fontsize=7, color="black" if cell.found else GREY, labelpad=2)
            if row == 0:
                axes.set_title(titles[column], fontsize=7.5)
        panels[row, 0].set_ylabel(name.replace("=", "\n"), fontsize=7.5, rotation=0, ha="right", va="center")
    return figure


def draw_shares(shares: Mapping[str, Sequence[float]]) -> Any:
    """Draw the share of units found in so many networks or more."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes: Any = figure.subplots()
    for number, (kind, of_kind) in enumerate(shares.items()):
        places = range(1, len(of_kind))
        axes.plot(places, of_kind[1:], label=kind, linewidth=1.4, markersize=6, **style(number))
        for place in places if number == 0 else ():
            axes.annotate(
                f"{of_kind[place]:.0%}",
                (place, of_kind[place]),
                (0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    axes.set_xticks(range(1, len(next(iter(shares.values())))))
    axes.set(
        xlabel="networks, or more",
        ylabel="share of units",
        ylim=(-0.02, 1.15 * max(of_kind[1] for of_kind in shares.values()) + 0.02),
    )
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure
