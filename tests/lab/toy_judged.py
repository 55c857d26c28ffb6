"""A subject whose lean towards a mark is known, on pictures whose marks go with a class or do not."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from sae.activations.store import Provenance
from sae.dictionaries.topk import TopK, TopKConfig
from sae.evaluation.sample import Sample
from sae.inputs.base import Classes
from sae.lab.workbench import Workbench
from sae.subjects.base import Hookpoint
from sae.subjects.vision import ClipOutput
from sae.tensors import Batch

NAMES = ("cat", "dog", "sun", "owl", "cog", "hat")
D_JOINT, EXACT = 12, "visual.embedding"
MARK = len(NAMES)
"""Direction, and latent, of the mark."""


class ToyJudge:
    """A picture is its class's direction, some of the next one's, its mark's, and a little noise of its own.

    Args:
        lean: how much of the mark's direction the text of "cat" holds beyond the little that every text holds.
        mark: how much of it a marked picture holds.
    """

    kind, id = "clip", "toy:judge"

    def __init__(self, lean: float = 0.0, mark: float = 0.5) -> None:
        self.mark = mark
        generator = torch.Generator().manual_seed(0)
        self.basis = torch.linalg.qr(torch.randn(D_JOINT, D_JOINT, generator=generator)).Q
        self.noise = torch.randn(256, D_JOINT, generator=generator) * 0.05
        little = torch.tensor([0.02, -0.03, 0.01, 0.04, -0.02, 0.0])
        little[0] += lean
        self.texts = {name: self.basis[number] + little[number] * self.basis[MARK] for number, name in enumerate(NAMES)}
        self.texts |= {"mark": self.basis[MARK], "bare": -self.basis[MARK]}

    def hookpoints(self) -> dict[str, Hookpoint]:
        return {EXACT: Hookpoint(EXACT, D_JOINT, "visual.pooled")}

    def run(self, batch: Batch, hookpoints: Any) -> dict[str, torch.Tensor]:
        assert batch.images is not None
        shown, number, mark = batch.images[:, :, 0, 0].long().T
        x = (
            self.basis[shown]
            + 0.3 * self.basis[(shown + 1) % len(NAMES)]
            + self.mark * mark[:, None] * self.basis[MARK]
            + self.noise[number]
        )
        return dict.fromkeys(hookpoints, 3 * x[:, None])

    def forward(self, batch: Batch, edits: Any = None, grad: bool = False) -> ClipOutput:
        x = self.run(batch, [EXACT])[EXACT][:, 0]
        return ClipOutput(F.normalize(x, dim=1), None, torch.tensor(2.0), torch.tensor(0.0))

    def rows(self, batch: Batch, grid: str) -> Any:
        raise NotImplementedError

    def provenance(self) -> dict[str, Any]:
        return {"subject": self.id}

    def zero_shot_classifier(self, prompts: Any) -> torch.Tensor:
        common = self.basis[-1]
        texts = [sum((self.texts.get(word, 0 * common) for word in of[0].split()), 0.2 * common) for of in prompts]
        return F.normalize(torch.stack(texts), dim=1)


class ToyFaces:
    """Pictures of one class each, in turn, three in ten of them marked; of cats as many as it is told."""

    fingerprint, bookkeeping = "toy", ()
    classes = Classes("thing", [[f"a {name}"] for name in NAMES])

    def __init__(self, of_cats: float = 0.3, n: int = 600) -> None:
        self.label_names = {"thing": NAMES, "mark": ("no", "yes"), "kind": ("alive", "not")}
        self.n, rng = n, np.random.default_rng(0)
        self.thing = np.arange(n) % len(NAMES)
        self.mark = (rng.random(n) < np.where(self.thing == 0, of_cats, 0.3)).astype(np.int64)

    def __len__(self) -> int:
        return self.n

    def batch(self, start: int, stop: int) -> Batch:
        return Batch(first_example=start, images=self._images(np.arange(start, stop), self.mark[start:stop]))

    def _images(self, number: Any, mark: Any) -> torch.Tensor:
        columns = np.stack([self.thing[number], number % 256, mark], 1)
        return torch.from_numpy(columns).to(torch.uint8)[:, :, None, None]

    def varied(self, index: int, family: str) -> dict[str, Batch]:
        if family != "mark":
            return {}
        images = self._images(np.array([index, index]), np.array([0, 1]))
        return {name: Batch(first_example=index, images=images[[one]]) for one, name in enumerate(("no", "yes"))}

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]:
        found = {"thing": self.thing, "mark": self.mark, "kind": (self.thing > 3).astype(np.int64)}
        return {family: values[start:stop] for family, values in found.items()}

    def describe(self) -> dict[str, Any]:
        return {"source": "toy"}


def bench(lean: float = 0.0, of_cats: float = 0.3, hookpoint: str = EXACT, mark: float = 0.5) -> Workbench:
    """Return a workbench whose latent i reads and writes direction i of the basis."""
    subject, inputs = ToyJudge(lean, mark), ToyFaces(of_cats)
    n = len(inputs)
    dictionary = TopK(TopKConfig(d_sae=D_JOINT, k=3), D_JOINT).requires_grad_(False)
    dictionary.W_enc_rows.copy_(subject.basis)
    dictionary.W_dec.copy_(subject.basis)
    dictionary.provenance = {"subject": subject.id, "hookpoint": hookpoint}
    labels = inputs.labels(0, n)
    rows = Provenance(torch.arange(n), torch.zeros(n, dtype=torch.int32), torch.full((n,), 4, dtype=torch.uint8))
    about = {"dictionary": {"sha256": "0" * 64}, "store": {"sha256": "0" * 64}}
    made = Workbench(dictionary, subject, inputs, SimpleNamespace(), n, about=about)  # type: ignore[arg-type]
    match = torch.rand(n, generator=torch.Generator().manual_seed(3)) < 0.5
    made.__dict__["sample"] = Sample(
        x=subject.run(inputs.batch(0, n), [EXACT])[EXACT][:, 0], rows=rows, pooled=True, labels=labels, factors=labels,
        label_names=inputs.label_names, match=match,
    )  # fmt: skip
    return made
