"""A small store of vectors with a known sparse structure."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sae.activations.harvest import harvest
from sae.activations.harvest_config import HarvestConfig
from sae.activations.store import ActivationStore
from sae.dictionaries.topk import TopKConfig
from sae.subjects.base import Hookpoint
from sae.tensors import Batch, Kind, Rows
from sae.training.config import TrainConfig
from sae.training.optimiser import AdamConfig

D_IN, N_CONCEPTS, N_POSITIONS = 16, 32, 16
HOOKPOINT = "blocks.0.hook_resid_post"


class SparseSubject:
    """Returns sums of a few fixed directions that depend on the tokens alone; position 0 is a BOS of huge norm."""

    id = kind = "sparse"

    def hookpoints(self) -> dict[str, Hookpoint]:
        return {HOOKPOINT: Hookpoint(HOOKPOINT, D_IN, "tokens")}

    def run(self, batch: Batch, hookpoints: Any) -> dict[str, torch.Tensor]:
        directions = torch.randn(N_CONCEPTS, D_IN, generator=torch.Generator().manual_seed(1))
        bits = (batch.tokens[..., None] >> torch.arange(N_CONCEPTS)) & 1
        x = bits.float() @ directions + 2.0
        x[:, 0] = 1e4
        return dict.fromkeys(hookpoints, x)

    def rows(self, batch: Batch, grid: str) -> Rows:
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


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    config = HarvestConfig(subject="sparse", hookpoints=(HOOKPOINT,), out=folder, shard_examples=64, dtype="float32")
    harvest(SparseSubject(), SparseInputs(), config)
    return folder


@pytest.fixture
def store(store_folder: Path) -> ActivationStore:
    return ActivationStore(store_folder)


@pytest.fixture
def config(store_folder: Path, tmp_path: Path) -> TrainConfig:
    """A run of 60 steps that takes a fraction of a second."""
    return TrainConfig(
        store=store_folder,
        hookpoint=HOOKPOINT,
        out=tmp_path / "run",
        dictionary=TopKConfig(d_sae=48, k=4),
        n_vectors=60 * 128,
        batch_vectors=128,
        optimiser=AdamConfig(lr=3e-3),
        log_every_steps=10,
        probe_every_steps=20,
        checkpoint_every_steps=25,
    )
