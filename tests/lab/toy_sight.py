"""A subject that sees 8 x 8 pictures through linear maps, pictures of known patterns, and latents planted for these."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sae.activations.store import Provenance
from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import HookpointError
from sae.evaluation.sample import Sample
from sae.inputs.base import Classes
from sae.lab.workbench import Workbench
from sae.subjects.base import Activation, Edit, Hookpoint
from sae.subjects.vision import ClipOutput
from sae.tensors import Batch, Kind, Rows

NAMES = ("cat", "dog", "sun", "owl")
FACETS = ("dim", "bright")
SIZE, D = 8, 12
LOWER, LAYER = "visual.layer1.0.hook_post", "visual.layer2.0.hook_post"
BLOCKS = torch.rand(len(NAMES), 3, 2, 2, generator=torch.Generator().manual_seed(0)).round()
PATTERNS = BLOCKS.repeat_interleave(SIZE // 2, 2).repeat_interleave(SIZE // 2, 3)


class ToySight:
    """Two layers of one position each, linear in the pixels' deviation from grey, and the embedding."""

    kind, id, frame_size = "clip", "toy:sight", (SIZE, SIZE)

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        pixels = (PATTERNS - 0.5).flatten(1)
        others = torch.randn(D - len(NAMES) - 1, pixels.shape[1], generator=generator) * 0.1
        bright = torch.full((1, pixels.shape[1]), 1.0)
        self.map = F.normalize(torch.cat([pixels, bright, others]), dim=1)

    def hookpoints(self) -> Mapping[str, Hookpoint]:
        names = {LOWER: "visual.layer1", LAYER: "visual.layer2", "visual.embedding": "visual.pooled"}
        return {name: Hookpoint(name, D, grid) for name, grid in names.items()}

    def rows(self, batch: Batch, grid: str) -> Rows:
        kind = torch.full((len(batch), 1), int(Kind.POOLED if grid == "visual.pooled" else Kind.PATCH))
        return Rows(keep=torch.ones(len(batch), 1, dtype=torch.bool), kind=kind.to(torch.uint8))

    def see(self, pictures: Tensor, hookpoints: Sequence[str]) -> dict[str, Activation]:
        lower = ((pictures - 0.5).flatten(1) @ self.map.T)[:, None]
        layer = lower * 1.0
        found = {LOWER: lower, LAYER: layer, "visual.embedding": layer * 1.0}
        if unknown := set(hookpoints) - set(found):
            raise HookpointError(str(unknown))
        return {name: found[name] for name in hookpoints}

    def run(self, batch: Batch, hookpoints: Sequence[str]) -> dict[str, Activation]:
        assert batch.images is not None
        return self.see(batch.images.float() / 255, hookpoints)

    def forward(self, batch: Batch, edits: Mapping[str, Edit] | None = None, grad: bool = False) -> Any:
        assert batch.images is not None
        embedding = self.run(batch, ["visual.embedding"])["visual.embedding"][:, 0]
        return ClipOutput(F.normalize(embedding, dim=1), None, torch.tensor(0.0), torch.tensor(0.0))

    def zero_shot_classifier(self, prompts: Sequence[Sequence[str]]) -> Tensor:
        shown = [PATTERNS[NAMES.index(of[0].split()[-1])] for of in prompts]
        return F.normalize(self.see(torch.stack(shown), [LAYER])[LAYER][:, 0], dim=1)

    def provenance(self) -> dict[str, Any]:
        return {"subject": self.id}


class ToyViews:
    """Noisy pictures of the patterns in turn, every other two of them bright."""

    fingerprint, bookkeeping = "toy", ()

    def __init__(self, n_examples: int, size: int = SIZE) -> None:
        self.n_examples, self.size = n_examples, size
        self.label_names = {"concept": NAMES, "facet": FACETS}
        self.classes = Classes("concept", [[f"a photo of a {name}"] for name in NAMES])

    def __len__(self) -> int:
        return self.n_examples

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]:
        number = np.arange(start, stop)
        return {"concept": number % len(NAMES), "facet": number // len(NAMES) % 2}

    def batch(self, start: int, stop: int) -> Batch:
        labels = self.labels(start, stop)
        noise = torch.stack(
            [torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(n)) for n in range(start, stop)]
        )
        light = torch.from_numpy(np.where(labels["facet"] == 1, 0.25, -0.1)).view(-1, 1, 1, 1)
        pictures = 0.4 * PATTERNS[labels["concept"]] + 0.2 * noise + 0.2 + light
        images = (255 * pictures.clamp(0, 1)).round().to(torch.uint8)
        return Batch(first_example=start, images=F.pad(images, (0, self.size - SIZE, 0, self.size - SIZE)))

    def describe(self) -> dict[str, Any]:
        return {"source": "toy"}


def bench(n: int = 200, hookpoint: str = LAYER, size: int = SIZE) -> Workbench:
    """Return a workbench whose latent i reads the direction that pattern i has in the layer; two more are random."""
    subject, inputs = ToySight(), ToyViews(n, size)
    directions = subject.see(PATTERNS, [LAYER])[LAYER][:, 0]
    directions = directions - directions.mean(0)
    others = 0.1 * torch.randn(2, D, generator=torch.Generator().manual_seed(2))
    directions = F.normalize(torch.cat([directions, others]), dim=1)
    dictionary = TopK(TopKConfig(d_sae=len(directions), k=1), D).requires_grad_(False)
    dictionary.W_enc_rows.copy_(directions)
    dictionary.W_dec.copy_(directions)
    dictionary.provenance = {"subject": subject.id, "hookpoint": hookpoint}
    x = subject.run(ToyViews(n).batch(0, n), [LAYER])[LAYER].flatten(0, 1)
    rows = Provenance(
        example=torch.arange(n), position=torch.zeros(n, dtype=torch.int32),
        kind=torch.full((n,), int(Kind.PATCH), dtype=torch.uint8), token=None,
    )  # fmt: skip
    labels = inputs.labels(0, n)
    made = Workbench(
        dictionary, subject, inputs, SimpleNamespace(store=SimpleNamespace(hookpoints={})), n,  # type: ignore[arg-type]
        about={"dictionary": {"sha256": "0" * 64}, "store": {"sha256": "0" * 64}},
    )  # fmt: skip
    match = torch.rand(n, generator=torch.Generator().manual_seed(3)) < 0.5
    made.__dict__["sample"] = Sample(
        x=x, rows=rows, pooled=True, labels=labels, factors=labels, label_names=inputs.label_names, match=match
    )
    return made
