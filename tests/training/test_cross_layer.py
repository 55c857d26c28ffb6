"""A cross-layer transcoder over the MLPs of a tiny two-layer language model."""

import dataclasses
from pathlib import Path

import pytest
import torch

from sae.activations.harvest import harvest
from sae.activations.harvest_config import HarvestConfig
from sae.activations.store import ActivationStore
from sae.dictionaries.clt import Clt, CltConfig
from sae.dictionaries.io import load_dictionary
from sae.dictionaries.sites import input_sites, output_sites
from sae.errors import ConfigError
from sae.subjects.load import load
from sae.tensors import Batch, Kind
from sae.training.config import TrainConfig
from sae.training.loop import train
from sae.training.optimiser import AdamConfig

READ = ("blocks.0.mlp.hook_in", "blocks.1.mlp.hook_in")
WRITTEN = ("blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out")


class RandomTokens:
    fingerprint = "random tokens"

    def __len__(self) -> int:
        return 200

    def batch(self, start: int, stop: int) -> Batch:
        tokens = torch.randint(3, 60, (len(self), 12), generator=torch.Generator().manual_seed(0))[start:stop]
        tokens[:, 0] = 0
        kind = torch.full(tokens.shape, int(Kind.TOKEN), dtype=torch.uint8)
        kind[:, 0] = Kind.BOS
        return Batch(first_example=start, tokens=tokens, attended=torch.ones_like(tokens, dtype=torch.bool), kind=kind)

    def describe(self) -> dict[str, str]:
        return {"kind": "random tokens"}


@pytest.fixture(scope="module")
def layers(tiny_gpt2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    subject = load(f"language:{tiny_gpt2_folder}")
    folder = tmp_path_factory.mktemp("store") / "store"
    names = (*READ, *WRITTEN)
    return harvest(subject, RandomTokens(), HarvestConfig(subject=subject.id, hookpoints=names, out=folder))


@pytest.fixture
def run(layers: ActivationStore, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        store=layers.path,
        hookpoint=READ,
        target_hookpoint=WRITTEN,
        out=tmp_path / "run",
        dictionary=CltConfig(d_sae=96, k=6),
        n_vectors=200 * 128,
        batch_vectors=128,
        optimiser=AdamConfig(lr=0.01),
    )


@pytest.mark.parametrize("how", ["expected_norm", "whiten"])
def test_it_learns_every_layers_output(layers: ActivationStore, run: TrainConfig, how: str) -> None:
    train(layers, dataclasses.replace(run, normalisation=how))
    saved = load_dictionary(run.out / "dictionary")
    assert isinstance(saved, Clt) and saved.config.n_layers == 2 and saved.provenance["proof"]["differing"] == 0
    assert [site.hookpoint for site in input_sites(saved)] == list(READ)
    assert [site.hookpoint for site in output_sites(saved)] == list(WRITTEN)
    x, y = (
        torch.cat([run.rows.select(layers, name).read(0, 2000) for name in names], dim=1) for names in (READ, WRITTEN)
    )
    y_hat = saved(x).detach()
    for columns in (slice(0, 16), slice(16, 32)):
        error, spread = y_hat[:, columns] - y[:, columns], y[:, columns] - y[:, columns].mean(0)
        assert error.square().sum() / spread.square().sum() < 0.5
    assert not saved.W_dec[48:, :16].any() and saved.W_dec[:48, 16:].any()


def test_a_resumed_run_ends_alike(layers: ActivationStore, run: TrainConfig) -> None:
    train(layers, run)
    before = (run.out / "dictionary/dictionary.safetensors").read_bytes()
    train(layers, dataclasses.replace(run, out=run.out.with_name("again")))
    assert (run.out.with_name("again") / "dictionary/dictionary.safetensors").read_bytes() == before


def test_as_many_layers_are_read_as_written(layers: ActivationStore, run: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="needed are as many of each"):
        train(layers, dataclasses.replace(run, target_hookpoint=WRITTEN[0]))
    with pytest.raises(ConfigError, match="n_layers 3: 2 hookpoints are read"):
        train(layers, dataclasses.replace(run, dictionary=CltConfig(d_sae=96, k=6, n_layers=3)))
