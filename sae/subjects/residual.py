"""What a direction at a hookpoint adds to the residual stream, found by asking the subject itself."""

import re

import torch
from jaxtyping import Float
from torch import Tensor

from sae.subjects.base import Activation, Subject, find_hookpoint
from sae.subjects.splice import put, record
from sae.tensors import Batch, Kind

STREAM = ("hook_embed", "hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
"""Hookpoints whose vectors are the residual stream, or are added to it as they are."""
THROUGH = {"mlp.hook_post": "hook_mlp_out", "attn.hook_z": "hook_attn_out"}
"""Hookpoints whose vectors reach it through one linear layer, and where that layer's output is found."""
_PARTS = re.compile(r"(blocks\.\d+\.)?(.+)")
_POSITIONS = 16
_EXAMPLES = 32
_TOLERANCE = 0.02
"""Relative error that a linear map may have; bfloat16 rounds to 0.4 %."""


def stream_map(subject: Subject, hookpoint: str) -> Float[Tensor, "d_in d_model"] | None:
    """Return the matrix that takes a direction at a hookpoint to what it adds to the residual stream, in float32.

    The identity for the stream itself and for what is added to it. None where the way there is no linear map: before
    an activation function, or where a norm follows.

    Raises:
        HookpointError: the subject has no such hookpoint.
    """
    point = find_hookpoint(subject.hookpoints(), hookpoint, subject.id)
    block, place = _PARTS.fullmatch(hookpoint).groups(default="")  # type: ignore[union-attr]
    if place in STREAM:
        return torch.eye(point.d_in)
    target = block + THROUGH.get(place, "?")
    if target not in subject.hookpoints():
        return None
    trial = torch.randn(1, point.d_in, generator=torch.Generator().manual_seed(0))
    answers = _answers(subject, hookpoint, target, torch.cat([torch.eye(point.d_in), torch.zeros_like(trial), trial]))
    offset = answers[-2]
    matrix, expected = answers[:-2] - offset, answers[-1] - offset
    error = (trial[0] @ matrix - expected).norm() / expected.norm().clamp(min=torch.finfo(torch.float32).tiny)
    return matrix if error < _TOLERANCE else None


def _answers(
    subject: Subject, hookpoint: str, target: str, vectors: Float[Tensor, "n d_in"]
) -> Float[Tensor, "n d_model"]:
    """Put vectors at one hookpoint, one per position, and read another one."""
    found = []
    for part in vectors.split(_POSITIONS * _EXAMPLES):
        n_examples = -(-len(part) // _POSITIONS)
        tokens = torch.zeros(n_examples, _POSITIONS, dtype=torch.int64)
        keep = (torch.arange(tokens.numel()) < len(part)).view(tokens.shape)
        kind = torch.full(tokens.shape, int(Kind.TOKEN), dtype=torch.uint8)
        batch = Batch(first_example=0, tokens=tokens, attended=torch.ones_like(keep), kind=kind)
        read: dict[str, Activation] = {}
        with torch.no_grad():
            subject.forward(batch, {hookpoint: put(part, keep), target: record(read, target)})
        found.append(read[target][keep.to(read[target].device)].float().cpu())
    return torch.cat(found)
