"""A subject whose answer is decided by latents that read: one for the name of each class, and they outweigh the thing.

A picture's first pixel says what it shows, its last one what is written; `stamp` writes there in the place of letters.
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sae.activations.store import Provenance
from sae.dictionaries.topk import TopK, TopKConfig
from sae.evaluation.sample import Sample
from sae.inputs.base import Classes
from sae.inputs.writing import Writing
from sae.lab.workbench import Workbench
from sae.subjects.base import Activation, Edit, Hookpoint
from sae.subjects.vision import ClipOutput
from sae.tensors import Batch, Kind, Rows

NAMES = ("cat", "dog", "sun", "owl", "hat", "car", "pig", "key")
N, SIDE, PLACE = len(NAMES), 8, "visual.place"
READS, SEEN_WHEN_READ, TEXT_LIKE = 2.0, 0.5, 0.1
NO_WORD, FIRST_WORD = 99, 100
TEXTURE = 2 * N
"""The latent that fires for anything written; latent i is the thing i, and N + i reads its name."""


def stamp(picture: np.ndarray, writing: Writing) -> tuple[np.ndarray, np.ndarray]:
    """Write one pixel."""
    written, mask = picture.copy(), np.zeros(picture.shape[:2], dtype=bool)
    written[-1, -1] = FIRST_WORD + NAMES.index(writing.word) if writing.word in NAMES else NO_WORD
    mask[-1, -1] = True
    return written, mask


class ToyReader:
    """Two hookpoints: a place of two positions, what is shown and what is written, and the embedding."""

    kind, id = "clip", "toy:reader"

    def hookpoints(self) -> Mapping[str, Hookpoint]:
        return {
            PLACE: Hookpoint(PLACE, 2 * N + 1, "visual.layer4"),
            "visual.embedding": Hookpoint("visual.embedding", N, "visual.pooled"),
        }

    def rows(self, batch: Batch, grid: str) -> Rows:
        n = 1 if grid == "visual.pooled" else 2
        kind = torch.full((len(batch), n), int(Kind.POOLED if n == 1 else Kind.PATCH), dtype=torch.uint8)
        return Rows(keep=torch.ones(len(batch), n, dtype=torch.bool), kind=kind)

    def place(self, images: Tensor) -> Activation:
        thing, word = images[:, 0, 0, 0].long(), images[:, 0, -1, -1].long()
        x, here = torch.zeros(len(images), 2, 2 * N + 1), torch.arange(len(images))
        shown = thing < N
        x[here[shown], 0, thing[shown]] = 1.0
        read = (word >= FIRST_WORD) & (word < FIRST_WORD + N)
        x[here[read], 1, N + word[read] - FIRST_WORD] = READS
        x[here[read], 1, word[read] - FIRST_WORD] = SEEN_WHEN_READ
        x[here[read | (word == NO_WORD)], 1, TEXTURE] = TEXT_LIKE
        return x

    def joint(self, x: Activation) -> Activation:
        total = x.sum(1, keepdim=True)
        return total[..., :N] + total[..., N : 2 * N] + 1e-3

    def run(self, batch: Batch, hookpoints: Sequence[str]) -> dict[str, Activation]:
        x = self.place(batch.images)  # type: ignore[arg-type]
        known = {PLACE: x, "visual.embedding": self.joint(x)}
        return {name: known[name] for name in hookpoints}

    def forward(self, batch: Batch, edits: Mapping[str, Edit] | None = None, grad: bool = False) -> Any:
        edits = edits or {}
        with torch.set_grad_enabled(grad):
            x = edits.get(PLACE, lambda x: x)(self.place(batch.images))  # type: ignore[arg-type]
            image = edits.get("visual.embedding", lambda x: x)(self.joint(x))
            return ClipOutput(F.normalize(image[:, 0], dim=1), None, torch.tensor(2.0), torch.tensor(0.0))

    def zero_shot_classifier(self, prompts: Sequence[Sequence[str]]) -> Tensor:
        return torch.eye(N)[torch.arange(len(prompts)) % N]

    def preprocess(self, image: Any) -> Tensor:
        return torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)


class ToyThings:
    """Pictures of each class in turn; the label `text` says what is written in every tenth."""

    fingerprint, bookkeeping, mask_names = "toy", (), ("text",)
    label_names: Mapping[str, Sequence[str]] = {"concept": NAMES, "text": NAMES}
    classes = Classes("concept", [[f"a photo of a {name}"] for name in NAMES])

    def __len__(self) -> int:
        return 640

    def text(self, number: int) -> int:
        return (number + 3) % N if number % 10 == 0 else -1

    def batch(self, start: int, stop: int) -> Batch:
        images = torch.full((stop - start, 3, SIDE, SIDE), 50, dtype=torch.uint8)
        for i, number in enumerate(range(start, stop)):
            images[i, :, 0, 0] = number % N
            if self.text(number) >= 0:
                images[i, :, -1, -1] = FIRST_WORD + self.text(number)
        return Batch(first_example=start, images=images)

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]:
        numbers = np.arange(start, stop)
        return {"concept": numbers % N, "text": np.array([self.text(one) for one in numbers.tolist()])}

    def masks(self, start: int, stop: int, grid: tuple[int, int]) -> np.ndarray:
        found = np.zeros((stop - start, grid[0] * grid[1], 1), np.float32)
        found[[self.text(number) >= 0 for number in range(start, stop)], -1] = 1
        return found

    def describe(self) -> dict[str, Any]:
        return {"source": "toy"}


def dictionary() -> TopK:
    """Return a latent for every coordinate."""
    found = TopK(TopKConfig(d_sae=2 * N + 1, k=3), 2 * N + 1).requires_grad_(False)
    found.W_enc_rows.copy_(torch.eye(2 * N + 1))
    found.W_dec.copy_(torch.eye(2 * N + 1))
    found.provenance = {"subject": ToyReader.id, "hookpoint": PLACE}
    return found.eval()


def bench() -> Workbench:
    """Return a workbench over the pictures, without a store."""
    subject, inputs = ToyReader(), ToyThings()
    n = len(inputs)
    batch = inputs.batch(0, n)
    rows = Provenance(
        example=torch.arange(n).repeat_interleave(2),
        position=torch.arange(2, dtype=torch.int32).repeat(n),
        kind=torch.full((2 * n,), int(Kind.PATCH), dtype=torch.uint8),
    )
    labels = inputs.labels(0, n)
    made = Workbench(
        dictionary(), subject, inputs, SimpleNamespace(store=SimpleNamespace(hookpoints={})), n,  # type: ignore[arg-type]
        about={"dictionary": {"sha256": "0" * 64}, "store": {"sha256": "0" * 64}},
    )  # fmt: skip
    match = torch.rand(n, generator=torch.Generator().manual_seed(3)) < 0.5
    x = subject.run(batch, [PLACE])[PLACE].flatten(0, 1)
    made.__dict__["sample"] = Sample(
        x=x, rows=rows, pooled=True, labels=labels, factors=labels, label_names=inputs.label_names, match=match
    )
    return made
