"""What labels a latent answers to, measured by the evaluation's own definitions on its sample."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.evaluation.detection import Detection, average_precision
from sae.evaluation.facets import Facets
from sae.evaluation.labels import label_auc
from sae.evaluation.meanings import MIXED_AUC
from sae.evaluation.sample import Units
from sae.features.cards import rounded

_UNITS_AT_ONCE = 256


def best_control_auc(controls: Iterable[Units]) -> dict[str, float]:
    """Return, for every label, the held-out area of the best of all controls' units (see `label_auc`).

    Each control's unit is chosen on the half to match on; of the controls the best on the other half counts, so a
    latent is compared with the hardest of them.
    """
    best: dict[str, float] = {}
    for units in controls:
        for name, auc in zip(units.sample.table.names, label_auc(Detection(units)).values.tolist(), strict=True):
            best[name] = max(best.get(name, 0.0), auc)
    return best


class Labelled:
    """The section "labels": the labels that a latent separates best, chosen on one half and measured on the other.

    Labels are those with an area under the ROC curve above 0.8 on the half to match on, at most `n`: a latent that
    answers to none of them has none, for the best of hundreds of labels always looks like something. Areas and average
    precision are held out and defined as in `evaluation.labels`. `levels` cut the activations above 0 into bands of
    equal width and give the share of held-out items in each that have the label; bands without items are left out.

    Args:
        units: at work on a sample with labels.
        controls: the best control's area for each label, by name; see `best_control_auc`, or a report's tables.
        maximum: of each latent's activations, where more than the sample was seen; bands end there.
        n: how many labels.
        n_levels: how many bands.
    """

    def __init__(
        self,
        units: Units,
        controls: Mapping[str, float] | None = None,
        maximum: Float[Tensor, " units"] | None = None,
        n: int = 5,
        n_levels: int = 10,
    ) -> None:
        self.units, self.controls, self.n, self.n_levels = units, controls or {}, n, n_levels
        self.maximum = units.responses.maximum if maximum is None else maximum
        self._columns = units.sample.table.columns[~units.sample.match]

    def of(self, latents: range) -> list[list[dict[str, Any]] | None]:
        """Return the section of each latent; None for those that answer to no label."""
        return [section for block in _blocks(latents) for section in self._of_block(block)]

    def _of_block(self, latents: range) -> list[list[dict[str, Any]] | None]:
        part = self.units.part(latents)
        (match_auc, auc), held_out = part.auc, part.halves[1]
        top = match_auc.topk(min(self.n, match_auc.shape[1]), dim=1)
        row, rank = (top.values > MIXED_AUC).nonzero(as_tuple=True)
        label = top.indices[row, rank]
        precision = average_precision(held_out, part.sample.label_halves[1], row, label).tolist()
        found: list[list[dict[str, Any]] | None] = [None] * len(latents)
        levels = self._levels(latents, held_out.columns, row, label)
        for unit, number, of_pair, bands in zip(row.tolist(), label.tolist(), precision, levels, strict=True):
            name = part.sample.table.names[number]
            entry = {"label": name, "auc": rounded(float(auc[unit, number]))}
            if name in self.controls:
                entry["auc_control"] = rounded(self.controls[name])
            entry |= {"average_precision": rounded(of_pair), "levels": bands}
            found[unit] = [*(found[unit] or []), entry]
        return found

    def _levels(
        self, latents: range, columns: Any, row: Int[Tensor, " pairs"], label: Int[Tensor, " pairs"]
    ) -> list[list[list[float | None]]]:
        """Return the bands of every pair of latent and label, pairs sorted by latent."""
        distinct, counts = row.unique_consecutive(return_counts=True)
        found = []
        for unit, labels in zip(distinct.tolist(), label.split(counts.tolist()), strict=True):
            activations = columns(torch.tensor([unit]))[:, 0]
            found += _bands(
                activations, self._columns[:, labels], float(self.maximum[latents.start + unit]), self.n_levels
            )
        return found


class FacetResponses:
    """The section "facets": how well a latent detects its best concepts when they are shown in each facet.

    Latents without a concept (see `evaluation.facets`) have none. Concepts are chosen on the half to match on, those
    with an area above 0.8, at most `n`; the areas are held out and within a facet, as `Facets.facet_auc` defines them.
    """

    def __init__(self, units: Units, n: int = 3) -> None:
        self.units, self.n = units, n

    def of(self, latents: range) -> list[dict[str, dict[str, float | None]] | None]:
        """Return `{facet: {concept: area}}` of each latent; pairs with too few pictures are left out."""
        return [section for block in _blocks(latents) for section in self._of_block(block)]

    def _of_block(self, latents: range) -> list[dict[str, dict[str, float | None]] | None]:
        facets = Facets(self.units.part(latents))
        shown, areas = facets.shown, facets.facet_auc
        top = facets.match_auc.topk(min(self.n, facets.match_auc.shape[1]), dim=1)
        sections: list[dict[str, dict[str, float | None]] | None] = []
        for unit in range(len(latents)):
            chosen = top.indices[unit][top.values[unit] > MIXED_AUC].tolist()
            named = {shown.concept_names[int(shown.scored[number])]: number for number in chosen}
            section = {
                facet: {
                    name: rounded(area)
                    for name, number in named.items()
                    if not np.isnan(area := float(areas[place, unit, number]))
                }
                for place, facet in enumerate(shown.facet_names)
            }
            sections.append({facet: values for facet, values in section.items() if values} or None)
        return sections


def _bands(
    activations: Float[Tensor, " items"], labels: Bool[Tensor, "items labels"], maximum: float, n_levels: int
) -> list[list[list[float | None]]]:
    """Return `[low, high, precision]` of every band that has items, for each label."""
    fired = activations > 0
    if maximum <= 0 or not fired.any():
        return [[] for _ in range(labels.shape[1])]
    level = (activations[fired].double() / maximum * n_levels).ceil().long().clamp(1, n_levels) - 1
    counts = torch.bincount(level, minlength=n_levels)
    hits = torch.zeros(n_levels, labels.shape[1], dtype=torch.float64).index_add_(0, level, labels[fired].double())
    edges = [maximum * step / n_levels for step in range(n_levels + 1)]
    some = counts.nonzero()[:, 0].tolist()
    return [
        [[rounded(edges[i]), rounded(edges[i + 1]), rounded(float(hits[i, label] / counts[i]))] for i in some]
        for label in range(labels.shape[1])
    ]


def _blocks(latents: range) -> Iterable[range]:
    for first in range(latents.start, latents.stop, _UNITS_AT_ONCE):
        yield range(first, min(first + _UNITS_AT_ONCE, latents.stop))
