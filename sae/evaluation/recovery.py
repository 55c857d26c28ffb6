"""Recovery of a known dictionary: how much of the ground truth a trained one has found."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.dictionaries.codes import Codes
from sae.errors import EvaluationError
from sae.evaluation.metric import Better, Score

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

    def matching(self) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        """Match true features and latents one to one so that the summed cosine is largest (Kuhn 1955)."""
        from scipy.optimize import linear_sum_assignment

        features, latents = linear_sum_assignment(self.cosine.numpy(force=True), maximize=True)
        return torch.from_numpy(features), torch.from_numpy(latents)

    def scores(self) -> list[Score]:
        """Return the three measures of direction recovery.

        `mean_max_cosine`: mean over true features of the largest cosine with a latent. `mcc`: mean cosine under the
        best one-to-one matching. `recovered_fraction`: share of true features with a cosine above 0.9. All have 1 as
        their best value; a true feature opposite to a latent is not recovered, since codes are not negative.
        """
        features, latents = self.matching()
        return [
            _score("mean_max_cosine", self.best.mean().item(), len(self.best)),
            _score("mcc", self.cosine[features, latents].mean().item(), len(features)),
            _score("recovered_fraction", (self.best > RECOVERED_COSINE).double().mean().item(), len(self.best)),
        ]


def firing_f1(recovery: Recovery, codes: Codes, fired: Bool[Tensor, "batch truth"]) -> Score:
    """F1 of firing: mean over true features of the F1 with which the matched latent fires when the feature does.

    Features and latents are matched one to one by decoder cosine; F1 = 2 TP / (2 TP + FP + FN), 0 for a latent that
    never fires; true features that never occur are left out. In [0, 1], higher is better (SynthSAEBench's definition
    with a one-to-one matching instead of the best latent).
    """
    features, latents = recovery.matching()
    predicted = codes.dense()[:, latents.to(codes.indices.device)] != 0
    actual = fired[:, features.to(fired.device)].to(predicted.device)
    hits, n_predicted, n_actual = (predicted & actual).sum(0), predicted.sum(0), actual.sum(0)
    occurs = n_actual > 0
    f1 = 2 * hits[occurs] / (n_predicted + n_actual)[occurs]
    return _score("firing_f1", f1.double().mean().item(), int(occurs.sum()))


def _score(name: str, value: float, n: int, better: Better = "higher") -> Score:
    return Score(name=name, version=1, value=value, n=n, unit="features", better=better)
