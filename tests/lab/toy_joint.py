"""A subject whose joint space is known: texts are sums of their words, and pictures linear maps of what they show."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from sae.lab.workbench import Workbench
from sae.subjects.base import Activation, Edit, Hookpoint
from sae.subjects.vision import ClipOutput
from sae.tensors import Batch, Kind, Rows

NAMES = ("cat", "dog", "sun", "red", "big", "owl", "cog", "hat")
PARTS = {"cog": ("cat", "dog"), "hat": ("sun", "red")}
"""The text and the pictures of each are those of its parts together."""
D_JOINT = 16
LAYER = "visual.layer4.0.hook_post"


class ToyJoint:
    """Two hookpoints: a layer of two positions, and the embedding, which is linear in their sum."""

    kind, id = "clip", "toy:joint"

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn(D_JOINT, D_JOINT, generator=generator)).Q
        self.word = dict(zip(NAMES, basis, strict=False))
        for name, parts in PARTS.items():
            self.word[name] = sum(self.word[part] for part in parts)  # type: ignore[assignment]
        self.common = basis[-1]
        self.map = torch.linalg.qr(torch.randn(D_JOINT, D_JOINT, generator=generator)).Q

    def hookpoints(self) -> Mapping[str, Hookpoint]:
        return {
            LAYER: Hookpoint(LAYER, D_JOINT, "visual.layer4"),
            "visual.embedding": Hookpoint("visual.embedding", D_JOINT, "visual.pooled"),
        }

    def rows(self, batch: Batch, grid: str) -> Rows:
        n = 1 if grid == "visual.pooled" else 2
        kind = torch.full((len(batch), n), int(Kind.POOLED if n == 1 else Kind.PATCH), dtype=torch.uint8)
        return Rows(keep=torch.ones(len(batch), n, dtype=torch.bool), kind=kind)

    def layer(self, images: Tensor) -> Activation:
        """Return what is shown at the first position; the picture's number makes a little noise at the second."""
        shown, number = images[:, 0, 0, 0].long().clamp(max=len(NAMES)), images[:, 1, 0, 0].long()
        table = torch.stack([self.word[name] for name in NAMES] + [torch.zeros(D_JOINT)])
        noise = torch.randn(256, D_JOINT, generator=torch.Generator().manual_seed(1))
        return torch.stack([table[shown], 0.05 * noise[number]], 1) @ self.map.T

    def run(self, batch: Batch, hookpoints: Sequence[str]) -> dict[str, Activation]:
        x = self.layer(batch.images)  # type: ignore[arg-type]
        known = {LAYER: x, "visual.embedding": x.sum(1, keepdim=True) @ self.map}
        return {name: known[name] for name in hookpoints}

    def forward(self, batch: Batch, edits: Mapping[str, Edit] | None = None, grad: bool = False) -> Any:
        edits = edits or {}
        with torch.set_grad_enabled(grad):
            x = edits.get(LAYER, lambda x: x)(self.layer(batch.images))  # type: ignore[arg-type]
            embedding = edits.get("visual.embedding", lambda x: x)(x.sum(1, keepdim=True) @ self.map)
            return ClipOutput(F.normalize(embedding[:, 0], dim=1), None, torch.tensor(0.0), torch.tensor(0.0))

    def zero_shot_classifier(self, prompts: Sequence[Sequence[str]]) -> Tensor:
        """Words that it does not know, and those of the prompts around them, add nothing but what all texts share."""
        texts = [
            [sum((self.word.get(w, 0 * self.common) for w in one.split()), 2 * self.common) for one in of]
            for of in prompts
        ]
        return F.normalize(torch.stack([F.normalize(torch.stack(of), dim=1).mean(0) for of in texts]), dim=1)

    def provenance(self) -> dict[str, Any]:
        return {"subject": self.id}


class ToyPictures:
    """Pictures of one concept each, in turn, with captions and exact labels."""

    fingerprint, bookkeeping = "toy", ()

    def __init__(self, n_examples: int = 400) -> None:
        self.n_examples = n_examples
        self.label_names = {"concept": NAMES}
        self.classes = Classes("concept", [[f"a photo of a {name}", f"a {name}"] for name in NAMES])

    def __len__(self) -> int:
        return self.n_examples

    def parts(self) -> dict[str, tuple[str, ...]]:
        return PARTS

    def batch(self, start: int, stop: int) -> Batch:
        images = torch.zeros(stop - start, 3, 1, 1, dtype=torch.uint8)
        images[:, 0, 0, 0] = torch.arange(start, stop) % len(NAMES)
        images[:, 1, 0, 0] = torch.arange(start, stop) % 251
        return Batch(first_example=start, images=images)

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]:
        return {"concept": np.arange(start, stop) % len(NAMES)}

    def references(self, start: int, stop: int) -> list[dict[str, Any]]:
        return [{"caption": f"a photo of a {NAMES[number % len(NAMES)]}"} for number in range(start, stop)]

    def describe(self) -> dict[str, Any]:
        return {"source": "toy"}


def bench(hookpoint: str = "visual.embedding", n: int = 400) -> Workbench:
    """Return a workbench whose latent i reads and writes the direction of word i; others are random."""
    subject, inputs = ToyJoint(), ToyPictures(n)
    directions = torch.stack([subject.word[name] for name in NAMES[:6]])
    others = torch.randn(6, D_JOINT, generator=torch.Generator().manual_seed(2)) * 0.1
    directions = F.normalize(torch.cat([directions, others]), dim=1)
    if hookpoint == LAYER:
        directions = directions @ subject.map.T
    dictionary = TopK(TopKConfig(d_sae=12, k=2), D_JOINT).requires_grad_(False)
    dictionary.W_enc_rows.copy_(directions)
    dictionary.W_dec.copy_(directions)
    dictionary.provenance = {"subject": subject.id, "hookpoint": hookpoint}
    x = subject.run(inputs.batch(0, n), [hookpoint])[hookpoint]
    n_positions = x.shape[1]
    rows = Provenance(
        example=torch.arange(n).repeat_interleave(n_positions),
        position=torch.arange(n_positions, dtype=torch.int32).repeat(n),
        kind=subject.rows(inputs.batch(0, n), subject.hookpoints()[hookpoint].grid).kind.flatten(),
        token=None,
    )
    labels = inputs.labels(0, n)
    made = Workbench(
        dictionary, subject, inputs, SimpleNamespace(store=SimpleNamespace(hookpoints={})), n,  # type: ignore[arg-type]
        about={"dictionary": {"sha256": "0" * 64}, "store": {"sha256": "0" * 64}},
    )  # fmt: skip
    match = torch.rand(n, generator=torch.Generator().manual_seed(3)) < 0.5
    made.__dict__["sample"] = Sample(
        x=x.flatten(0, 1), rows=rows, pooled=True, labels=labels, factors=labels,
        label_names=inputs.label_names, match=match,
    )  # fmt: skip
    return made


def with_few(made: Workbench, *names: str) -> Workbench:
    """Take the labels of some concepts away from all but five of their pictures: too few for either half."""
    number = made.sample.labels["concept"].copy()
    for name in names:
        number[np.flatnonzero(number == NAMES.index(name))[5:]] = -1
    made.__dict__["sample"] = replace(made.sample, labels={"concept": number}, factors={"concept": number})
    return made
