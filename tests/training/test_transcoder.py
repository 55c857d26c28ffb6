"""Runs that read one hookpoint and write another."""

import dataclasses
import json
import signal

import pytest
from sparse_subject import HOOKPOINT, IMAGE, WIDE

from sae.activations.store import ActivationStore
from sae.dictionaries.batch_topk import BatchTopKConfig
from sae.dictionaries.io import load_dictionary
from sae.dictionaries.sites import input_sites, output_sites
from sae.dictionaries.topk import TopKConfig
from sae.errors import ConfigError, DictionaryError, HookpointError
from sae.training.config import TrainConfig
from sae.training.interrupt import TrainingInterrupted
from sae.training.loop import train
from sae.training.optimiser import AdamConfig
from sae.training.proof import TIES


@pytest.fixture
def transcoder(config: TrainConfig, seeds: tuple[ActivationStore, ActivationStore]) -> TrainConfig:
    changes = {"store": seeds[0].path, "target_hookpoint": WIDE, "optimiser": AdamConfig(lr=0.01)}
    return dataclasses.replace(config, n_vectors=200 * 128, **changes)


def fvu(config: TrainConfig, store: ActivationStore) -> float:
    """The saved transcoder's own error, on vectors as they are in the store."""
    x, y = (config.rows.select(store, name).read(0, 3000) for name in (HOOKPOINT, WIDE))
    y_hat = load_dictionary(config.out / "dictionary")(x).detach()
    return float((y_hat - y).square().sum() / (y - y.mean(0)).square().sum())


@pytest.mark.parametrize("how", ["expected_norm", "whiten"])
@pytest.mark.parametrize(
    "dictionary",
    [TopKConfig(d_sae=48, k=4), TopKConfig(d_sae=48, k=4, skip=True), BatchTopKConfig(d_sae=48, k=4)],
    ids=["topk", "skip", "batch_topk"],
)
def test_it_learns_to_write_the_target(
    seeds: tuple[ActivationStore, ActivationStore], transcoder: TrainConfig, dictionary: TopKConfig, how: str
) -> None:
    config = dataclasses.replace(transcoder, dictionary=dictionary, normalisation=how)
    train(seeds[0], config)
    last = json.loads((config.out / "metrics.jsonl").read_text().splitlines()[-1])
    assert fvu(config, seeds[0]) < 0.6
    if how == "expected_norm" and dictionary.kind == "topk":
        assert last["fvu"] == pytest.approx(fvu(config, seeds[0]), rel=0.15)
    saved = load_dictionary(config.out / "dictionary")
    assert (saved.d_in, saved.d_out, saved.is_transcoder) == (16, 20, True)
    assert saved.provenance["proof"]["differing"] <= TIES
    (read,), (written,) = input_sites(saved), output_sites(saved)
    assert (read.hookpoint, written.hookpoint) == (HOOKPOINT, WIDE) and read.subject == "sparse@0"
    y = config.rows.select(seeds[0], WIDE)
    assert written.mean_norm == pytest.approx(float(y.read(0, len(y)).norm(dim=1).mean()), rel=1e-5)


def test_input_and_target_are_scaled_apart(
    seeds: tuple[ActivationStore, ActivationStore], transcoder: TrainConfig
) -> None:
    mixed = dataclasses.replace(transcoder, normalisation="whiten", target_normalisation="centre")
    train(seeds[0], mixed)
    assert fvu(mixed, seeds[0]) < 0.6


def test_a_stopped_run_ends_with_the_same_bytes(
    seeds: tuple[ActivationStore, ActivationStore], transcoder: TrainConfig
) -> None:
    config = dataclasses.replace(transcoder, dictionary=BatchTopKConfig(d_sae=48, k=4, skip=True), n_vectors=60 * 128)
    whole = dataclasses.replace(config, out=config.out.with_name("whole"))
    train(seeds[0], whole)
    calls = iter(range(100))

    def interrupt(_: object) -> dict[str, float]:
        if next(calls) == 30:
            signal.raise_signal(signal.SIGINT)
        return {}

    with pytest.raises(TrainingInterrupted):
        train(seeds[0], dataclasses.replace(config, probe_every_steps=1), probes={"stop": interrupt})
    train(seeds[0], config, resume=True)
    for name in ("dictionary.safetensors", "dictionary.json"):
        assert (config.out / "dictionary" / name).read_bytes() == (whole.out / "dictionary" / name).read_bytes()


def test_what_is_impossible_is_refused(seeds: tuple[ActivationStore, ActivationStore], transcoder: TrainConfig) -> None:
    with pytest.raises(ConfigError, match=r"'visual\.embedding' lies on the grid 'visual\.pooled'.*on 'tokens'"):
        train(seeds[0], dataclasses.replace(transcoder, target_hookpoint=IMAGE))
    with pytest.raises(HookpointError, match=r"no hookpoint 'blocks\.1\.hook_resid_pots'\. Did you mean"):
        train(seeds[0], dataclasses.replace(transcoder, target_hookpoint="blocks.1.hook_resid_pots"))
    with pytest.raises(DictionaryError, match="layer_norm cannot be undone"):
        train(seeds[0], dataclasses.replace(transcoder, normalisation="layer_norm"))
    with pytest.raises(DictionaryError, match="skip would copy the input"):
        autoencoder = dataclasses.replace(transcoder, target_hookpoint=None)
        train(seeds[0], dataclasses.replace(autoencoder, dictionary=TopKConfig(d_sae=48, k=4, skip=True)))
    with pytest.raises(ConfigError, match="target_normalisation: is for transcoders"):
        dataclasses.replace(transcoder, target_hookpoint=None, target_normalisation="centre")


def test_rows_are_those_that_pass_at_both_hookpoints(
    seeds: tuple[ActivationStore, ActivationStore], transcoder: TrainConfig
) -> None:
    rows = dataclasses.replace(transcoder.rows, max_norm_ratio=1.3)
    config = dataclasses.replace(transcoder, rows=rows, n_vectors=60 * 128)
    both = [set(places(rows.select(seeds[0], name))) for name in (HOOKPOINT, WIDE)]
    dictionary = train(seeds[0], config)
    assert dictionary.provenance["n_vectors"] == len(both[0] & both[1]) < min(map(len, both))


def places(vectors) -> list[tuple[int, int]]:
    rows = vectors.provenance(0, len(vectors))
    return list(zip(rows.example.tolist(), rows.position.tolist(), strict=True))
