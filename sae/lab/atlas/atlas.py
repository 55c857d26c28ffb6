"""An atlas of activations: vectors laid out in the plane, with a picture and the strongest latents of every cell.

After Carter et al. 2019 (*Activation Atlas*, Distill): one vector of every image, laid out by UMAP and averaged over
the cells of a grid. A cell's picture is by default the real one whose vector is nearest to the cell's mean; beside it
may stand a visualisation of the mean (`visualised`), and any other comes from a `Render`. How far neighbouring cells
agree is compared with the same cells in shuffled places.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sae.errors import ConfigError, EvaluationError
from sae.evaluation.labels import best_labels
from sae.evaluation.sample import Sample, Units
from sae.lab.atlas.cells import Agreement, Atlas
from sae.lab.atlas.picture import atlas_picture, mosaic, visualised_picture
from sae.lab.atlas.visualised import WAY, Seen, judged, leading, said, visualised
from sae.lab.finding import Finding
from sae.lab.readings import Family
from sae.lab.visualise import studio as visualise
from sae.lab.visualise.studio import Studio
from sae.lab.workbench import Workbench, WorkbenchConfig

N_AVERAGED = 8

Frame = UInt8[np.ndarray, "height width 3"]
Render = Callable[[Float[Tensor, " d_in"], Int[Tensor, " members"]], Frame]
"""Makes a cell's picture from the mean of its vectors, and from its members' numbers among the laid-out items."""


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of an atlas."""

    n_items: int = 6000
    """Lay out so many images, the first ones, by one vector of each."""
    n_cells: int = 24
    """Cells along each side of the grid."""
    fewest: int = 2
    """Items that a cell must hold to be shown."""
    n_latents: int = 3
    """Latents to name in a cell."""
    picture: Literal["nearest", "average", "visualised"] = "nearest"
    """Show the picture nearest to a cell's mean, the average of the eight nearest, or beside the nearest one that is
    optimised for the mean."""
    steps: int = 128
    """Of the optimisation."""
    cosine: float = 1.0
    """Power of the cosine to the mean that the optimised dot product is multiplied by."""
    judges: tuple[str, ...] = ()
    """Subjects, other than the dictionary's own, that say what the visualised pictures show."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.n_items, self.n_cells - 1, self.fewest, self.n_latents, self.steps) < 1:
            raise ConfigError("n_cells must be at least 2; n_items, fewest, n_latents and steps at least 1.")


def one_row_each(sample: Sample, n: int, seed: int) -> Int[Tensor, " items"]:
    """Return one row of each of the first n items, drawn at random where an item has several (Carter et al. 2019)."""
    rows = sample.pooled_rows.nonzero()[:, 0]
    shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    first = torch.full((sample.n_items,), -1)
    first[sample.item[shuffled]] = shuffled
    return first[first >= 0][:n]


def nearest_picture(bench: Workbench, atlas: Atlas, example: Int[Tensor, " items"], n: int = 1) -> Render:
    """Return a render that shows the members whose vectors are nearest to the mean, n of them averaged.

    Raises:
        EvaluationError: the inputs are no images.
    """
    if bench.inputs.batch(0, 1).images is None:
        raise EvaluationError(f"{bench.inputs.describe()}: an atlas shows pictures, and these inputs have none.")
    centre = atlas.x.mean(0)

    def render(mean: Float[Tensor, " d_in"], members: Int[Tensor, " members"]) -> Frame:
        cosines = F.cosine_similarity(atlas.x[members] - centre, (mean - centre)[None])
        chosen = members[cosines.topk(min(n, len(members))).indices]
        images: list[Any] = [bench.inputs.batch(one, one + 1).images for one in example[chosen].tolist()]
        return torch.cat(images).float().mean(0).round().to(torch.uint8).permute(1, 2, 0).numpy()

    return render


def run(config: Config, render: Render | None = None) -> Finding:
    """Lay a sample out, and show every cell by its picture, its strongest latents and its commonest label.

    Args:
        config: settings.
        render: makes the pictures instead of what `config.picture` says.
    """
    bench = Workbench.open(config)
    sample = bench.sample
    if not sample.pooled:
        raise EvaluationError(f"{bench.inputs.describe()}: an atlas shows pictures, and these inputs have none.")
    studio = _studio(bench, config) if render is None and config.picture == "visualised" else None
    rows = one_row_each(sample, config.n_items, config.seed)
    item = sample.item[rows]
    atlas = Atlas.of(sample.x[rows].float(), config.n_cells, config.fewest, config.seed)
    if len(atlas.cells) < 2:
        raise EvaluationError(
            f"atlas: {len(atlas.cells)} cells hold {config.fewest} items; take fewer cells or more items."
        )
    way = "rendered" if render else "average" if config.picture == "average" else "nearest"
    if render is None:
        render = nearest_picture(bench, atlas, sample.example[item], N_AVERAGED if way == "average" else 1)
    means = atlas.averaged(atlas.x).float()
    shown = {way: [render(mean, atlas.members(cell)) for cell, mean in enumerate(means)]}
    codes = bench.latents.codes.on(rows).dense()
    strongest = atlas.averaged(codes).topk(config.n_latents, 1)
    labels = _labels(bench, item)
    compared = {name: values for name, (values, _) in labels.items()} | {"strongest latent": codes.argmax(1)}
    agreed = {name: Agreement.of(atlas, values, config.seed) for name, values in compared.items()}
    figures = {"cells": float(len(atlas.cells)), "items": float(len(rows))}
    figures |= {name: value for what, one in agreed.items() if one for name, value in one.figures(what).items()}
    figures["cells along a side"] = float(config.n_cells)
    table = _rows(atlas, strongest.indices, names_of(bench.latents), labels)
    family = bench.inputs.classes.family if getattr(bench.inputs, "classes", None) else next(iter(labels))  # type: ignore[attr-defined]
    colours = labels.get("family", labels[family])
    verdict = _verdict(figures, family)
    pictures = {"lab-atlas": atlas_picture(atlas, shown[way], colours, figures, table)}
    if studio is not None:
        seen = visualised(studio, atlas, torch.from_numpy(np.stack(shown[way])).permute(0, 3, 1, 2), config.seed)
        figures |= {name: value for one in seen for name, value in one.figures().items()}
        if getattr(bench.inputs, "classes", None):
            concept = torch.from_numpy(np.asarray(sample.labels[family])).long()[item]
            figures |= judged(studio, seen[:2], leading(atlas, concept))
        table = [row | more for row, more in zip(table, _where(atlas, *seen[:2]), strict=True)]
        shown = {"visualised": list(seen[0].frames.permute(0, 2, 3, 1).numpy())} | shown
        pictures = {"lab-atlas-visualised": visualised_picture(atlas, shown, figures, table)} | pictures
        verdict += said(figures)
    cells = atlas.cells.numpy()
    images = {f"atlas-{name}": png(mosaic(cells, frames, config.n_cells)) for name, frames in shown.items()}
    return Finding("atlas", bench.about, figures, table, verdict, pictures, images)


def names_of(units: Units) -> list[str]:
    """Return the label that each unit separates best on the half to match on, "" for one that tells nothing apart."""
    names = units.sample.table.names
    return [names[label] if label >= 0 else "" for label in best_labels(units).tolist()]


def png(image: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """Return an image as a PNG file."""
    from PIL import Image

    into = BytesIO()
    Image.fromarray(image).save(into, "PNG", optimize=True)
    return into.getvalue()


def _studio(bench: Workbench, config: Config) -> Studio:
    """Return where cells are visualised, over the mean of the patches."""
    settings = {"dictionary": config.dictionary, "store": config.store, "seed": config.seed, "device": config.device}
    asked = {"steps": config.steps, "cosine": config.cosine, "judges": config.judges}
    return Studio(bench, visualise.Config(**settings, **asked, ways=(WAY,), at="mean"))


def _where(atlas: Atlas, drawn: Seen, real: Seen) -> list[dict[str, Any]]:
    """Return, for every cell, how near both pictures come to its mean, and the cell that its visualisation falls to."""
    places = [f"{column} {row}" for column, row in atlas.cells[drawn.nearest].tolist()]
    cosines = zip(drawn.own_cosine.tolist(), real.own_cosine.tolist(), places, strict=True)
    return [
        {"visualised_cosine": round(drawn, 4), "nearest_cosine": round(real, 4), "visualised_cell": place}
        for drawn, real, place in cosines
    ]


def _labels(bench: Workbench, item: Int[Tensor, " items"]) -> dict[str, tuple[Int[Tensor, " items"], tuple[str, ...]]]:
    """Return every family of labels that are classes: the values of items, -1 for none, and their names."""
    found = {}
    for name, values in bench.sample.labels.items():
        if values.dtype.kind != "f":
            family = Family.of(bench.sample, name)
            chosen, names = torch.from_numpy(family.values)[item], family.names
            silent = len(names) - 1 if names[-1] == "none" else -1
            found[name] = (torch.where(chosen == silent, -1, chosen), names)
    return {name: one for name, one in found.items() if (one[0] >= 0).any()}


def _rows(
    atlas: Atlas,
    strongest: Int[Tensor, "cells latents"],
    names: Sequence[str],
    labels: Mapping[str, tuple[Tensor, tuple[str, ...]]],
) -> list[dict[str, Any]]:
    """Return the atlas as a table, one cell a row: what a page needs to show it, pictures aside."""
    rows = []
    for cell, (column, row) in enumerate(atlas.cells.tolist()):
        members, found = atlas.members(cell), {}
        for family, (values, called) in labels.items():
            known = values[members]
            counts = known[known >= 0].bincount(minlength=1)
            found[family] = called[int(counts.argmax())] if counts.sum() else ""
            found[f"{family}_share"] = round(float(counts.max() / len(members)), 3)
        latents = strongest[cell].tolist()
        rows.append(
            {"x": column, "y": row, "n": len(members), "latents": " ".join(map(str, latents))}
            | {"names": "; ".join(str(names[latent]) for latent in latents)}
            | found
        )
    return rows


def _verdict(figures: Mapping[str, float], family: str) -> str:
    told = []
    for what in dict.fromkeys((family, "family", "facet", "strongest latent")):
        if f"{what}, shuffled" in figures:
            beyond = figures[f"{what}, neighbours agree"] > figures[f"{what}, shuffled, high"]
            told.append(
                f"{what} {figures[f'{what}, neighbours agree']:.1%} (shuffled {figures[f'{what}, shuffled']:.1%}"
                + ("" if beyond else ", not distinguishable")
                + ")"
            )
    return f"Items of {figures['cells']:.0f} cells agree with those of the cells beside them in: {'; '.join(told)}."
