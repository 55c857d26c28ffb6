"""Subjects in which each class, or each token, has a direction of its own that a dictionary knows."""

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
from sae.tensors import Batch, Kind, Rows

PLACE, N_CLASSES, PER_CLASS, POSITIONS = "visual.place", 4, 40, 3
OWN, OTHER = 4.0, 1.0


def basis() -> torch.Tensor:
    """Return an orthogonal matrix, exact in binary: rows are directions of classes, none along a coordinate."""
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    return torch.kron(signs, signs) / 2


def latent_of(concept: int) -> int:
    """Return the latent that reads and writes the direction of a class."""
    return (concept + 2) % N_CLASSES


class PlantedClip:
    """An image holds its class's direction at strength 4 at one position, and the next class's at 1 at another.

    The image's embedding is the sum over positions in the basis of classes, so class i is answered by what is written
    along its direction and by nothing else.
    """

    kind, id = "clip", "planted:clip"

    def __init__(self, resumes: bool = False) -> None:
        self.n_run = 0
        if resumes:
            self.resume = lambda hookpoint, x: self._out(x)

    def hookpoints(self) -> dict[str, Hookpoint]:
        return {PLACE: Hookpoint(PLACE, N_CLASSES, "visual.grid")}

    def rows(self, batch: Batch, grid: str) -> Rows:
        shape = (len(batch), POSITIONS)
        return Rows(
            keep=torch.ones(shape, dtype=torch.bool), kind=torch.full(shape, int(Kind.PATCH), dtype=torch.uint8)
        )

    def run(self, batch: Batch, hookpoints: Any) -> dict[str, torch.Tensor]:
        assert batch.images is not None
        own = batch.images[:, 0, 0, 0].long()
        x = torch.zeros(len(own), POSITIONS, N_CLASSES)
        x[:, 0], x[:, 1] = OWN * basis()[own], OTHER * basis()[(own + 1) % N_CLASSES]
        return dict.fromkeys(hookpoints, x)

    def forward(self, batch: Batch, edits: Any = None, grad: bool = False) -> ClipOutput:
        x = self.run(batch, [PLACE])[PLACE]
        self.n_run += len(x)
        return self._out(edits[PLACE](x) if edits else x)

    def _out(self, x: torch.Tensor) -> ClipOutput:
        image = F.normalize(x.sum(1) @ basis().T, dim=1)
        return ClipOutput(image, None, torch.tensor(2.0), torch.zeros(()))

    def zero_shot_classifier(self, prompts: Any) -> torch.Tensor:
        return torch.eye(len(prompts))


class PlantedImages:
    """Images whose first pixel is their class."""

    label_names, bookkeeping = {"thing": [f"class {n}" for n in range(N_CLASSES)]}, ()
    classes = Classes("thing", [[f"class {n}"] for n in range(N_CLASSES)])

    def __len__(self) -> int:
        return N_CLASSES * PER_CLASS

    def batch(self, start: int, stop: int) -> Batch:
        images = torch.zeros(stop - start, 3, 1, 1, dtype=torch.uint8)
        images[:, 0, 0, 0] = torch.arange(start, stop) % N_CLASSES
        return Batch(first_example=start, images=images)

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]:
        return {"thing": np.arange(start, stop) % N_CLASSES}

    def describe(self) -> dict[str, Any]:
        return {"kind": "planted"}


def dictionary() -> TopK:
    found = TopK(TopKConfig(d_sae=N_CLASSES, k=2), N_CLASSES)
    rows = torch.zeros(N_CLASSES, N_CLASSES)
    for concept in range(N_CLASSES):
        rows[latent_of(concept)] = basis()[concept]
    for parameter in (found.W_dec, found.W_enc_rows):
        parameter.data.copy_(rows)
    found.provenance = {"hookpoint": PLACE}
    return found.eval()


def bench(subject: PlantedClip | None = None) -> Workbench:
    """Return a workbench over the planted images, without a store."""
    subject, inputs = subject or PlantedClip(), PlantedImages()
    n = len(inputs)
    x = subject.run(inputs.batch(0, n), [PLACE])[PLACE].flatten(0, 1)
    example = torch.arange(n).repeat_interleave(POSITIONS)
    kind = torch.full((len(x),), int(Kind.PATCH), dtype=torch.uint8)
    rows = Provenance(example=example, position=torch.arange(POSITIONS).repeat(n), kind=kind, token=None)
    labels = inputs.labels(0, n)
    sample = Sample(
        x=x, rows=rows, pooled=True, labels=labels, factors=labels, label_names=inputs.label_names,
        match=torch.arange(n) < n // 2,
    )  # fmt: skip
    found = Workbench(dictionary(), subject, inputs, None)  # type: ignore[arg-type]
    found.__dict__["sample"] = sample
    return found
