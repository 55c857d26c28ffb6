"""The encoder's product by tiles: what both selections are fused with.

Sums are float32 (float64 for float64 weights). Factors are bf16 or float16 under autocast, else in the dtype of the
weights. Float32 factors are multiplied exactly (IEEE) unless torch.backends.cuda.matmul.fp32_precision is "tf32".
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

BLOCK_LATENTS = 128
"""Latents per tile."""


@triton.jit
@no_type_check
def pre_activations(
    x,
    weight,
    bias,
    rows,
    latents,
    batch,
    d_sae,
    d_in,
    SUM: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return x @ weight.T + bias for a block of rows and one of latents; -inf for latents from d_sae on.

    What is not a number counts as inf: it is selected, shows in the loss, and can be compared.
    """
    real_row, real_latent = rows < batch, latents < d_sae
    x_rows = x + rows.to(tl.int64)[:, None] * d_in
    weight_rows = weight + latents.to(tl.int64)[None, :] * d_in
    pre = tl.zeros([rows.shape[0], latents.shape[0]], SUM)
    for start in range(0, d_in, BLOCK_IN):
        inner = start + tl.arange(0, BLOCK_IN)
        left = tl.load(x_rows + inner[None, :], real_row[:, None] & (inner < d_in)[None, :], 0.0)
        right = tl.load(weight_rows + inner[:, None], real_latent[None, :] & (inner < d_in)[:, None], 0.0)
        pre = tl.dot(left, right, pre, input_precision=PRECISION, out_dtype=SUM)
    pre += tl.load(bias + latents, real_latent, 0.0).to(SUM)[None, :]
    pre = tl.where(pre == pre, pre, float("inf"))
    return tl.where(real_latent[None, :], pre, float("-inf"))


def operands(
    x: Float[Tensor, "batch d_in"], weight: Float[Tensor, "d_sae d_in"]
) -> tuple[Float[Tensor, "batch d_in"], Float[Tensor, "d_sae d_in"]]:
    """Return both factors, contiguous and in the dtype to multiply in."""
    device, dtype = weight.device.type, weight.dtype
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    return x.to(dtype).contiguous(), weight.to(dtype).contiguous()


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return what factors of a dtype are summed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def launch_options(batch: int, dtype: torch.dtype, most_rows: int) -> dict[str, Any]:
    """Return block sizes and precision of the product for a number of rows, at most `most_rows` to a block."""
    tf32 = dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    on_tensor_cores = tf32 or dtype.itemsize == 2
    # Without tensor cores the sums of a tile and its factors share the registers: smaller tiles.
    rows = most_rows if on_tensor_cores else min(most_rows, 64)
    return {
        "BLOCK_ROWS": min(rows, max(16, triton.next_power_of_2(batch))),
        "BLOCK_LATENTS": BLOCK_LATENTS,
        "BLOCK_IN": 128 // dtype.itemsize if on_tensor_cores else 16,
        "PRECISION": "tf32" if tf32 else "ieee",
        "num_warps": 8,
        "num_stages": 3,
    }
