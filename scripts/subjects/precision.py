"""Products in bfloat16 on CPUs that have instructions for them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def half_products(half: bool) -> Iterator[None]:
    """Take products in bfloat16 where `half` says so; weights, sums and the optimiser stay in float32."""
    if not half:
        yield
        return
    # The backward pass of flash attention in bfloat16 takes as long as all the rest of a step.
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        yield
