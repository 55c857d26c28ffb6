"""Subjects whose activations are rows of a toy, so that what splicing does to a subject is known exactly."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sae.evaluation.toys import Toy
from sae.subjects.base import Activation, Edit, Hookpoint
from sae.subjects.vision import ClipOutput
from sae.tensors import Batch, Kind, Rows

HOOKPOINT = "blocks.0.hook_resid_post"
VISUAL_HOOKPOINT = "visual.embedding"
BOS = 0
"""The token that every text starts with."""


class ToyLanguage:
    """A language model that looks up a row of a toy for every token and reads the next token off it.

    x = rows[token], logits = x U. Texts are drawn from its own predictions, so on average any other answer is worse:
    the cross-entropy of an ablation minus its own is a divergence.

    Args:
        rows: one row of a toy per token.
        seed: of U.
        sharpness: how far logits spread.
    """

    kind, predicts_next_token = "language", True

    def __init__(self, rows: Float[Tensor, "vocab d_in"], seed: int = 0, sharpness: float = 2.0) -> None:
        self.id, self.table = "toy:language", rows
        generator = torch.Generator().manual_seed(seed)
        self.unembed = sharpness * torch.randn(rows.shape[1], len(rows), generator=generator)

    def hookpoints(self) -> Mapping[str, Hookpoint]:
        return {HOOKPOINT: Hookpoint(HOOKPOINT, self.table.shape[1], "tokens")}

    def rows(self, batch: Batch, grid: str) -> Rows:
        assert batch.attended is not None and batch.kind is not None
        return Rows(keep=batch.attended, kind=batch.kind, token=batch.tokens)

    def run(self, batch: Batch, hookpoints: Sequence[str]) -> dict[str, Activation]:
        assert batch.tokens is not None
        return dict.fromkeys(hookpoints, self.table[batch.tokens])

    def forward(self, batch: Batch, edits: Mapping[str, Edit] | None = None, grad: bool = False) -> Any:
        x = self.run(batch, [HOOKPOINT])[HOOKPOINT]
        edit = (edits or {}).get(HOOKPOINT)
        return (edit(x) if edit else x) @ self.unembed

    def direct_logits(self, directions: Float[Tensor, "n d_in"]) -> Float[Tensor, "n vocab"]:
        logits = directions @ self.unembed
        return logits - logits.mean(1, keepdim=True)

    def provenance(self) -> dict[str, Any]:
        return {"subject": self.id}

    def texts(self, n_examples: int, length: int, seed: int = 0) -> Batch:
        """Write texts, token by token, after `BOS`."""
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.full((n_examples, length), BOS)
        for place in range(1, length):
            odds = (self.table[tokens[:, place - 1]] @ self.unembed).softmax(-1)
            tokens[:, place] = torch.multinomial(odds, 1, generator=generator)[:, 0]
        kind = torch.full(tokens.shape, int(Kind.TOKEN), dtype=torch.uint8)
        kind[:, 0] = int(Kind.BOS)
        return Batch(first_example=0, tokens=tokens, attended=torch.ones_like(tokens, dtype=torch.bool), kind=kind)


class ToyClip:
    """Two towers: a picture is the number of a row of a toy, a text that of a feature, and both land in one space.

    The embedding of a picture is its row, that of a text the direction of its feature.

    Args:
        toy: whose features the texts name.
        rows: one row per picture.
    """

    kind = "clip"
    LOGIT_SCALE = torch.tensor(3.0)

    def __init__(self, toy: Toy, rows: Float[Tensor, "pictures d_in"]) -> None:
        self.id, self.directions, self.table = "toy:clip", toy.directions, rows

    def hookpoints(self) -> Mapping[str, Hookpoint]:
        return {VISUAL_HOOKPOINT: Hookpoint(VISUAL_HOOKPOINT, self.table.shape[1], "visual.pooled")}

    def rows(self, batch: Batch, grid: str) -> Rows:
        shape = (len(batch), 1)
        kind = torch.full(shape, int(Kind.POOLED), dtype=torch.uint8)
        return Rows(keep=torch.ones(shape, dtype=torch.bool), kind=kind)

    def run(self, batch: Batch, hookpoints: Sequence[str]) -> dict[str, Activation]:
        assert batch.images is not None
        low, high = batch.images[:, :2, 0, 0].long().T
        return dict.fromkeys(hookpoints, self.table[low + 256 * high][:, None])

    def forward(self, batch: Batch, edits: Mapping[str, Edit] | None = None, grad: bool = False) -> Any:
        x = self.run(batch, [VISUAL_HOOKPOINT])[VISUAL_HOOKPOINT]
        edit = (edits or {}).get(VISUAL_HOOKPOINT)
        image = F.normalize((edit(x) if edit else x)[:, 0], dim=1)
        text = None if batch.tokens is None else self.directions[batch.tokens[:, 0]]
        return ClipOutput(image, text, self.LOGIT_SCALE, torch.zeros(()))

    def zero_shot_classifier(self, prompts: Sequence[Sequence[str]]) -> Float[Tensor, "n_classes d_joint"]:
        """Return the directions of features; the one prompt of a class is the number of its feature."""
        return self.directions[[int(number) for (number,) in prompts]]

    def provenance(self) -> dict[str, Any]:
        return {"subject": self.id}

    @staticmethod
    def pictures(numbers: Int[Tensor, " pictures"], captions: Int[Tensor, " pictures"] | None = None) -> Batch:
        """Return pictures by number, with the features that their captions name."""
        images = torch.zeros(len(numbers), 3, 1, 1, dtype=torch.uint8)
        images[:, 0, 0, 0], images[:, 1, 0, 0] = numbers % 256, numbers // 256
        return Batch(
            first_example=int(numbers[0]), images=images, tokens=None if captions is None else captions[:, None]
        )
