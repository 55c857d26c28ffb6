import copy
import dataclasses

import pytest
import torch

from sae.dictionaries.affine import Affine
from sae.dictionaries.registry import make_dictionary
from sae.training.config import TrainConfig
from sae.training.optimiser import AdamConfig
from sae.training.schedules import lr_factor
from sae.training.trainer import Trainer

SCALE = 0.5


def new_trainer(config: TrainConfig) -> Trainer:
    config = config.resolve(1000)
    dictionary = make_dictionary(config.dictionary, 16)
    dictionary.initialise(batch(0) * SCALE, torch.Generator().manual_seed(0))
    return Trainer(dictionary, config, Affine.scaling(SCALE, 16))


def batch(seed: int) -> torch.Tensor:
    return torch.randn(32, 16, generator=torch.Generator().manual_seed(seed))


def test_figures_describe_the_batch_before_the_update(config: TrainConfig) -> None:
    trainer = new_trainer(config)
    x = batch(1)
    with torch.no_grad():
        codes = trainer.dictionary.encode(x * SCALE)
        error = trainer.dictionary.decode(codes) - x * SCALE
    figures = trainer.step(x)
    torch.testing.assert_close(figures["squared_error"], error.square().sum())
    assert figures["n_fired"] == codes.l0().sum()
    assert trainer.n_vectors_done == 32


def test_learning_lowers_the_error_and_keeps_unit_rows(config: TrainConfig) -> None:
    trainer = new_trainer(dataclasses.replace(config, optimiser=AdamConfig(lr=0.02)))
    errors = [float(trainer.step(batch(0))["squared_error"]) for _ in range(30)]
    assert errors[-1] < 0.5 * errors[0]
    torch.testing.assert_close(trainer.dictionary.W_dec.norm(dim=1), torch.ones(48))


def test_the_rate_follows_the_schedule(config: TrainConfig) -> None:
    trainer = new_trainer(config)
    for step in range(60):
        trainer.step(batch(step))
        assert trainer.lr == pytest.approx(3e-3 * lr_factor(config.schedule, step, 60))


def test_a_latent_that_never_fires_dies(config: TrainConfig) -> None:
    trainer = new_trainer(dataclasses.replace(config, dead_after_vectors=64))
    with torch.no_grad():
        trainer.dictionary.b_enc[3] = -1e6
    trainer.step(batch(0))
    assert not trainer.firing.dead()[3]
    figures = trainer.step(batch(1))
    assert trainer.firing.dead()[3]
    assert figures["loss_auxk"] == 0
    assert trainer.firing.dead_fraction() >= 1 / 48


def test_state_continues_with_the_same_bits(config: TrainConfig) -> None:
    first, second = new_trainer(config), new_trainer(config)
    for step in range(5):
        first.step(batch(step))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for step in range(5, 10):
        first.step(batch(step))
        second.step(batch(step))
    for a, b in zip(first.parameters, second.parameters, strict=True):
        assert torch.equal(a, b)
    assert first.n_steps_done == second.n_steps_done == 10
