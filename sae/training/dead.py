"""Which latents fire, how often, and which have not fired for too long."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.dictionaries.codes import Codes

N_BINS = 60
LOWEST_RATE = 1e-6


class FiringCounts:
    """Counts, for every latent, the vectors since it last fired and its firings within a window.

    A latent fires where its code is not zero. Nothing here waits for the device except `rates`.

    Args:
        d_sae: number of latents.
        dead_after_vectors: a latent that has not fired for this many vectors is dead.
        device: where the codes are.
    """

    def __init__(self, d_sae: int, dead_after_vectors: int, device: torch.device) -> None:
        self.dead_after_vectors = dead_after_vectors
        self.since_fired = torch.zeros(d_sae, dtype=torch.int64, device=device)
        self.window_fired = torch.zeros(d_sae, dtype=torch.int64, device=device)
        self.window_vectors = 0

    @torch.no_grad()
    def update(self, codes: Codes) -> Int[Tensor, " d_sae"]:
        """Count one batch and return how often each latent fired in it."""
        fired = codes.n_fired()
        self.since_fired.add_(len(codes)).mul_(fired == 0)
        self.window_fired += fired
        self.window_vectors += len(codes)
        return fired

    def dead(self) -> Bool[Tensor, " d_sae"]:
        """Return which latents have not fired for `dead_after_vectors` vectors or more."""
        return self.since_fired >= self.dead_after_vectors

    def dead_fraction(self) -> Float[Tensor, ""]:
        """Return the share of dead latents, in [0, 1]."""
        return self.dead().float().mean()

    def rates(self) -> Float[np.ndarray, " d_sae"]:
        """Return the share of the window's vectors that each latent fired on, and start a new window."""
        rates = self.window_fired.cpu().numpy() / max(self.window_vectors, 1)
        self.window_fired.zero_()
        self.window_vectors = 0
        return rates

    def state_dict(self) -> dict[str, Tensor | int]:
        return {
            "since_fired": self.since_fired,
            "window_fired": self.window_fired,
            "window_vectors": self.window_vectors,
        }

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        self.since_fired.copy_(torch.as_tensor(state["since_fired"]))
        self.window_fired.copy_(torch.as_tensor(state["window_fired"]))
        self.window_vectors = int(state["window_vectors"])


def rate_histogram(rates: Float[np.ndarray, " d_sae"]) -> tuple[list[int], list[float]]:
    """Count latents by the decimal logarithm of their firing rate.

    Returns:
        Counts and bin edges from log10(1e-6) to 0; rates below the lowest edge, zero included, are in the first bin.
    """
    logarithms = np.log10(np.clip(rates, LOWEST_RATE, 1.0))
    counts, edges = np.histogram(logarithms, bins=N_BINS, range=(np.log10(LOWEST_RATE), 0.0))
    return counts.tolist(), edges.tolist()
