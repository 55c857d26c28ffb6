"""A small store of vectors with a known sparse structure."""

from pathlib import Path

import pytest
from sparse_subject import HOOKPOINT, SparseInputs, SparseSubject, harvested

from sae.activations.harvest import harvest
from sae.activations.harvest_config import HarvestConfig
from sae.activations.store import ActivationStore
from sae.dictionaries.topk import TopKConfig
from sae.training.config import TrainConfig
from sae.training.optimiser import AdamConfig


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    config = HarvestConfig(subject="sparse", hookpoints=(HOOKPOINT,), out=folder, shard_examples=64, dtype="float32")
    harvest(SparseSubject(), SparseInputs(), config)
    return folder


@pytest.fixture(scope="session")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> tuple[ActivationStore, ActivationStore]:
    """Two seeds of a subject, harvested at all hookpoints, with other shards."""
    one, two = SparseSubject("sparse@0", 1), SparseSubject("sparse@1", 7)
    first = harvested(one, tmp_path_factory.mktemp("seed"))
    return first, harvested(two, tmp_path_factory.mktemp("seed"), shard_examples=32)


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
