"""Taking latents out of the subject: copies of examples, each without what one latent writes there."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.dictionaries.codes import Codes
from sae.dictionaries.sites import Site
from sae.subjects.base import Edit
from sae.tensors import Batch

Item = TypeVar("Item")


def stacked(batches: Sequence[Batch]) -> Batch:
    """Put examples into one batch; shorter texts are padded at their end, which is not attended."""
    length = max((batch.tokens.shape[1] for batch in batches if batch.tokens is not None), default=0)

    def joined(name: str) -> Tensor | None:
        parts = [getattr(batch, name) for batch in batches]
        if parts[0] is None or name == "images":
            return None if parts[0] is None else torch.cat(parts)
        return torch.cat([F.pad(part, (0, length - part.shape[1]), value=0) for part in parts])

    names = ("tokens", "attended", "kind", "images")
    return Batch(first_example=batches[0].first_example, **{name: joined(name) for name in names})


def copied(batch: Batch, source: Int[Tensor, " copies"]) -> Batch:
    """Return examples of a batch in any order, as often as they are named."""
    tensors = {one.name: getattr(batch, one.name) for one in fields(batch)}
    return replace(batch, **{name: value[source] for name, value in tensors.items() if isinstance(value, Tensor)})


def written(
    dictionary: Dictionary,
    codes: Codes,
    keep: Bool[Tensor, "example pos"],
    source: Int[Tensor, " copies"],
    removed: Sequence[int],
) -> Float[Tensor, "copies pos d_out"]:
    """Return what each latent writes into its copy of an example; zeros for a copy whose latent is negative.

    Args:
        dictionary: whose latents.
        codes: of the kept positions, in their order.
        keep: positions that were encoded.
        source: the example of each copy.
        removed: the latent of each copy.
    """
    row_of = torch.full(keep.shape, -1, dtype=torch.int64)
    row_of[keep] = torch.arange(int(keep.sum()))
    out = torch.zeros(len(source), keep.shape[1], dictionary.d_out)
    for copy, latent in enumerate(removed):
        if latent < 0:
            continue
        values, rows = strengths(codes, latent), row_of[source[copy]]
        strength = torch.where(rows >= 0, values[rows.clamp(min=0)], 0.0)
        out[copy] = strength[:, None] * dictionary.W_dec[latent].detach().float().cpu()
    return out


def strengths(codes: Codes, latent: int) -> Float[Tensor, " batch"]:
    """Return by how much each row holds a latent's direction: its code, in the units of the row where it has any."""
    values = codes.column(latent).float()
    return values if codes.row_deviation is None else values * codes.row_deviation[:, 0].float()


def without(part: Float[Tensor, "copies pos d_out"], sites: Sequence[Site]) -> dict[str, Edit]:
    """Return the edits that subtract what was written, at every site its own columns."""

    def subtract(columns: slice) -> Edit:
        return lambda x: x - part[..., columns].to(x)

    return {site.hookpoint: subtract(site.columns) for site in sites}


def chunks(items: list[Item], size: int) -> Iterator[list[Item]]:
    """Cut a list into pieces."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
