import dataclasses
from pathlib import Path
from typing import Any

import pytest

from sae import config as settings
from sae.activations.store import TRAINING_KINDS, ActivationStore
from sae.errors import ConfigError
from sae.tensors import Kind
from sae.training.config import RowsConfig, TrainConfig


def test_yaml_round_trip(config: TrainConfig, tmp_path: Path) -> None:
    settings.save(config, tmp_path / "train.yaml")
    assert settings.load(TrainConfig, tmp_path / "train.yaml") == config


def test_an_unknown_architecture_names_the_known_ones(config: TrainConfig) -> None:
    data = settings.encode(config) | {"dictionary": {"kind": "topc", "d_sae": 8}}
    with pytest.raises(ConfigError, match="'topk'"):
        settings.decode(TrainConfig, data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_epochs": 2.0}, "exactly one"),
        ({"n_vectors": None}, "exactly one"),
        ({"batch_vectors": 0}, "batch_vectors 0"),
        ({"checkpoint_every_steps": -1}, "checkpoint_every_steps -1"),
    ],
)
def test_impossible_settings_are_refused(config: TrainConfig, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(config, **changes)


class TestResolve:
    def test_fills_in_what_depends_on_the_run(self, config: TrainConfig) -> None:
        config = dataclasses.replace(
            config, n_vectors=None, n_epochs=1.5, optimiser=dataclasses.replace(config.optimiser, lr=None)
        )
        resolved = config.resolve(n_available=1000)
        assert (resolved.n_vectors, resolved.n_epochs) == (1500, None)
        assert resolved.n_steps == 12
        assert resolved.dead_after_vectors == 75
        assert resolved.optimiser.lr == pytest.approx(4e-4 * (2**14 / 48) ** 0.5)

    def test_long_runs_call_a_latent_dead_after_ten_million(self, config: TrainConfig) -> None:
        long = dataclasses.replace(config, n_vectors=10**9)
        assert long.resolve(1000).dead_after_vectors == 10_000_000

    def test_is_idempotent_and_keeps_what_was_given(self, config: TrainConfig) -> None:
        resolved = dataclasses.replace(config, dead_after_vectors=7).resolve(1000)
        assert resolved.dead_after_vectors == 7
        assert resolved.resolve(5000) == resolved


class TestRows:
    def test_the_default_is_the_stores_choice_for_training(self) -> None:
        assert {Kind[name.upper()] for name in RowsConfig().kinds} == set(TRAINING_KINDS)

    def test_bos_is_left_out_by_default(self, store: ActivationStore, config: TrainConfig) -> None:
        assert len(RowsConfig().select(store, config.hookpoint)) == 256 * 15

    def test_sinks_are_left_out_by_norm(self, store: ActivationStore, config: TrainConfig) -> None:
        every_kind = ("bos", "token")
        assert len(RowsConfig(kinds=every_kind).select(store, config.hookpoint)) == 256 * 15
        assert len(RowsConfig(kinds=every_kind, max_norm_ratio=None).select(store, config.hookpoint)) == 256 * 16

    @pytest.mark.parametrize("setting", [{"kinds": ()}, {"max_norm_ratio": 0.5}])
    def test_impossible_settings_are_refused(self, setting: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=next(iter(setting))):
            RowsConfig(**setting)
