import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sae import config as settings
from sae.activations.store import ActivationStore
from sae.dictionaries import registry
from sae.dictionaries.base import Dictionary
from sae.dictionaries.io import load_dictionary
from sae.dictionaries.kmeans import KMeansConfig
from sae.dictionaries.threshold import ThresholdedConfig
from sae.dictionaries.topk import TopKConfig
from sae.errors import ConfigError, TrainingError
from sae.training.config import TrainConfig
from sae.training.interrupt import TrainingInterrupted
from sae.training.loop import train
from sae.training.optimiser import AdamConfig


def metrics(config: TrainConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.out / "metrics.jsonl").read_text().splitlines()]


def files(config: TrainConfig) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (config.out / "dictionary").iterdir()}


def signal_at(step: int, number: int = signal.SIGINT) -> dict[str, Callable[[Dictionary], dict[str, float]]]:
    """A probe that sends a signal to this process at the `step`-th call."""
    calls = iter(range(1, 10**6))

    def probe(_: Dictionary) -> dict[str, float]:
        if next(calls) == step:
            os.kill(os.getpid(), number)
        return {}

    return {"signal": probe}


KILLED_TWICE = """
import os, random, signal, sys, torch
from sae import config as settings
from sae.activations.store import ActivationStore
from sae.training import checkpoint
from sae.training.config import TrainConfig
from sae.training.loop import train

import torch._dynamo  # otherwise every child imports it, at the optimiser's first step

torch.set_num_threads(1)
config = settings.load(TrainConfig, sys.argv[1])

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def run(kill_at, resume):
    calls = iter(range(1, 1000))
    probe = lambda dictionary: kill() if next(calls) == kill_at else {}
    train(ActivationStore(config.store), config, probes={"kill": probe}, resume=resume)

def dies(action):
    if (child := os.fork()) == 0:
        action()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

def run_until_the_next_checkpoint_is_being_written():
    write = checkpoint.write_durably
    checkpoint.write_durably = lambda path, *rest: kill() if path.name == "latest" else write(path, *rest)
    run(kill_at=None, resume=True)

step = random.randint(26, 49)
print("killed at step", step)
dies(lambda: run(kill_at=step, resume=False))
dies(run_until_the_next_checkpoint_is_being_written)
"""


@pytest.fixture
def whole(store: ActivationStore, config: TrainConfig) -> TrainConfig:
    """The settings of a run that was never stopped."""
    config = dataclasses.replace(config, out=config.out.with_name("whole"))
    train(store, config)
    return config


class TestWholeRun:
    def test_learns_and_writes_everything(self, store: ActivationStore, config: TrainConfig) -> None:
        config = dataclasses.replace(config, n_vectors=150 * 128, optimiser=AdamConfig(lr=0.01))
        dictionary = train(store, config)
        lines = metrics(config)
        assert [line["step"] for line in lines][-1] == 150
        assert lines[-1]["fvu"] < 0.5 * lines[0]["fvu"]
        assert lines[-1]["l0"] == pytest.approx(4, abs=0.5)
        assert lines[-1]["n_vectors"] == 150 * 128
        expected = {"loss", "loss_mse", "loss_auxk", "grad_norm", "lr", "dead_fraction", "vectors_per_second"}
        assert expected <= set(lines[-1])
        vectors = config.rows.select(store, config.hookpoint)
        assert settings.load(TrainConfig, config.out / "config.yaml") == config.resolve(len(vectors))

        saved = load_dictionary(config.out / "dictionary")
        assert torch.equal(saved.W_dec, dictionary.W_dec)
        # The saved dictionary takes unscaled vectors.
        x = vectors.read(0, len(vectors))
        with torch.no_grad():
            error = (saved(x) - x).square().sum() / (x - x.mean(0)).square().sum()
        assert error == pytest.approx(lines[-1]["fvu"], rel=0.1)

    def test_provenance_names_subject_store_and_settings(self, store: ActivationStore, whole: TrainConfig) -> None:
        provenance = load_dictionary(whole.out / "dictionary").provenance
        assert provenance["subject"] == "sparse"
        assert provenance["hookpoint"] == whole.hookpoint
        assert provenance["store"] == store.hash
        assert provenance["seed"] == 0
        assert provenance["n_vectors_trained"] == 60 * 128
        assert provenance["metrics"]["fvu"] == metrics(whole)[-1]["fvu"]
        assert provenance["training"]["optimiser"]["lr"] == 3e-3
        assert str(whole.out) not in json.dumps(provenance)

    def test_the_seed_decides_everything(self, store: ActivationStore, config: TrainConfig, whole: TrainConfig) -> None:
        torch.randn(3)
        train(store, config)
        assert files(config) == files(whole)
        other = dataclasses.replace(config, seed=1, out=config.out.with_name("other"))
        train(store, other)
        assert files(other)["dictionary.safetensors"] != files(whole)["dictionary.safetensors"]

    def test_probes_see_the_dictionary_for_unscaled_vectors(self, store: ActivationStore, config: TrainConfig) -> None:
        vectors = config.rows.select(store, config.hookpoint)
        x = vectors.read(0, len(vectors))

        def fvu(dictionary: Dictionary) -> dict[str, float]:
            return {"fvu": float((dictionary(x) - x).square().sum() / (x - x.mean(0)).square().sum())}

        train(store, config, probes={"held_out": fvu})
        probed = {line["step"]: line["held_out/fvu"] for line in metrics(config) if "held_out/fvu" in line}
        assert list(probed) == [20, 40, 60]
        assert probed[60] < probed[20] < 1

    def test_another_run_is_not_overwritten(self, store: ActivationStore, whole: TrainConfig) -> None:
        before = files(whole)
        with pytest.raises(ConfigError, match="holds a run already"):
            train(store, whole)
        assert files(whole) == before


class TestResume:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_stopped_run_ends_with_the_same_bytes(
        self, store: ActivationStore, config: TrainConfig, whole: TrainConfig, number: signal.Signals
    ) -> None:
        often = dataclasses.replace(config, probe_every_steps=1)
        with pytest.raises(TrainingInterrupted, match=f"{number.name} after step 37 of 60.*--resume") as stopped:
            train(store, often, probes=signal_at(37, number))
        assert stopped.value.exit_code == 128 + number
        assert (config.out / "checkpoints/latest").read_text() == "step-000000037\n"
        assert not (config.out / "dictionary").exists()
        train(store, config, resume=True)
        assert files(config) == files(whole)
        steps = [line["step"] for line in metrics(config)]
        assert steps == sorted(set(steps))
        assert {10, 37, 40, 60} <= set(steps)

    def test_a_killed_run_ends_with_the_same_bytes(
        self, store: ActivationStore, config: TrainConfig, whole: TrainConfig, tmp_path: Path
    ) -> None:
        settings.save(dataclasses.replace(config, probe_every_steps=1), tmp_path / "train.yaml")
        killed = subprocess.run([sys.executable, "-c", KILLED_TWICE, tmp_path / "train.yaml"], check=True, stdout=-1)
        assert (config.out / "checkpoints/latest").read_text() == "step-000000025\n", killed.stdout
        train(store, config, resume=True)
        assert files(config) == files(whole), killed.stdout

    def test_a_finished_run_stays_as_it_is(self, store: ActivationStore, whole: TrainConfig) -> None:
        before = files(whole) | {"metrics": (whole.out / "metrics.jsonl").read_bytes()}
        train(store, whole, resume=True)
        assert files(whole) | {"metrics": (whole.out / "metrics.jsonl").read_bytes()} == before

    def test_the_resolved_config_resumes_too(self, store: ActivationStore, whole: TrainConfig) -> None:
        before = files(whole)
        train(store, settings.load(TrainConfig, whole.out / "config.yaml"), resume=True)
        assert files(whole) == before

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"seed": 1}, "seed: was 0, now 1"),
            ({"dictionary": TopKConfig(d_sae=48, k=5)}, "dictionary.k: was 4, now 5"),
            ({"optimiser": AdamConfig(lr=0.1)}, "optimiser.lr: was 0.003, now 0.1"),
        ],
    )
    def test_other_settings_are_refused(
        self, store: ActivationStore, whole: TrainConfig, changes: dict, message: str
    ) -> None:
        with pytest.raises(ConfigError, match=f"cannot resume with other settings. {message}"):
            train(store, dataclasses.replace(whole, **changes), resume=True)

    def test_how_often_to_log_may_change(self, store: ActivationStore, whole: TrainConfig) -> None:
        train(store, dataclasses.replace(whole, log_every_steps=7, checkpoint_every_steps=9), resume=True)

    def test_without_a_checkpoint_there_is_nothing_to_resume(self, store: ActivationStore, config: TrainConfig) -> None:
        with pytest.raises(TrainingError, match="no checkpoint to resume from"):
            train(store, config, resume=True)


class TestDivergence:
    def test_it_stops_with_step_batch_and_last_good_checkpoint(
        self, store: ActivationStore, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sae.training.trainer import Trainer

        step = Trainer.step

        def poisoned(self: Trainer, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return step(self, x * float("nan") if self.n_steps_done == 31 else x)

        monkeypatch.setattr(Trainer, "step", poisoned)
        with pytest.raises(TrainingError, match=r"diverged in step 31.*vector 128 of pass 1.*step-000000025"):
            train(store, config)

    def test_a_rate_far_too_high_is_caught_before_a_checkpoint(
        self, store: ActivationStore, config: TrainConfig
    ) -> None:
        wild = dataclasses.replace(config, optimiser=AdamConfig(lr=1e4), checkpoint_every_steps=1)
        with pytest.raises(TrainingError, match=r"diverged in step \d"):
            train(store, wild)
        assert not (config.out / "dictionary").exists()


def test_vectors_that_do_not_vary_are_refused(store: ActivationStore, config: TrainConfig) -> None:
    rows = dataclasses.replace(config.rows, kinds=("bos",))
    with pytest.raises(TrainingError, match="nothing to learn"):
        train(store, dataclasses.replace(config, rows=rows))


@pytest.mark.parametrize(
    ("device", "message"), [("cudda", "not a device"), ("meta", "no such device"), ("cuda:99", "no such CUDA device")]
)
def test_a_device_that_is_not_there_is_named(
    store: ActivationStore, config: TrainConfig, device: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(store, dataclasses.replace(config, device=device))


def test_a_folder_that_cannot_be_written_is_named(store: ActivationStore, config: TrainConfig) -> None:
    config.out.parent.mkdir(exist_ok=True)
    config.out.write_text("a file is in the way")
    with pytest.raises(TrainingError, match=r"run.*cannot be written"):
        train(store, config)


class TestFittedAtOnce:
    @pytest.mark.parametrize("kind", sorted(kind for kind, one in registry.BUILT_IN.items() if one.fitted))
    def test_a_baseline_is_fitted_and_saved_like_any_dictionary(
        self, kind: str, store: ActivationStore, config: TrainConfig
    ) -> None:
        d_sae = {"identity": 16, "pca": 32, "ica": 32}.get(kind, 48)
        settings = {"kind": kind, "d_sae": d_sae} | ({"k": 2} if kind == "random_directions" else {})
        config = dataclasses.replace(config, dictionary=registry.decode_config(settings), n_vectors=1000)
        train(store, config)
        saved = load_dictionary(config.out / "dictionary")
        line = metrics(config)[-1]
        assert saved.config == config.dictionary and saved.provenance["n_vectors_trained"] == 1000
        assert saved.provenance["metrics"] == {key: line[key] for key in ("fvu", "l0", "n_vectors")}
        vectors = config.rows.select(store, config.hookpoint)
        x = vectors.read(0, len(vectors))
        fvu = float((saved(x) - x).square().sum() / (x - x.mean(0)).square().sum())
        assert fvu == pytest.approx(line["fvu"], rel=0.15, abs=1e-6)
        assert saved.encode(x).l0().float().mean() == pytest.approx(line["l0"], rel=0.05)

    def test_a_small_store_is_used_whole_and_the_seed_decides(
        self, store: ActivationStore, config: TrainConfig
    ) -> None:
        config = dataclasses.replace(config, dictionary=KMeansConfig(d_sae=8), n_vectors=10**9)
        train(store, config)
        n_all = len(config.rows.select(store, config.hookpoint))
        assert load_dictionary(config.out / "dictionary").provenance["n_vectors_trained"] == n_all
        again = dataclasses.replace(config, out=config.out.with_name("again"))
        train(store, again)
        assert files(again)["dictionary.safetensors"] == files(config)["dictionary.safetensors"]

    def test_what_is_neither_trained_nor_fitted_is_refused(self, store: ActivationStore, config: TrainConfig) -> None:
        with pytest.raises(ConfigError, match="'thresholded': a control, neither trained nor fitted"):
            train(store, dataclasses.replace(config, dictionary=ThresholdedConfig(d_sae=48)))
