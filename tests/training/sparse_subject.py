"""A subject whose vectors are sums of a few known directions, and inputs that say which."""

from pathlib import Path
from typing import Any

import torch

from sae.activations.harvest import harvest
from sae.activations.harvest_config import HarvestConfig
from sae.activations.store import ActivationStore
from sae.subjects.base import Hookpoint
from sae.tensors import Batch, Kind, Rows

D_IN, N_CONCEPTS, N_POSITIONS = 16, 32, 16
HOOKPOINT, WIDE = "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"
IMAGE, TEXT = "visual.embedding", "text.embedding"


class SparseSubject:
    """Returns sums of a few fixed directions that depend on the tokens alone; position 0 is a BOS of huge norm.

    Vectors at `WIDE` are sums over the same concepts along other directions, and ten times as long. The pooled ones
    are those of position 1.
    """

    kind = "sparse"

    def __init__(self, id: str = "sparse", seed: int = 1) -> None:
        self.id, self.seed = id, seed

    def hookpoints(self) -> dict[str, Hookpoint]:
        grids = {HOOKPOINT: "tokens", WIDE: "tokens", IMAGE: "visual.pooled", TEXT: "text.pooled"}
        return {name: Hookpoint(name, D_IN + 4 * (name == WIDE), grid) for name, grid in grids.items()}

    def run(self, batch: Batch, hookpoints: Any) -> dict[str, torch.Tensor]:
        return {name: self.vectors(batch, number, name) for number, name in enumerate(self.hookpoints())}

    def vectors(self, batch: Batch, number: int, name: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed + 100 * number)
        directions = torch.randn(N_CONCEPTS, self.hookpoints()[name].d_in, generator=generator)
        bits = (batch.tokens[..., None] >> torch.arange(N_CONCEPTS)) & 1
        x = bits.float() @ directions + 2.0
        x[:, 0] = 1e4
        x = x[:, 1:2] if name in (IMAGE, TEXT) else x
        return 10 * x if name == WIDE else x

    def rows(self, batch: Batch, grid: str) -> Rows:
        if grid != "tokens":
            pooled = torch.full((len(batch), 1), int(Kind.POOLED), dtype=torch.uint8)
            return Rows(keep=torch.ones_like(pooled, dtype=torch.bool), kind=pooled)
        kind = torch.full(batch.tokens.shape, int(Kind.TOKEN), dtype=torch.uint8)
        kind[:, 0] = Kind.BOS
        return Rows(keep=torch.ones_like(kind, dtype=torch.bool), kind=kind, token=batch.tokens)

    def provenance(self) -> dict[str, Any]:
        return {"weights": "none"}


class SparseInputs:
    """Tokens whose bits say which concepts are present, three or four at a time."""

    fingerprint = "sparse"

    def __len__(self) -> int:
        return 256

    def batch(self, start: int, stop: int) -> Batch:
        present = torch.randint(N_CONCEPTS - 1, (len(self), N_POSITIONS, 4), generator=torch.Generator().manual_seed(2))
        tokens = torch.zeros(len(self), N_POSITIONS, dtype=torch.int64)
        for concept in present.unbind(-1):
            tokens |= 1 << concept
        return Batch(first_example=start, tokens=tokens[start:stop])

    def describe(self) -> dict[str, Any]:
        return {"kind": "sparse"}


def harvested(subject: SparseSubject, folder: Path, **settings: Any) -> ActivationStore:
    """Harvest every hookpoint."""
    names = tuple(subject.hookpoints())
    given = {"shard_examples": 64, "dtype": "float32"} | settings
    return harvest(subject, SparseInputs(), HarvestConfig(subject=subject.id, hookpoints=names, out=folder, **given))
