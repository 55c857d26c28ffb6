"""Label metrics with an equal number of candidates: what the best of m units drawn at random scores on average.

The more units a set has, the better its best one is, whatever they are. These scores compare sets of different sizes:
m is the number of units of the smallest one.
"""

from jaxtyping import Float
from torch import Tensor

from sae.evaluation.detection import Detection, winning_chances
from sae.evaluation.metric import Measured, item_metric


@item_metric("label_phi_equal", better="higher", unit="labels", bounds=(-1.0, 1.0), chance=0.0, paired=True)
def label_phi_equal(found: Detection, n_candidates: int) -> Float[Tensor, " labels"]:
    """`label_phi` with an equal number of candidates: what the best of m units drawn at random scores on average.

    The expectation over all draws is exact, as in `label_auc_equal`; with m >= n it equals `label_phi`.
    """
    return (winning_chances(found.match_phi, n_candidates) * found.phi).sum(0)


@item_metric(
    "label_average_precision_equal", better="higher", unit="labels", bounds=(0.0, 1.0), chance=None, paired=True
)
def label_average_precision_equal(found: Detection, n_candidates: int) -> Float[Tensor, " labels"]:
    """`label_average_precision` with an equal number of candidates: what the best of m units drawn scores on average.

    The expectation over all draws is exact, as in `label_auc_equal`. The best is sought among those units of a draw
    that are among the 4 n / m of all n with the largest area or as many with the largest phi, 4 of which it holds on
    average. A draw without any, at most one in fifty, counts as chance, the share of items with the label. With m >= n
    it equals `label_average_precision`.
    """
    return found.average_precision(n_candidates)


def equal_label_scores(found: Detection, n_candidates: int) -> list[Measured]:
    """Return the metrics of this module; `n_candidates` is m."""
    return [label_phi_equal(found, n_candidates), label_average_precision_equal(found, n_candidates)]
