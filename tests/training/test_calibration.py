import dataclasses
import json
import signal
from pathlib import Path

import pytest
import torch

from sae.activations.store import ActivationStore
from sae.dictionaries.batch_topk import BatchTopKConfig
from sae.dictionaries.io import load_dictionary
from sae.dictionaries.topk import TopKConfig
from sae.errors import ConfigError
from sae.training.config import TrainConfig
from sae.training.data import Data, Selected
from sae.training.interrupt import TrainingInterrupted
from sae.training.loop import train


@pytest.fixture
def calibrated(config: TrainConfig) -> TrainConfig:
    return dataclasses.replace(config, dictionary=BatchTopKConfig(d_sae=48, k=4), calibration_vectors=480)


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "dictionary").iterdir()}


def open_data(store: ActivationStore, config: TrainConfig) -> Data:
    selected = Selected.of([store], config)
    return Data.of(selected, config.resolve(len(selected)))


def test_the_saved_threshold_gives_k_on_vectors_that_training_did_not_see(
    store: ActivationStore, calibrated: TrainConfig
) -> None:
    train(store, calibrated)
    saved = load_dictionary(calibrated.out / "dictionary")
    figures = saved.provenance["calibration"]
    held_out = open_data(store, calibrated).inputs.held_out
    assert held_out is not None and figures["n_vectors"] == len(held_out) == 480
    l0 = saved.encode(held_out.read(0, len(held_out))).l0().double().mean()
    assert float(l0) == pytest.approx(4, abs=0.2)
    assert figures["l0"] == pytest.approx(float(l0), abs=0.02) and 0 < figures["l0_error"] < 0.5
    assert isinstance(saved.threshold, torch.Tensor)
    assert figures["threshold"] == pytest.approx(float(saved.threshold[0]), rel=1e-5)
    assert 0 < figures["threshold_error"] < figures["threshold"]
    logged = json.loads((calibrated.out / "metrics.jsonl").read_text().splitlines()[-1])
    assert logged["calibration/l0"] == figures["l0"] and logged["step"] == 60


def test_held_out_vectors_are_not_read(store: ActivationStore, calibrated: TrainConfig) -> None:
    data = open_data(store, calibrated)
    whole = calibrated.rows.select(store, calibrated.hookpoint)
    assert len(data) == len(whole) - 480
    reader = data.reader(len(data), seed=0)
    (one_pass,) = next(reader)
    assert torch.equal(one_pass.sum(0, dtype=torch.float64), data.inputs.vectors.read(0, len(data)).double().sum(0))


def test_a_resumed_run_is_calibrated_alike(store: ActivationStore, calibrated: TrainConfig) -> None:
    whole = dataclasses.replace(calibrated, out=calibrated.out.with_name("whole"))
    train(store, whole)

    calls = iter(range(100))

    def interrupt(_: object) -> dict[str, float]:
        if next(calls) == 30:
            signal.raise_signal(signal.SIGINT)
        return {}

    with pytest.raises(TrainingInterrupted):
        train(store, dataclasses.replace(calibrated, probe_every_steps=1), probes={"stop": interrupt})
    train(store, calibrated, resume=True)
    assert files(calibrated.out) == files(whole.out)
    train(store, calibrated, resume=True)
    assert files(calibrated.out) == files(whole.out)


def test_how_many_are_held_out(config: TrainConfig, calibrated: TrainConfig) -> None:
    unset = dataclasses.replace(calibrated, calibration_vectors=None)
    assert unset.resolve(1000).calibration_vectors == 50
    assert unset.resolve(10**8).calibration_vectors == 65_536
    assert dataclasses.replace(unset, dictionary=TopKConfig(d_sae=48, k=4)).resolve(1000).calibration_vectors == 0
    by_epoch = dataclasses.replace(unset, n_vectors=None, n_epochs=2.0).resolve(1000)
    assert by_epoch.n_vectors == 1900 and by_epoch.resolve(1000) == by_epoch
    with pytest.raises(ConfigError, match="calibration_vectors -1"):
        dataclasses.replace(config, calibration_vectors=-1)


def test_none_held_out_keeps_the_running_threshold(store: ActivationStore, calibrated: TrainConfig) -> None:
    train(store, dataclasses.replace(calibrated, calibration_vectors=0))
    assert "calibration" not in load_dictionary(calibrated.out / "dictionary").provenance
