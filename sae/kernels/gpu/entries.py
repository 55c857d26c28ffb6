"""Selections of unknown size in compressed rows, without waiting for the device.

How many entries exceed a threshold is known on the device alone, and to ask would stop the host. So every row gets the
same room, filled up with entries of value -inf, and the number wanted is copied back in the background: should a row
have needed more, the next call has it. Where no gradients are taken nothing may be missed, and the host does wait.
"""

import logging

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.kernels.gpu import above, topk

logger = logging.getLogger(__name__)

SMALLEST_ROOM = 256
"""Entries per row that there is always room for."""

BATCH_ROOM = 8
"""Room of a row in a selection over a batch, in multiples of the mean."""

Entries = tuple[Int[Tensor, " batch_plus_1"], Int[Tensor, " nnz"], Float[Tensor, " nnz"]]


class Room:
    """How many entries a row may have, learned from the calls before."""

    def __init__(self) -> None:
        self.entries = SMALLEST_ROOM
        self._wanted: tuple[Tensor, torch.cuda.Event] | None = None

    def observe(self, counts: Int[Tensor, " batch"]) -> None:
        """Start copying the largest count of a call to the host."""
        if counts.device.type == "cuda" and len(counts) and self._wanted is None:
            largest = torch.empty((), dtype=counts.dtype, pin_memory=True)
            largest.copy_(counts.amax(), non_blocking=True)
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(counts.device))
            self._wanted = largest, event

    def settle(self) -> None:
        """Make room for the largest count that has arrived."""
        if self._wanted is not None and self._wanted[1].query():
            wanted, self._wanted = int(self._wanted[0]), None
            if wanted > self.entries:
                logger.warning(
                    "A vector had %d active latents, %d of which fitted; there is room now.", wanted, self.entries
                )
                self.grow(wanted)

    def grow(self, wanted: int) -> None:
        """Make room for this many entries, and a quarter more."""
        self.entries = 1 << (wanted + wanted // 4 - 1).bit_length()


ROOM = Room()


def select_above(
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    threshold: Float[Tensor, "..."],
) -> Entries:
    """Return the pre-activations above a threshold, one per latent or one for all, in rows of equal room.

    In training a row may lack entries beyond the room in the first step that needs more; in use it never does.
    """
    ROOM.settle()
    per_latent = threshold.expand(len(weight)).contiguous()
    values, indices, counts = above.select_above(x, weight, bias, per_latent, min(ROOM.entries, len(weight)))
    if torch.is_grad_enabled() and weight.requires_grad:
        ROOM.observe(counts)
    elif len(counts) and int(counts.amax()) > values.shape[1]:
        ROOM.grow(int(counts.amax()))
        values, indices, _ = above.select_above(x, weight, bias, per_latent, min(ROOM.entries, len(weight)))
    return _compressed(values, indices)


def select_batch_topk(
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    n: int,
    floor: Float[Tensor, ""],
) -> Entries:
    """Return the n largest positive pre-activations of a batch; a row takes at most `BATCH_ROOM` times its share.

    The largest of every row are found first, then the largest of these: batch x d_sae is neither stored nor sorted.
    """
    room = min(BATCH_ROOM * -(-n // max(len(x), 1)), len(weight))
    values, indices = topk.select_topk(x, weight, bias, room, None, 0)
    cut = values.flatten().topk(min(n, values.numel()), sorted=True).values[-1:].clamp_min(0)
    return _compressed(values.where((values >= cut) & (values > 0), -torch.inf), indices)


def select_topk(
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    k: int,
    dead: Tensor | None,
    k_aux: int,
    absolute: bool = False,
) -> tuple[Float[Tensor, "batch n"], Int[Tensor, "batch n"]]:
    """As `reference.select_topk`; the furthest from zero are the largest among the latents and their negatives."""
    if not absolute:
        if k:
            return topk.select_topk(x, weight, bias, k, dead, k_aux)
        # The dead alone: one column of the others comes with them and is cut off.
        values, indices = topk.select_topk(x, weight, bias, 1, dead, k_aux)
        return values[:, 1:].contiguous(), indices[:, 1:].contiguous()
    d_sae = len(weight)
    values, indices = topk.select_topk(x, torch.cat([weight, -weight]), torch.cat([bias, -bias]), k, None, 0)
    negative = indices >= d_sae
    values, indices = torch.where(negative, -values, values), torch.where(negative, indices - d_sae, indices)
    if dead is None or not k_aux:
        return values, indices
    dead_values, dead_indices = select_topk(x, weight, bias, 0, dead, k_aux)
    return torch.cat([values, dead_values], 1), torch.cat([indices, dead_indices], 1)


def _compressed(values: Tensor, indices: Tensor) -> Entries:
    batch, room = values.shape
    offsets = torch.arange(batch + 1, device=values.device) * room
    return offsets, indices.reshape(-1).where(values.reshape(-1) > -torch.inf, 0), values.reshape(-1)
