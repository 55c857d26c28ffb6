import pytest
import torch

from sae.errors import SubjectError
from sae.subjects.load import load
from sae.subjects.splice import ablate, put, reconstruct, record
from sae.tensors import Batch

HOOKPOINT = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def subject(tiny_gpt2_folder):
    return load(f"language:{tiny_gpt2_folder}")


@pytest.fixture(scope="module")
def batch():
    return Batch(first_example=0, tokens=torch.arange(5, 25).view(2, 10))


def halve(x):
    return x / 2


@pytest.mark.parametrize("hookpoint", [HOOKPOINT, "blocks.1.mlp.hook_post", "blocks.1.hook_resid_mid"])
@pytest.mark.parametrize("masked", [False, True])
def test_with_its_error_a_reconstruction_changes_nothing(subject, batch, hookpoint, masked):
    keep = torch.arange(10).expand(2, 10) > 0 if masked else None
    edit = reconstruct(halve, keep, keep_error=True)
    assert torch.equal(subject.forward(batch, {hookpoint: edit}), subject.forward(batch))


def test_reconstruction_takes_the_kept_positions(batch):
    x, keep = torch.randn(2, 10, 16), torch.rand(2, 10) > 0.5
    edited = reconstruct(halve, keep)(x)
    assert torch.equal(edited[keep], x[keep] / 2) and torch.equal(edited[~keep], x[~keep])
    assert torch.equal(reconstruct(halve)(x), x / 2)


def test_a_change_is_added_to_what_was_there():
    x = torch.randn(2, 3, 4)
    edit = reconstruct(halve, keep_error=True, change=lambda x: x / 2 + 1)
    torch.testing.assert_close(edit(x), x + 1)
    torch.testing.assert_close(reconstruct(halve, change=lambda x: x / 2 + 1)(x), x / 2 + 1)


def test_reconstruction_sees_float32_and_returns_what_it_got():
    seen = []
    x = torch.randn(2, 3, 4, dtype=torch.bfloat16)
    edited = reconstruct(lambda v: seen.append((v.dtype, v.shape)) or v)(x)
    assert seen == [(torch.float32, (6, 4))] and edited.dtype == torch.bfloat16 and torch.equal(edited, x)


def test_ablation(subject, batch):
    x, mean = torch.randn(2, 10, 16), torch.randn(16)
    assert not ablate("zero")(x).any()
    assert torch.equal(ablate("mean", mean)(x), mean.expand(2, 10, 16))
    keep = torch.zeros(2, 10, dtype=torch.bool)
    assert torch.equal(ablate("mean", mean, keep)(x), x)
    assert not torch.allclose(subject.forward(batch, {HOOKPOINT: ablate("zero")}), subject.forward(batch))


def test_gradients_flow_through_a_splice(subject, batch):
    scale = torch.ones((), requires_grad=True)
    keep = torch.arange(10).expand(2, 10) > 3
    subject.forward(batch, {HOOKPOINT: reconstruct(lambda x: x * scale, keep)}, grad=True)[..., 0].sum().backward()
    assert scale.grad is not None and scale.grad != 0


def test_errors():
    with pytest.raises(SubjectError, match="needs the mean"):
        ablate("mean")
    with pytest.raises(SubjectError, match="does not fit"):
        reconstruct(halve, torch.ones(2, 3, dtype=torch.bool))(torch.randn(2, 4, 8))


def test_what_is_recorded_is_the_activation_and_changes_nothing(subject, batch):
    found = {}
    edits = {name: record(found, name) for name in (HOOKPOINT, "blocks.1.hook_resid_mid")}
    assert torch.equal(subject.forward(batch, edits), subject.forward(batch))
    read = subject.run(batch, list(edits))
    assert all(torch.equal(found[name], x) for name, x in read.items())


def test_vectors_are_put_at_the_kept_positions_in_order():
    x, keep = torch.randn(2, 3, 4), torch.tensor([[True, False, True], [False, True, True]])
    vectors = torch.arange(16.0).view(4, 4)
    edited = put(vectors, keep)(x)
    assert torch.equal(edited[keep], vectors) and torch.equal(edited[~keep], x[~keep])
