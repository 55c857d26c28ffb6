"""Training through a tiny random language model."""

import dataclasses
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sae.activations.harvest import harvest
from sae.activations.harvest_config import HarvestConfig
from sae.activations.holdout import drawn_examples
from sae.activations.store import ActivationStore
from sae.dictionaries.affine import Affine
from sae.dictionaries.base import DictionaryConfig
from sae.dictionaries.batch_topk import BatchTopKConfig
from sae.dictionaries.io import load_dictionary
from sae.dictionaries.kmeans import KMeansConfig
from sae.dictionaries.matryoshka import MatryoshkaConfig
from sae.dictionaries.registry import make_dictionary
from sae.dictionaries.topk import TopKConfig
from sae.errors import ConfigError
from sae.subjects.load import load
from sae.subjects.splice import reconstruct
from sae.tensors import Batch, Kind
from sae.training.config import EndToEndConfig, TrainConfig
from sae.training.data import Data, Selected
from sae.training.end_to_end import EndToEnd, ExampleReader
from sae.training.interrupt import TrainingInterrupted
from sae.training.loop import train
from sae.training.optimiser import AdamConfig
from sae.training.trainer import Trainer

RESID, MLP_IN, MLP_OUT = "blocks.0.hook_resid_post", "blocks.0.mlp.hook_in", "blocks.0.hook_mlp_out"


class Texts:
    """Random texts of differing length behind a BOS token, padded within a batch."""

    fingerprint = "texts"

    def __len__(self) -> int:
        return 120

    def tokens(self, example: int) -> np.ndarray:
        random = np.random.default_rng(example)
        return np.concatenate([[0], random.integers(3, 60, random.integers(6, 14))])

    def batch(self, start: int, stop: int) -> Batch:
        texts = [self.tokens(example) for example in range(start, stop)]
        tokens = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.int64)
        attended = torch.zeros_like(tokens, dtype=torch.bool)
        for row, text in enumerate(texts):
            tokens[row, : len(text)], attended[row, : len(text)] = torch.from_numpy(text), True
        kind = torch.full(tokens.shape, int(Kind.TOKEN), dtype=torch.uint8)
        kind[:, 0] = Kind.BOS
        return Batch(first_example=start, tokens=tokens, attended=attended, kind=kind)

    def describe(self) -> dict[str, str]:
        return {"kind": "texts"}


@pytest.fixture(scope="module")
def subject(tiny_gpt2_folder: Path):
    return load(f"language:{tiny_gpt2_folder}")


@pytest.fixture(scope="module")
def store(subject, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    folder = tmp_path_factory.mktemp("store") / "store"
    names = (RESID, MLP_IN, MLP_OUT)
    return harvest(subject, Texts(), HarvestConfig(subject=subject.id, hookpoints=names, out=folder, dtype="float32"))


@pytest.fixture
def config(store: ActivationStore, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        store=store.path,
        hookpoint=RESID,
        out=tmp_path / "run",
        dictionary=TopKConfig(d_sae=48, k=4),
        n_vectors=60 * 128,
        batch_vectors=128,
        optimiser=AdamConfig(lr=5e-3),
        end_to_end=EndToEndConfig(),
        log_every_steps=10,
        checkpoint_every_steps=25,
    )


def open_run(store: ActivationStore, subject, config: TrainConfig) -> tuple[Data, EndToEnd, TrainConfig]:
    selected = Selected.of([store], config)
    config = config.for_sites(*selected.widths).resolve(len(selected))
    data = Data.of(selected, config)
    return data, EndToEnd(data, subject, Texts(), config), config


def files(config: TrainConfig) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (config.out / "dictionary").iterdir()}


def lines(config: TrainConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("loss", ["kl", "ce"])
@pytest.mark.parametrize("reconstruction", [0.0, 0.5])
def test_loss_and_gradients_are_those_of_the_spliced_subject(
    store: ActivationStore, subject, config: TrainConfig, loss: str, reconstruction: float, monkeypatch
) -> None:
    settings = EndToEndConfig(loss=loss, coefficient=2.0, reconstruction=reconstruction)
    _, run, config = open_run(store, subject, dataclasses.replace(config, end_to_end=settings))
    mapping = Affine.scaling(0.7, 16, torch.randn(16, generator=torch.Generator().manual_seed(3)))
    dictionary = make_dictionary(config.dictionary, 16)
    batch = Texts().batch(0, 8)
    x = subject.run(batch, [RESID])[RESID]
    keep = batch.attended & (batch.kind == Kind.TOKEN)
    dictionary.initialise(mapping(x[keep]), torch.Generator().manual_seed(0))
    trainer = Trainer(dictionary, config, mapping)
    gradients: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(trainer.optimiser, "step", lambda: gradients.update(_gradients(dictionary)))
    monkeypatch.setattr(dictionary, "after_backward", lambda: None)
    monkeypatch.setattr("sae.training.trainer.clip_gradients", lambda *_: torch.zeros(()))
    figures, n = run.learn(trainer, (batch.tokens, batch.attended, batch.kind))
    assert n == int(keep.sum())

    edit = reconstruct(lambda rows: mapping.undo(dictionary(mapping(rows))), keep)
    spliced = subject.forward(batch, {RESID: edit}, grad=True)[:, :-1].log_softmax(-1)
    scored = keep[:, :-1] & batch.attended[:, 1:]
    if loss == "kl":
        clean = subject.forward(batch)[:, :-1].log_softmax(-1)
        value = (clean.exp() * (clean - spliced)).sum(-1)[scored].mean()
    else:
        value = -spliced.gather(-1, batch.tokens[:, 1:, None])[..., 0][scored].mean()
    dictionary.zero_grad()
    target = mapping(x[keep])
    mse = dictionary.normalised_error(target, dictionary(target))
    (2.0 * value + reconstruction * mse).backward()
    torch.testing.assert_close(figures[f"loss_{loss}"], value.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(figures["loss"], (2.0 * value + reconstruction * mse).detach(), rtol=1e-4, atol=1e-5)
    expected = _gradients(dictionary)
    for name in expected:
        torch.testing.assert_close(gradients[name], expected[name], msg=name, rtol=1e-3, atol=1e-5)
    assert all(parameter.grad is None for parameter in subject.model.parameters())


def _gradients(dictionary) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in dictionary.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "dictionary",
    [TopKConfig(d_sae=48, k=4), BatchTopKConfig(d_sae=48, k=4), MatryoshkaConfig(d_sae=48, k=4)],
    ids=["topk", "batch_topk", "matryoshka"],
)
def test_it_learns_what_the_subject_needs(
    store: ActivationStore, subject, config: TrainConfig, dictionary: DictionaryConfig
) -> None:
    longer = dataclasses.replace(config, dictionary=dictionary, n_vectors=200 * 128)
    train(store, longer, subject=subject, inputs=Texts())
    found = [line["loss_kl"] for line in lines(longer) if "loss_kl" in line]
    assert found[-1] < 0.6 * found[0]
    saved = load_dictionary(longer.out / "dictionary")
    assert saved.provenance["training"]["end_to_end"] == {"loss": "kl", "coefficient": 1.0, "reconstruction": 0.0}
    # The same without the subject: more of the variance, less of the answers.
    local = dataclasses.replace(longer, end_to_end=None, out=longer.out.with_name("local"))
    train(store, local)
    kl = {
        name: divergence(load_dictionary(run.out / "dictionary"), subject)
        for name, run in (("end to end", longer), ("local", local))
    }
    assert kl["end to end"] < kl["local"]
    last = {
        name: [line for line in lines(run) if "fvu" in line][-1]["fvu"]
        for name, run in (("end to end", longer), ("local", local))
    }
    assert last["local"] < last["end to end"]


@torch.no_grad()
def divergence(dictionary, subject) -> float:
    batch = Texts().batch(0, 60)
    keep = batch.attended & (batch.kind == Kind.TOKEN)
    clean = subject.forward(batch)[:, :-1].log_softmax(-1)
    spliced = subject.forward(batch, {RESID: reconstruct(dictionary, keep)})[:, :-1].log_softmax(-1)
    scored = keep[:, :-1] & batch.attended[:, 1:]
    return float(F.kl_div(spliced, clean, log_target=True, reduction="none").sum(-1)[scored].mean())


def test_a_stopped_run_ends_with_the_same_bytes(store: ActivationStore, subject, config: TrainConfig) -> None:
    config = dataclasses.replace(config, dictionary=BatchTopKConfig(d_sae=48, k=4), calibration_vectors=100)
    whole = dataclasses.replace(config, out=config.out.with_name("whole"))
    given = {"subject": subject, "inputs": Texts()}
    train(store, whole, **given)
    calls = iter(range(100))

    def interrupt(_: object) -> dict[str, float]:
        if next(calls) == 30:
            signal.raise_signal(signal.SIGINT)
        return {}

    with pytest.raises(TrainingInterrupted):
        train(store, dataclasses.replace(config, probe_every_steps=1), probes={"stop": interrupt}, **given)
    train(store, config, resume=True, **given)
    assert files(config) == files(whole)
    assert "calibration" in load_dictionary(config.out / "dictionary").provenance


def test_a_transcoder_learns_through_the_subject_too(store: ActivationStore, subject, config: TrainConfig) -> None:
    settings = dataclasses.replace(config, hookpoint=MLP_IN, target_hookpoint=MLP_OUT, n_vectors=150 * 128)
    train(store, settings, subject=subject, inputs=Texts())
    found = [line["loss_kl"] for line in lines(settings)]
    assert found[-1] < 0.8 * found[0] and load_dictionary(settings.out / "dictionary").is_transcoder


class TestExampleReader:
    def test_every_example_but_the_held_out_comes_once_per_epoch(self) -> None:
        held_out = drawn_examples(120, 17, seed=3)
        reader = ExampleReader(Texts(), held_out, batch_examples=9, seed=0)
        known = {Texts().tokens(example).tobytes(): example for example in range(120)}
        seen: list[int] = []
        while len(seen) < 2 * 103:
            tokens, attended, kind = next(reader)
            assert tokens.shape == attended.shape == kind.shape and len(tokens) == 9
            assert (kind[~attended] == Kind.SPECIAL).all() and kind.dtype == torch.uint8
            seen += [known[row[mask].numpy().tobytes()] for row, mask in zip(tokens, attended, strict=True)]
        expected = sorted(set(range(120)) - set(held_out.tolist()))
        assert sorted(seen[:103]) == sorted(seen[103:206]) == expected and seen[:103] != seen[103:206]

    @pytest.mark.parametrize("n_before", [0, 1, 12, 40])
    def test_a_saved_place_goes_on(self, n_before: int) -> None:
        held_out = np.array([], dtype=np.int64)
        one, other = (ExampleReader(Texts(), held_out, batch_examples=7, seed=2) for _ in range(2))
        for _ in range(n_before):
            next(one)
        other.load_state_dict(one.state_dict())
        for _ in range(20):
            assert all(torch.equal(a, b) for a, b in zip(next(one), next(other), strict=True))

    def test_what_training_holds_out_is_left_out(self, store: ActivationStore, subject, config: TrainConfig) -> None:
        calibrated = dataclasses.replace(config, dictionary=BatchTopKConfig(d_sae=48, k=4), calibration_vectors=100)
        data, run, _ = open_run(store, subject, calibrated)
        rows = data.inputs.vectors
        kept = set(rows.provenance(0, len(rows)).example.tolist())
        reader = run.reader(128, seed=0)
        assert set(reader.examples.tolist()) == kept and len(kept) < 120
        assert reader.batch_examples == round(128 / (len(rows) / len(kept)))


def test_rows_of_extreme_norm_keep_their_activation(store: ActivationStore, subject, config: TrainConfig) -> None:
    rows = dataclasses.replace(config.rows, max_norm_ratio=1.1)
    _, run, _ = open_run(store, subject, dataclasses.replace(config, rows=rows))
    batch = Texts().batch(0, 20)
    found = subject.run(batch, [RESID])
    keep = run._kept(batch, found)
    limit = run.limits[RESID]
    expected = batch.attended & (batch.kind == Kind.TOKEN) & (found[RESID].norm(dim=-1) <= limit)
    assert torch.equal(keep, expected) and keep.sum() < (batch.attended & (batch.kind == Kind.TOKEN)).sum()


def test_what_is_impossible_is_refused(
    store: ActivationStore, subject, config: TrainConfig, tiny_bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="needs the subject and the inputs"):
        train(store, config)
    with pytest.raises(ConfigError, match=r"no logits of the next token"):
        train(store, config, subject=load(f"language:{tiny_bert_folder}"), inputs=Texts())
    with pytest.raises(ConfigError, match=r"the store is of language:.*given were untrained:language:"):
        train(store, config, subject=load(f"untrained:{subject.id}"), inputs=Texts())
    with pytest.raises(ConfigError, match="takes no steps"):
        fitted = dataclasses.replace(config, dictionary=KMeansConfig(d_sae=8), out=config.out.with_name("fitted"))
        train(store, fitted, subject=subject, inputs=Texts())
    with pytest.raises(ConfigError, match="cannot be combined with layer_norm"):
        dataclasses.replace(config, normalisation="layer_norm")
    with pytest.raises(ConfigError, match="the first must be above 0"):
        EndToEndConfig(coefficient=0.0)
