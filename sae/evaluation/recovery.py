"""Recovery of a known dictionary: how much of the ground truth a trained one has found."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.errors import EvaluationError
from sae.evaluation.metric import Measured, item_metric
from sae.evaluation.responses import Responses
from sae.evaluation.weights import Weights

RECOVERED_COSINE = 0.9
"""Cosine above which a true feature counts as recovered."""


@dataclass(frozen=True)
class Recovery:
    """A trained dictionary beside the true one: `cosine[i, j]` between true feature i and latent j."""

    cosine: Float[Tensor, "truth d_sae"]

    @classmethod
    def of(cls, W_dec: Float[Tensor, "d_sae d_in"], truth: Float[Tensor, "truth width"]) -> "Recovery":
        """Compare directions; lengths do not matter.

        Raises:
            EvaluationError: the widths differ.
        """
        if W_dec.shape[1] != truth.shape[1]:
            raise EvaluationError(f"recovery: the dictionary is {W_dec.shape[1]} wide, the truth {truth.shape[1]}.")
        unit = torch.nn.functional.normalize
        return cls(unit(truth.double(), dim=1) @ unit(W_dec.double(), dim=1).T)

    @property
    def best(self) -> Float[Tensor, " truth"]:
        """Largest cosine of each true feature with any latent."""
        return self.cosine.amax(1)

    @cached_property
    def matching(self) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        """Match true features and latents one to one so that the summed cosine is largest (Kuhn 1955)."""
        from scipy.optimize import linear_sum_assignment

        features, latents = linear_sum_assignment(self.cosine.numpy(force=True), maximize=True)
        return torch.from_numpy(features), torch.from_numpy(latents)

    def _of_matched(self, values: Float[Tensor, " pairs"]) -> Float[Tensor, " truth"]:
        """Spread values of matched pairs over the true features; nan for those left without a latent."""
        out = torch.full((len(self.cosine),), torch.nan, dtype=torch.float64)
        out[self.matching[0]] = values.double().cpu()
        return out


@dataclass(frozen=True)
class Firing:
    """How often each latent fires together with each true feature, and how often either fires at all."""

    hits: Float[Tensor, "d_sae truth"]
    n_latent: Float[Tensor, " d_sae"]
    n_feature: Float[Tensor, " truth"]

    @classmethod
    def of(cls, responses: Responses, fired: Bool[Tensor, "items truth"] | Weights) -> "Firing":
        """Count on items on which it is known which features are active."""
        weights = Weights.of(fired)
        return cls(responses.fired_total(weights), responses.n_fired.double(), weights.totals)


@item_metric("mean_max_cosine", better="higher", unit="features", bounds=(-1.0, 1.0), chance=None, paired=True)
def mean_max_cosine(recovery: Recovery) -> Float[Tensor, " truth"]:
    """Mean over true features of the largest decoder cosine with a latent, in [-1, 1]; higher is better.

    max_j cos(g_i, d_j). With its sign, since codes are not negative: a latent opposite to a feature has not found it.
    Many latents may share a feature; random directions already reach a value above 0 that grows with their number
    (Sharkey et al. 2022; there with latents and features exchanged).
    """
    return recovery.best


@item_metric("mcc", better="higher", unit="features", bounds=(-1.0, 1.0), chance=None, paired=True)
def mcc(recovery: Recovery) -> Float[Tensor, " truth"]:
    """Mean decoder cosine of true features and latents matched one to one, in [-1, 1]; higher is better.

    The matching has the largest summed cosine (Hungarian). With fewer latents than features, features that are left
    over are not counted (mean correlation coefficient, as in SynthSAEBench, but with the sign of the cosine kept).
    """
    return recovery._of_matched(recovery.cosine[recovery.matching])


@item_metric("recovered_fraction", better="higher", unit="features", bounds=(0.0, 1.0), chance=None, paired=True)
def recovered_fraction(recovery: Recovery) -> Float[Tensor, " truth"]:
    """Share of true features that have a decoder cosine above 0.9 with some latent, in [0, 1]; higher is better."""
    return (recovery.best > RECOVERED_COSINE).double()


@item_metric("unique_latents", better="higher", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False)
def unique_latents(recovery: Recovery) -> Float[Tensor, " d_sae"]:
    """Uniqueness: number of distinct true features that are some latent's best, over the number of latents.

    The best feature of a latent is the one with the largest decoder cosine. Of the latents that share a best feature
    the closest one counts 1, the others 0. In (0, 1], higher is better; below 1 by construction where there are more
    latents than features (SynthSAEBench).
    """
    cosine, feature = recovery.cosine.cpu().max(0)
    order = cosine.argsort(descending=True, stable=True)
    ranked = feature[order]
    # The first place of each feature in the ranking belongs to its closest latent.
    first = torch.full((len(recovery.cosine),), len(order)).scatter_reduce_(0, ranked, torch.arange(len(order)), "amin")
    unique = torch.zeros(len(order), dtype=torch.float64)
    unique[order[first[first < len(order)]]] = 1
    return unique


@item_metric("firing_f1", better="higher", unit="features", bounds=(0.0, 1.0), chance=None, paired=True)
def firing_f1(recovery: Recovery, firing: Firing) -> Float[Tensor, " truth"]:
    """F1 of firing: mean over true features of the F1 with which the matched latent fires when the feature does.

    Features and latents are matched one to one by decoder cosine; F1 = 2 TP / (2 TP + FP + FN), 0 for a latent that
    never fires; true features that never occur, or have no latent left to match, are left out. In [0, 1], higher is
    better (SynthSAEBench's definition with a one-to-one matching instead of the best latent).
    """
    features, latents = recovery.matching
    hits, occurs = firing.hits[latents, features], firing.n_feature[features] > 0
    f1 = 2 * hits / (firing.n_latent[latents] + firing.n_feature[features])
    return recovery._of_matched(torch.where(occurs, f1, torch.nan))


@item_metric("firing_precision", better="higher", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False)
def firing_precision(recovery: Recovery, firing: Firing) -> Float[Tensor, " d_sae"]:
    """Mean over latents of the share of its firings at which its closest true feature is active: TP / (TP + FP).

    The closest feature has the largest decoder cosine. In [0, 1], higher is better; a latent that never fires counts 0.
    """
    return _closest_hits(recovery, firing) / firing.n_latent.clamp(min=1)


@item_metric("firing_recall", better="higher", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False)
def firing_recall(recovery: Recovery, firing: Firing) -> Float[Tensor, " d_sae"]:
    """Mean over latents of the share of its closest true feature's occurrences at which it fires: TP / (TP + FN).

    The closest feature has the largest decoder cosine. In [0, 1], higher is better; a latent that never fires counts
    0, one whose feature never occurs is left out.
    """
    occurrences = firing.n_feature[recovery.cosine.argmax(0).cpu()]
    return _closest_hits(recovery, firing) / torch.where(occurrences > 0, occurrences, torch.nan)


def recovery_scores(recovery: Recovery, firing: Firing | None = None) -> list[Measured]:
    """Return all measures of recovery; those of firing where it was counted. 1 is the best value of each."""
    of_directions = (mean_max_cosine, mcc, recovered_fraction, unique_latents)
    measured = [metric(recovery) for metric in of_directions]
    if firing is not None:
        measured += [metric(recovery, firing) for metric in (firing_f1, firing_precision, firing_recall)]
    return measured


def _closest_hits(recovery: Recovery, firing: Firing) -> Float[Tensor, " d_sae"]:
    feature = recovery.cosine.argmax(0).cpu()
    return firing.hits.gather(1, feature[:, None])[:, 0]
