"""The way from a hookpoint to the logits, against the model itself run with and without a direction."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from sae.errors import SubjectError
from sae.subjects.load import load
from sae.subjects.residual import stream_map
from sae.subjects.splice import put, record
from sae.tensors import Batch, Kind

CAUSAL = ("gpt2", "neox", "llama", "gemma2")
LAST = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module", params=CAUSAL)
def subject(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]):
    return load(f"language:{tiny_folders[request.param]}")


def text() -> Batch:
    tokens = torch.randint(3, 60, (2, 6), generator=torch.Generator().manual_seed(1))
    kind = torch.full(tokens.shape, int(Kind.TOKEN), dtype=torch.uint8)
    return Batch(first_example=0, tokens=tokens, attended=torch.ones_like(tokens, dtype=torch.bool), kind=kind)


def test_what_an_mlp_adds_is_found_by_trying(subject) -> None:
    matrix = stream_map(subject, "blocks.0.mlp.hook_post")
    if "Gemma2" in type(subject.model).__name__:
        # A norm follows, so that no matrix says what a neuron adds.
        assert matrix is None
        return
    (name, weight), *_ = (
        (name, weight)
        for name, weight in subject.model.named_parameters()
        if name.endswith(("0.mlp.c_proj.weight", "0.mlp.dense_4h_to_h.weight", "0.mlp.down_proj.weight"))
    )
    expected = weight if "c_proj" in name else weight.T
    assert torch.allclose(matrix, expected, atol=1e-6)


def test_heads_go_through_their_output_layer(tiny_gpt2_folder: Path) -> None:
    subject = load(f"language:{tiny_gpt2_folder}")
    matrix = stream_map(subject, "blocks.1.attn.hook_z")
    assert torch.allclose(matrix, subject.model.transformer.h[1].attn.c_proj.weight, atol=1e-6)


def test_the_stream_is_itself_and_what_is_not_linear_is_none(subject) -> None:
    assert torch.equal(stream_map(subject, LAST), torch.eye(16))
    assert stream_map(subject, "blocks.0.mlp.hook_in") is None


def test_direct_logits_are_the_models_own_up_to_its_scale(subject) -> None:
    batch, read = text(), {}
    clean = subject.forward(batch, {LAST: record(read, LAST)})[0, 3]
    x = read[LAST].clone()
    direction = torch.randn(16, generator=torch.Generator().manual_seed(2))
    # A direction that leaves the norm's scale as it is: at right angles to what is there, and to the constant one.
    basis = torch.linalg.qr(torch.stack([x[0, 3], torch.ones(16)], 1)).Q
    direction = direction - basis @ (basis.T @ direction)
    moved = x.clone()
    moved[0, 3] += 1e-2 * direction
    keep = torch.ones(2, 6, dtype=torch.bool)
    change = subject.forward(batch, {LAST: put(moved.flatten(0, 1), keep)})[0, 3] - clean
    change = change - change.mean()
    found = subject.direct_logits(direction[None])[0]
    assert F.cosine_similarity(change, found, dim=0) > 0.999
    assert found.mean().abs() < 1e-5


def test_a_constant_direction_does_nothing_where_the_norm_centres(tiny_folders: dict[str, Path]) -> None:
    centred, uncentred = (load(f"language:{tiny_folders[name]}") for name in ("gpt2", "llama"))
    ones = torch.ones(1, 16)
    assert centred.direct_logits(ones).abs().max() < 1e-5
    assert uncentred.direct_logits(ones).abs().max() > 1e-2


def test_weights_of_the_norm_count(tiny_gpt2_folder: Path) -> None:
    subject = load(f"language:{tiny_gpt2_folder}")
    direction = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    weight = torch.rand(16, generator=torch.Generator().manual_seed(3)) + 0.5
    subject.model.transformer.ln_f.weight.data.copy_(weight)
    logits = ((direction - direction.mean()) * weight) @ subject.model.lm_head.weight.T
    assert torch.allclose(subject.direct_logits(direction), logits - logits.mean(), atol=1e-5)


def test_a_model_of_masked_tokens_has_none(tiny_bert_folder: Path) -> None:
    with pytest.raises(SubjectError, match="logits of the next token"):
        load(f"language:{tiny_bert_folder}").direct_logits(torch.ones(1, 16))
