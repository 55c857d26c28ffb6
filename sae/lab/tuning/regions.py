"""A map of places, coloured by how strongly a unit answers to each: is it about one place, or about a part of it?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae.errors import EvaluationError, nearest
from sae.inputs.concepts import ConceptInputs
from sae.lab.associations.strengths import class_means
from sae.lab.finding import Picture, unit_name
from sae.lab.readings import Readings
from sae.lab.spread import Spread
from sae.lab.tuning.sweeps import numeric
from sae.lab.workbench import Workbench

N_DEALS = 999
LEVEL = 0.05


@dataclass(frozen=True)
class Regions:
    """Mean answers of units to places on a map, in two halves.

    Attributes:
        name: of the kind of units.
        names, place: of the classes that lie on the map.
        match, score: mean answers to their pictures.
    """

    name: str
    names: tuple[str, ...]
    place: Float[Tensor, "regions 2"]
    match: Float[Tensor, "units regions"]
    score: Float[Tensor, "units regions"]

    @classmethod
    def of(cls, readings: Readings, bench: Workbench, places: Mapping[str, Sequence[float]]) -> "Regions":
        """Average the answers to all pictures of each class that has a place.

        Raises:
            EvaluationError: fewer than four classes have a place, or one of them too few pictures.
        """
        sample, family = bench.sample, bench.inputs.classes.family  # type: ignore[attr-defined]
        number = torch.from_numpy(sample.labels[family]).long()
        nowhere = (float("nan"),) * 2
        known = torch.tensor(
            [*(places.get(name, nowhere) for name in sample.label_names[family]), nowhere], dtype=torch.float64
        )
        where = known[number]
        there = where.isfinite().all(1)
        classes, group = number[there].unique(return_inverse=True)
        halves = sample.match[there]
        if min(len(group[half].unique()) for half in (halves, ~halves)) < max(len(classes), 4):
            raise EvaluationError(
                f"map: {len(classes)} classes of the sample have a place; 4 are needed, all in each half."
            )
        values = torch.cat([block[there] for _, block in readings.blocks()], 1)
        match, score = (class_means(values[half], group[half], len(classes)) for half in (halves, ~halves))
        place = class_means(where[there], group, len(classes)).T
        called = sample.label_names[family]
        return cls(readings.name, tuple(str(called[one]) for one in classes.tolist()), place, match, score)

    def clustering(self, n_deals: int, seed: int) -> tuple[Float[Tensor, " units"], Float[Tensor, " units"]]:
        """Return Moran's I of every unit over held-out answers, and the chance of as much with places dealt out.

        I = sum_ij w_ij z_i z_j / sum_ij w_ij over standardised answers z, with weights of neighbours; 1 where
        neighbours answer alike, about 0 where places mean nothing.
        """
        weights = neighbours(self.place)
        z = self.score - self.score.mean(1, keepdim=True)
        z = z / z.square().mean(1, keepdim=True).clamp(min=1e-30).sqrt()
        generator, own = torch.Generator().manual_seed(seed), moran(z, weights)
        reached = torch.ones_like(own)
        for _ in range(n_deals):
            dealt = torch.randperm(len(weights), generator=generator)
            reached += moran(z, weights[dealt][:, dealt]) >= own
        return own, reached / (n_deals + 1)

    @property
    def reliability(self) -> Float[Tensor, " units"]:
        """Correlation of the answers of the two halves over places."""
        return torch.stack([_standard(self.match), _standard(self.score)]).prod(0).mean(1)


def known_places(bench: Workbench, axes: tuple[str, str], path: Path | None) -> dict[str, tuple[float, float]]:
    """Return where classes lie, y downwards, from a file or by what the labels say; none where nobody knows.

    Raises:
        EvaluationError: the file is no such mapping, or names a class that does not exist.
    """
    sample, classes = bench.sample, getattr(bench.inputs, "classes", None)
    if classes is None:
        return {}
    names, numbers = sample.label_names[classes.family], numeric(sample)
    if path is not None:
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
            places = {name: (float(x), float(y)) for name, (x, y) in given.items()}
        except (OSError, ValueError, TypeError, AttributeError) as cause:
            raise EvaluationError(f'{path}: not a JSON such as {{"france": [2.2, -46.2]}}: {cause}') from cause
        for name in places:
            if name not in names:
                raise EvaluationError(f"places: no class {name!r}.{nearest(name, names)}")
        return places
    if not set(axes) <= set(numbers):
        return {}
    x, y, number = *(numbers[axis] for axis in axes), sample.labels[classes.family]
    there = np.isfinite(x) & np.isfinite(y) & (number >= 0)
    return {str(names[one]): (float(a), float(b)) for one, a, b in zip(number[there], x[there], y[there], strict=True)}


def _standard(values: Float[Tensor, "units regions"]) -> Float[Tensor, "units regions"]:
    centred = values - values.mean(1, keepdim=True)
    return centred / centred.square().mean(1, keepdim=True).clamp(min=1e-30).sqrt()


def neighbours(place: Float[Tensor, "regions 2"]) -> Float[Tensor, "regions regions"]:
    """Return weights that fall off with the squared distance over that to the nearest place; none for the place."""
    apart = torch.cdist(place, place)
    apart.fill_diagonal_(torch.inf)
    return torch.exp(-(apart / apart.amin(1).median()).square() / 2)


def moran(z: Float[Tensor, "units regions"], weights: Float[Tensor, "regions regions"]) -> Float[Tensor, " units"]:
    """Return Moran's I of standardised answers (Moran 1950)."""
    return ((z @ weights) * z).sum(1) / weights.sum()


def region_figures(found: Mapping[str, Regions], seed: int) -> dict[str, float]:
    """Say for how many units neighbours on the map answer alike beyond chance, of those that tell places apart."""
    figures = {}
    for who, regions in found.items():
        clustering, p = regions.clustering(N_DEALS, seed)
        sure = regions.reliability > 0.5
        figures[f"map, {who}, tell regions apart"] = float(sure.double().mean())
        if sure.any():
            figures |= Spread.of((p[sure] <= LEVEL).double(), seed).figures(f"map, {who}, clustered")
            figures[f"map, {who}, mean Moran's I"] = float(clustering[sure].mean())
    return figures


def chosen(regions: Regions) -> list[tuple[str, int]]:
    """Return units to show, chosen on the half to match on: two whose answers cluster most, two for one place alone."""
    z = _standard(regions.match)
    clustered = moran(z, neighbours(regions.place)).argsort(descending=True)
    order = z.sort(1, descending=True).values
    single = (order[:, 0] - order[:, 1]).argsort(descending=True).tolist()
    picked, best = clustered[:2].tolist(), z.argmax(1)
    for unit in single:
        if unit not in picked and best[unit] not in best[picked[2:]]:
            picked.append(unit)
        if len(picked) == 4:
            break
    return [("clusters most" if number < 2 else "one place alone", unit) for number, unit in enumerate(picked)]


def outlines(inputs: Any, names: tuple[str, ...]) -> list[Float[np.ndarray, "corners 2"]]:
    """Return the border of each region around its own middle, of about unit size; a disc where none is known."""
    if isinstance(inputs, ConceptInputs):
        from sae.inputs.concepts.figures import border

        shapes = [border(inputs.world.concept(name)) for name in names]
        found = [shape.points[: shape.ends[0]] for shape in shapes]
        return [points - (points.max(0) + points.min(0)) / 2 for points in found]
    turn = np.linspace(0, 2 * np.pi, 40)
    return [0.6 * np.stack([np.cos(turn), np.sin(turn)], 1) for _ in names]


def region_picture(found: Mapping[str, Regions], inputs: Any, seed: int) -> Picture:
    """Draw the map once per unit: latents above, a neuron and a random direction of each kind below."""
    panels, rows = [], []
    for who, regions in found.items():
        clustering, p = regions.clustering(N_DEALS, seed)
        units = chosen(regions)
        for why, unit in units if who == "latents" else (units[0], units[2]):
            values = _standard(regions.score)[unit]
            title, note = f"{who.removesuffix('s')} {unit}: {why}", f"Moran's I {clustering[unit]:.2f}, p {p[unit]:.3f}"
            panels.append((title, note, regions, values.numpy()))
            rows += [
                {"unit": unit_name(who, unit), "why": why, "region": name, "x": x, "y": y, "answer": round(value, 4)}
                for name, (x, y), value in zip(regions.names, regions.place.tolist(), values.tolist(), strict=True)
            ]
    caption = (
        "Every region where it lies on the map, in its own outline, coloured by a unit's mean pre-activation on "
        "held-out pictures of it, in standard deviations over the regions. Units were chosen on the other half. "
        "Moran's I: how alike neighbours are answered; p: chance of as much with places dealt out."
    )
    return Picture(lambda: _draw(panels, inputs), rows, caption)


def _draw(panels: list[tuple[str, str, Regions, np.ndarray]], inputs: Any) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.4, 5.9), layout="constrained")
    cells = figure.subplots(2, (len(panels) + 1) // 2, squeeze=False).ravel()
    mapped = None
    for axes, (title, note, regions, values) in zip(cells, panels, strict=False):
        mapped = _map(axes, regions, values, inputs)
        axes.set_title(title, fontsize=8.5, loc="left")
        axes.text(0.02, 0.02, note, transform=axes.transAxes, fontsize=7, color="0.35")
    for axes in cells[len(panels) :]:
        axes.set_visible(False)
    if mapped is not None:
        bar = figure.colorbar(mapped, ax=list(cells), shrink=0.45, aspect=20, pad=0.01)
        bar.set_label("standard deviations", fontsize=8)
        bar.ax.tick_params(labelsize=7, length=2)
        bar.outline.set_visible(False)
    return figure


def _map(axes: Any, regions: Regions, values: np.ndarray, inputs: Any) -> Any:
    from matplotlib.collections import PolyCollection

    place = regions.place.numpy()
    near = np.where(np.eye(len(place), dtype=bool), np.inf, np.hypot(*(place[:, None] - place).transpose(2, 0, 1)))
    size = float(np.median(near.min(1))) / 1.9
    polygons = [where + size * points for where, points in zip(place, outlines(inputs, regions.names), strict=True)]
    most = 2.5
    drawn = PolyCollection(polygons, array=values, cmap="RdBu_r", clim=(-most, most), edgecolors="0.25", linewidths=0.6)
    axes.add_collection(drawn)
    for (x, _), name, points, value in zip(place, regions.names, polygons, values, strict=True):
        axes.text(
            x, points[:, 1].max() + 0.02, name, ha="center", va="top", fontsize=6,
            color="0.1" if value > 1 else "0.4", weight="bold" if value > 1 else "normal",
        )  # fmt: skip
    spread = np.ptp(np.concatenate(polygons), axis=0).max()
    low, high = np.concatenate(polygons).min(0), np.concatenate(polygons).max(0)
    axes.set(
        xlim=(low[0] - 0.04 * spread, high[0] + 0.04 * spread), ylim=(high[1] + 0.2 * spread, low[1] - 0.05 * spread)
    )
    axes.set_box_aspect(0.9)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor("#eef3f6")
    axes.spines[:].set_color("0.8")
    return drawn
