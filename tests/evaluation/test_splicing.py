from pathlib import Path

import pytest
import torch

from sae.dictionaries.base import Dictionary
from sae.dictionaries.linear import IdentityConfig
from sae.dictionaries.registry import make_dictionary
from sae.dictionaries.topk import TopKConfig
from sae.evaluation.metric import Accumulator
from sae.evaluation.splicing import LANGUAGE_METRICS, Splice, next_token_losses
from sae.subjects.load import load
from sae.tensors import Batch, Kind

HOOKPOINT = "blocks.1.mlp.hook_post"
N, LENGTH = 12, 10


@pytest.fixture(scope="module")
def subject(tiny_gpt2_folder: Path):
    return load(f"language:{tiny_gpt2_folder}")


@pytest.fixture(scope="module")
def batch() -> Batch:
    tokens = torch.randint(3, 200, (N, LENGTH), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = 0
    kind = torch.full((N, LENGTH), int(Kind.TOKEN), dtype=torch.uint8)
    kind[:, 0] = int(Kind.BOS)
    return Batch(first_example=0, tokens=tokens, attended=torch.ones(N, LENGTH, dtype=torch.bool), kind=kind)


def halves(batch: Batch) -> list[Batch]:
    return [
        Batch(first_example=i, tokens=batch.tokens[i:j], attended=batch.attended[i:j], kind=batch.kind[i:j])
        for i, j in ((0, 5), (5, N))
    ]


def scores(dictionary: Dictionary, subject, mean: torch.Tensor, batches: list[Batch]) -> dict[str, float]:
    accumulator = Accumulator(LANGUAGE_METRICS)
    for losses in next_token_losses(Splice(dictionary, (HOOKPOINT,), {HOOKPOINT: mean}), subject, batches):
        accumulator.update(losses)
    return {score.name: score.value for score in accumulator.scores(n_draws=20)}


@pytest.fixture(scope="module")
def activation(subject, batch: Batch) -> torch.Tensor:
    return subject.run(batch, [HOOKPOINT])[HOOKPOINT]


@pytest.fixture(scope="module")
def trained(activation: torch.Tensor) -> Dictionary:
    dictionary = make_dictionary(TopKConfig(d_sae=32, k=4), activation.shape[-1])
    dictionary.initialise(activation.flatten(0, 1), torch.Generator().manual_seed(0))
    return dictionary.requires_grad_(False)


def test_the_identity_recovers_everything(subject, batch: Batch, activation: torch.Tensor) -> None:
    identity = make_dictionary(IdentityConfig(d_sae=activation.shape[-1]), activation.shape[-1])
    found = scores(identity, subject, activation.mean((0, 1)), [batch])
    assert found["ce_recovered"] == pytest.approx(1, abs=1e-4)
    assert found["ce_increase"] == pytest.approx(0, abs=1e-5)
    assert found["kl"] == pytest.approx(0, abs=1e-5)


def test_the_batch_size_does_not_matter(subject, batch: Batch, activation: torch.Tensor, trained: Dictionary) -> None:
    mean = activation.mean((0, 1))
    whole, parts = scores(trained, subject, mean, [batch]), scores(trained, subject, mean, halves(batch))
    assert whole == pytest.approx(parts, rel=1e-4)


def test_against_a_run_by_hand(subject, batch: Batch, activation: torch.Tensor, trained: Dictionary) -> None:
    mean = activation.mean((0, 1))

    def replaced_by(new: torch.Tensor):
        def edit(x: torch.Tensor) -> torch.Tensor:
            out = x.clone()
            out[:, 1:] = new[:, 1:] if new.ndim == 3 else new
            return out

        return edit

    def losses(logits: torch.Tensor) -> torch.Tensor:
        # Position 0 is BOS: its activation is never replaced, so its prediction is not scored.
        picked = logits[:, 1:-1].log_softmax(-1).gather(-1, batch.tokens[:, 2:, None])
        return -picked.mean()

    x_hat = trained(activation.flatten(0, 1)).view_as(activation)
    clean = losses(subject.forward(batch))
    spliced = losses(subject.forward(batch, {HOOKPOINT: replaced_by(x_hat)}))
    zero = losses(subject.forward(batch, {HOOKPOINT: replaced_by(torch.zeros_like(mean))}))
    averaged = losses(subject.forward(batch, {HOOKPOINT: replaced_by(mean)}))
    found = scores(trained, subject, mean, [batch])
    assert found["ce_increase"] == pytest.approx(float(spliced - clean), abs=1e-5)
    assert found["ce_recovered"] == pytest.approx(float((zero - spliced) / (zero - clean)), rel=1e-3)
    assert found["ce_recovered_mean"] == pytest.approx(float((averaged - spliced) / (averaged - clean)), rel=1e-3)
