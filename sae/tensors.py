"""The axes that shapes are written in, and the batch that passes from inputs to subjects.

Axis names in jaxtyping annotations, everywhere the same:

    batch     rows of one step, whatever they came from
    example   prompts or images of one batch
    pos       positions within an example: tokens, or class token and patches
    d_in      width of the vectors at a hookpoint
    d_sae     number of latents
    k         latents kept per vector
    nnz       non-zero entries of sparse codes

Shapes are checked under pytest only; outside it the annotations cost nothing.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

Vectors = Float[Tensor, "batch d_in"]
"""Rows of activations, whatever the modality."""


class Kind(IntEnum):
    """What a row of a grid stands for; stored per row, so that training can leave kinds out."""

    TOKEN = 0
    BOS = 1
    SPECIAL = 2
    CLASS = 3
    PATCH = 4
    EOT = 5
    POOLED = 6


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Consecutive examples of one input source: text, images, or images with their captions.

    `first_example` is the index of the first one within its source. `attended` is False at padding; `kind` holds
    `Kind` values. `images` are preprocessed frames, uint8, before the subject's own normalisation.
    """

    first_example: int
    tokens: Int[Tensor, "example pos"] | None = None
    attended: Bool[Tensor, "example pos"] | None = None
    kind: UInt8[Tensor, "example pos"] | None = None
    images: UInt8[Tensor, "example 3 height width"] | None = None

    def __len__(self) -> int:
        """Return the number of examples."""
        filled = self.tokens if self.tokens is not None else self.images
        return 0 if filled is None else filled.shape[0]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Which positions of a batch are rows of a grid, and what each one is.

    `keep` marks positions that exist (no padding, nothing after the end of the text). `token` is the input token at
    the position where there is one. Pooled grids have a single position.
    """

    keep: Bool[Tensor, "example pos"]
    kind: UInt8[Tensor, "example pos"]
    token: Int[Tensor, "example pos"] | None = None

    def of_kinds(self, kinds: Collection[Kind]) -> Bool[Tensor, "example pos"]:
        """Mark the positions that exist and are of one of some kinds."""
        wanted = torch.tensor([int(kind) for kind in kinds], dtype=self.kind.dtype, device=self.kind.device)
        return self.keep & torch.isin(self.kind, wanted)
