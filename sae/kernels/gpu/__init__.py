"""Kernels for CUDA devices, written in Triton.

`topk` and `above` select fused with the encoder's product, so that [batch, d_sae] is never in memory; `sparse` has
everything after it. No operation waits for the device, none uses atomics, and every sum has a fixed order: the same
inputs give the same bits on the same device. Block sizes are plain functions of the shapes, nothing is tuned at run
time. On a machine without a GPU the kernels run, slowly, in Triton's interpreter (TRITON_INTERPRET=1).
"""

from sae.kernels.gpu.above import select_above
from sae.kernels.gpu.sparse import accumulate, decode, gather_dots
from sae.kernels.gpu.topk import select_topk

__all__ = ["accumulate", "decode", "gather_dots", "select_above", "select_topk"]
