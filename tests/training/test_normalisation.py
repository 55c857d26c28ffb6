import dataclasses
import json
from typing import get_args

import pytest
import torch

from sae.activations.store import ActivationStore, Vectors
from sae.dictionaries.base import Dictionary
from sae.dictionaries.io import load_dictionary
from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import ConfigError, TrainingError
from sae.training.config import TrainConfig
from sae.training.loop import train
from sae.training.normalisation import FLOOR, Normalisation, normaliser, variance_after, whitening


@pytest.fixture
def vectors(store: ActivationStore, config: TrainConfig) -> Vectors:
    return config.rows.select(store, config.hookpoint)


def rows(vectors: Vectors) -> torch.Tensor:
    return vectors.read(0, len(vectors)).double()


def test_expected_norm(vectors: Vectors) -> None:
    z = normaliser(vectors, "expected_norm")(rows(vectors))
    assert z.norm(dim=1).mean() == pytest.approx(16**0.5, rel=1e-9)


def test_centre(vectors: Vectors) -> None:
    z = normaliser(vectors, "centre")(rows(vectors))
    assert z.mean(0).abs().max() < 1e-9
    assert z.square().sum(1).mean() == pytest.approx(16, rel=1e-9)


def test_whiten(vectors: Vectors) -> None:
    z = normaliser(vectors, "whiten")(rows(vectors))
    torch.testing.assert_close(torch.cov(z.T, correction=0), torch.eye(16).double(), atol=1e-8, rtol=0)
    assert z.mean(0).abs().max() < 1e-9


def test_directions_without_variance_are_not_blown_up() -> None:
    covariance = torch.diag(torch.tensor([3.0, 1.0, 0.0]).double())
    mapping = whitening(torch.zeros(3).double(), covariance)
    mean_eigenvalue = 4 / 3
    assert float(mapping.matrix[2, 2]) == pytest.approx((FLOOR * mean_eigenvalue) ** -0.5)
    torch.testing.assert_close(mapping.matrix @ mapping.inverse, torch.eye(3).double())


@pytest.mark.parametrize("how", [how for how in get_args(Normalisation) if how != "layer_norm"])
def test_variance_after_is_that_of_the_normalised_vectors(vectors: Vectors, how: Normalisation) -> None:
    mapping = normaliser(vectors, how)
    expected = mapping(rows(vectors)).var(0, correction=0).sum()
    assert variance_after(vectors, mapping) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("how", get_args(Normalisation))
def test_every_normalisation_learns_and_saves_what_takes_plain_vectors(
    store: ActivationStore, config: TrainConfig, vectors: Vectors, how: Normalisation
) -> None:
    train(store, dataclasses.replace(config, normalisation=how, n_vectors=200 * 128))
    saved = load_dictionary(config.out / "dictionary")
    assert saved.config.layer_norm == (how == "layer_norm")
    x = vectors.read(0, len(vectors))
    fvu = float((saved(x).detach() - x).square().sum() / (x - x.mean(0)).square().sum())
    logged = json.loads((config.out / "metrics.jsonl").read_text().splitlines()[-1])["fvu"]
    assert fvu < 0.5
    # Whitened and layer-normed vectors have their own errors; the others differ from plain ones by a factor.
    assert logged == pytest.approx(fvu, rel=0.15) or how in ("whiten", "layer_norm")
    proof = saved.provenance["proof"]
    assert proof["differing"] == 0 and proof["n_vectors"] > 0 and proof["reconstruction"] < 1e-5


def test_a_resumed_run_whitens_alike(store: ActivationStore, config: TrainConfig) -> None:
    whitened = dataclasses.replace(config, normalisation="whiten")
    train(store, whitened)
    before = {path.name: path.read_bytes() for path in (config.out / "dictionary").iterdir()}
    train(store, whitened, resume=True)
    assert before == {path.name: path.read_bytes() for path in (config.out / "dictionary").iterdir()}


class TestProof:
    @pytest.mark.parametrize("spoilt", ["b_enc", "W_dec", "b_dec"])
    def test_a_file_that_does_something_else_is_not_taken_for_the_dictionary(
        self, store: ActivationStore, config: TrainConfig, monkeypatch: pytest.MonkeyPatch, spoilt: str
    ) -> None:
        fold = Dictionary.fold

        def wrong(self: Dictionary, *maps: object) -> Dictionary:
            folded = fold(self, *maps)  # type: ignore[arg-type]
            if self.b_enc.any():  # training has begun
                tensor = folded.get_parameter(spoilt)
                tensor.data.add_(0.01 * torch.randn_like(tensor))
            return folded

        monkeypatch.setattr(Dictionary, "fold", wrong)
        with pytest.raises(TrainingError, match=r"unproven: for vectors as they are.* differs from the trained"):
            train(store, config)
        assert not (config.out / "dictionary").exists() and (config.out / "dictionary.unproven").exists()

    def test_an_architecture_that_does_not_fold_is_refused_before_training(
        self, store: ActivationStore, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def select(self: TopK, x: torch.Tensor) -> object:  # reads more than pre-activations
            return original(self, x * (x > 0))

        original = TopK.select
        monkeypatch.setattr(TopK, "select", select)
        with pytest.raises(TrainingError, match=r"topk: .*use normalisation expected_norm"):
            train(store, dataclasses.replace(config, normalisation="whiten"))
        assert not (config.out / "checkpoints").exists()


def test_two_normalisations_at_once_are_refused(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="layer_norm replaces it"):
        dataclasses.replace(config, normalisation="whiten", dictionary=TopKConfig(d_sae=48, k=4, layer_norm=True))
    found = dataclasses.replace(config, dictionary=TopKConfig(d_sae=48, k=4, layer_norm=True)).for_sites([16], [])
    assert found.normalisation == "layer_norm" and found.for_sites([16], []) == found
    with pytest.raises(ConfigError, match="layer_norm: would mix the 2 sites"):
        found.for_sites([16, 16], [])
