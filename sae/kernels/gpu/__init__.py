"""Kernels for CUDA devices, written in Triton.

`topk` and `above` select fused with the encoder's product, so that [batch, d_sae] is never in memory; `entries` brings
what they find into compressed rows; `sparse` has everything after it. No operation of a training step waits for the
device, none uses atomics, and every sum has a fixed order: the same inputs give the same bits on the same device. Block
sizes are plain functions of the shapes, nothing is tuned at run time. On a machine without a GPU the kernels run,
slowly, in Triton's interpreter (TRITON_INTERPRET=1).
"""

from sae.kernels.gpu.entries import select_above, select_batch_topk, select_topk
from sae.kernels.gpu.sparse import accumulate, decode, gather_dots

__all__ = ["accumulate", "decode", "gather_dots", "select_above", "select_batch_topk", "select_topk"]
