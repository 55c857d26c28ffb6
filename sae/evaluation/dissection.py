"""Network dissection: does a unit respond where in the picture a thing is? After Bau et al. 2017, arXiv 1704.05796.

A unit is *on* in the cells of an image grid where it is positive and among its largest activations, at most 1 % of all
cells. Its map is compared with the exact mask of a label by intersection over union (IoU) of pixels. Maps are enlarged
by nearest neighbour, not bilinearly as in the paper: a cell is on or off as a whole, so how much of each cell a mask
covers says everything, and IoU is exact without a map of pixels. Masks are visible coverage, fractional along edges.

The paper takes one share of cells for all units. A thing may be much rarer, and then a sparse unit, on only where it
fires, would win over a dense one just because the latter is cut at the wrong height. So the share is matched too.

Labels are the parts of the pictures whose masks are known, and each part once more for every value of the label family
of its name: `concept` is where any concept is, `concept=dog` where a dog is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.errors import EvaluationError
from sae.evaluation.detection import winning_chances
from sae.evaluation.metric import Measured, item_metric
from sae.evaluation.responses import SparseResponses
from sae.evaluation.sample import MIN_POSITIVES, Sample, Units
from sae.inputs.base import Masked
from sae.tensors import Kind

TOP_SHARES = (0.01, 0.005, 0.002, 0.001)
"""Shares of cells that a unit may be on in: that of Bau et al. 2020, that of 2017, and two for rarer things."""
DETECTOR = 0.04
"""IoU above which a unit counts as a detector of a label, as in the paper."""
LABELS_AT_ONCE = 64
"""Labels whose masks are spread over cells at a time."""


@dataclass(frozen=True, kw_only=True)
class Masks:
    """How much of each grid cell of each image each label covers.

    Attributes:
        names: of the labels.
        part: the part of the picture that each label is about.
        shown: the images in which that part has the label's value.
        shares: covered share of cells, in [0, 1].
    """

    names: tuple[str, ...]
    part: Int[Tensor, " labels"]
    shown: Bool[Tensor, "items labels"]
    shares: Float[Tensor, "items cells parts"]

    @classmethod
    def of(cls, sample: Sample, inputs: Masked, grid: tuple[int, int]) -> "Masks":
        """Take the masks of a sample's images.

        Left out are parts and values that are seen in fewer images of a half than labels need (`MIN_POSITIVES`).

        Args:
            sample: whose items are images.
            inputs: where the images come from.
            grid: rows and columns of the cells that patches lie on.

        Raises:
            EvaluationError: items are not images, or no part is frequent enough.
        """
        if not sample.pooled:
            raise EvaluationError("dissection: items are single rows; masks belong to images.")
        first, last = int(sample.example.min()), int(sample.example.max())
        shares = torch.from_numpy(inputs.masks(first, last + 1, grid)).float()[sample.example - first]
        names, part = list(inputs.mask_names), list(range(len(inputs.mask_names)))
        shown = [(shares[..., number] > 0).any(1) for number in part]
        for label, column in zip(sample.table.names, sample.table.columns.T, strict=True):
            family = label.split("=")[0]
            if family in inputs.mask_names:
                number = inputs.mask_names.index(family)
                names.append(label)
                part.append(number)
                shown.append(column & shown[number])
        seen = torch.stack(shown, 1)
        halves = torch.stack([seen[sample.match].sum(0), seen[~sample.match].sum(0)])
        frequent = (halves >= MIN_POSITIVES).all(0).nonzero()[:, 0]
        if not len(frequent):
            raise EvaluationError(
                f"dissection: no part is seen in {MIN_POSITIVES} images of each half of {sample.n_items}; evaluate "
                "more images."
            )
        return cls(
            names=tuple(names[label] for label in frequent),
            part=torch.tensor(part)[frequent],
            shown=seen[:, frequent],
            shares=shares,
        )

    def columns(
        self, item: Int[Tensor, " rows"], cell: Int[Tensor, " rows"]
    ) -> Iterator[Float[Tensor, "rows labels_at_once"]]:
        """Yield what some labels cover of each of a list of cells, label after label, in float64."""
        shares = self.shares[item, cell]
        for part, shown in zip(self.part.split(LABELS_AT_ONCE), self.shown.split(LABELS_AT_ONCE, 1), strict=True):
            yield (shares[:, part] * shown[item]).double()


@dataclass(frozen=True)
class Overlap:
    """IoU of every unit with every label, on the half to match on and on the half to score on."""

    match: Float[Tensor, "units labels"]
    score: Float[Tensor, "units labels"]

    @classmethod
    def of(cls, units: Units, masks: Masks, top_shares: Sequence[float] = TOP_SHARES) -> "Overlap":
        """Compare maps with masks at the threshold, of each pair, that is best on the half to match on.

        Raises:
            EvaluationError: the masks have another grid than the rows.
        """
        sample = units.sample
        patch = sample.rows.kind != int(Kind.CLASS)
        position = sample.rows.position.long()
        cell = position - int(position[patch].min())
        n_cells = masks.shares.shape[1]
        n_positions = int(cell[patch].max()) + 1
        if n_positions != n_cells:
            raise EvaluationError(
                f"dissection: masks were made for {n_cells} cells, but patches lie at {n_positions} positions."
            )
        on_match = patch & sample.match[sample.item]
        on_score = patch & ~sample.match[sample.item]
        # Whatever is on at any share is on at the largest one, so dense units are computed only for that.
        matched, scored = units.row_responses.on(on_match), units.row_responses.on(on_score)
        lowest = matched.kth_largest(_n_cells(max(top_shares), matched.n_items))
        lowest[matched.maximum == matched.minimum] = torch.inf  # a unit that never varies has no map
        matched, scored = matched.at_least(lowest), scored.at_least(lowest)
        best: Overlap | None = None
        for share in top_shares:
            threshold = matched.kth_largest(_n_cells(share, matched.n_items))
            overlap = cls(
                _iou(matched.at_least(threshold), masks.columns(sample.item[on_match], cell[on_match])),
                _iou(scored.at_least(threshold), masks.columns(sample.item[on_score], cell[on_score])),
            )
            best = overlap if best is None else best._or_better(overlap)
        assert best is not None, "no share to try"
        return best

    def _or_better(self, other: "Overlap") -> "Overlap":
        better = other.match > self.match
        return Overlap(torch.where(better, other.match, self.match), torch.where(better, other.score, self.score))

    @property
    def unit(self) -> Int[Tensor, " labels"]:
        """The unit matched to each label."""
        return self.match.argmax(0)

    @property
    def label(self) -> Int[Tensor, " units"]:
        """The label matched to each unit."""
        return self.match.argmax(1)


def _n_cells(share: float, n_cells: int) -> int:
    return max(1, round(share * n_cells))


def _iou(on: SparseResponses, columns: Iterator[Float[Tensor, "rows labels"]]) -> Float[Tensor, "units labels"]:
    """Return intersection over union; 0 where both are empty."""
    n_on = on.n_fired.double()[:, None]
    found = []
    for column in columns:
        intersection = on.fired_total(column)
        union = n_on + column.sum(0) - intersection
        found.append((intersection / union.where(union > 0, 1)).float())
    return torch.cat(found, 1)


@item_metric("dissection_iou", better="higher", unit="labels", bounds=(0.0, 1.0), chance=None, paired=True)
def dissection_iou(overlap: Overlap) -> Float[Tensor, " labels"]:
    """IoU of each label's mask with the map of the unit that matches it best (network dissection).

    A unit's map is the cells in which it is positive and among its largest 1, 0.5, 0.2 or 0.1 % of activations over
    all cells, ties included; units that fire in fewer cells are on wherever they fire. IoU = pixels in map and mask /
    pixels in either, summed over images. Unit and threshold are chosen on one half of the images; the IoU is that of
    the other half. In [0, 1]; a map that has nothing to do with the mask scores at most the smaller of their shares,
    0.01 or less. By the same arithmetic a map of 1 % cannot fill the mask of a large part: the background scores low
    whatever the unit does. Cells are enlarged by nearest neighbour (Bau et al. 2017, arXiv 1704.05796, enlarge
    bilinearly). Labels seen in fewer than 10 images of a half are left out; units that are dead or never vary score 0.
    """
    return overlap.score.gather(0, overlap.unit[None])[0]


@item_metric("dissection_iou_equal", better="higher", unit="labels", bounds=(0.0, 1.0), chance=None, paired=True)
def dissection_iou_equal(overlap: Overlap, n_candidates: int) -> Float[Tensor, " labels"]:
    """`dissection_iou` with an equal number of candidates: what the best of m units drawn at random scores on average.

    More units are more candidates for every label. The expectation over all draws is exact, as in `label_auc_equal`;
    with m >= n it equals `dissection_iou`. m is that of the smallest set of units compared.
    """
    return (winning_chances(overlap.match, n_candidates) * overlap.score).sum(0)


@item_metric("unit_iou", better="higher", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False)
def unit_iou(overlap: Overlap) -> Float[Tensor, " units"]:
    """IoU of each unit's map with the mask of the label that matches it best (see `dissection_iou`).

    Label and threshold are chosen on one half of the images; the IoU is that of the other half. In [0, 1], higher is
    better. Dead units score 0, and so does a unit that never is on in the half that scores.
    """
    return overlap.score.gather(1, overlap.label[:, None])[:, 0]


@item_metric("dissected_share", better="higher", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False)
def dissected_share(score: Measured) -> Float[Tensor, " units"]:
    """Share of units whose `unit_iou` is above 0.04, the limit of Bau et al. 2017 for a detector; dead units count."""
    return (score.values > DETECTOR).double()


def dissection_scores(units: Units, masks: Masks, n_candidates: int | None = None) -> list[Measured]:
    """Return the network dissection scores of units on a sample of images.

    Args:
        units: what to score.
        masks: of the sample's images.
        n_candidates: units of the smallest set that this one is compared with, for `dissection_iou_equal`.

    Raises:
        EvaluationError: the masks have another grid than the rows.
    """
    overlap = Overlap.of(units, masks)
    equal = [] if n_candidates is None else [dissection_iou_equal(overlap, n_candidates)]
    per_unit = unit_iou(overlap)
    return [dissection_iou(overlap), *equal, per_unit, dissected_share(per_unit)]
