"""Kernels for CUDA devices, written in Triton.

`topk`, `above` and `batch` select fused with the encoder's product, so that [batch, d_sae] is never in memory; `sparse`
has everything after it. None uses atomics, and every sum has a fixed order: the same inputs give the same bits on the
same device. Only `select_above` and `select_batch_topk`, whose results have no known size, wait for the device. Block
sizes are plain functions of the shapes, nothing is tuned at run time. Without a GPU the kernels run, slowly, in
Triton's interpreter (TRITON_INTERPRET=1).
"""

from sae.kernels.gpu.above import select_above, select_above_within
from sae.kernels.gpu.batch import select_batch_topk
from sae.kernels.gpu.sparse import accumulate, decode, gather_dots
from sae.kernels.gpu.topk import select_topk

__all__ = [
    "accumulate",
    "decode",
    "gather_dots",
    "select_above",
    "select_above_within",
    "select_batch_topk",
    "select_topk",
]
