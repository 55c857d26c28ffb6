import pytest
import torch

from sae.dictionaries.base import Dictionary
from sae.dictionaries.frozen import FrozenDecoder, FrozenDecoderConfig, FrozenEncoder, FrozenEncoderConfig
from sae.dictionaries.topk import TopK, TopKConfig

SIZE = {"d_sae": 32, "k": 4}


def vectors() -> torch.Tensor:
    return torch.randn(256, 12, generator=torch.Generator().manual_seed(0)) + 0.4


def drawn(dictionary: Dictionary) -> Dictionary:
    dictionary.initialise(vectors(), torch.Generator().manual_seed(1))
    return dictionary


@pytest.mark.parametrize(
    "frozen", [FrozenDecoder(FrozenDecoderConfig(**SIZE), 12), FrozenEncoder(FrozenEncoderConfig(**SIZE), 12)]
)
def test_what_is_left_learns_as_in_topk(frozen: TopK) -> None:
    plain, dead = drawn(TopK(TopKConfig(**SIZE), 12)), torch.arange(32) % 3 == 0
    losses = [dictionary.loss(vectors(), dead) for dictionary in (plain, drawn(frozen))]
    assert losses[0].total == losses[1].total and losses[1].parts["auxk"] > 0
    for dictionary, loss in zip((plain, frozen), losses, strict=True):
        loss.total.backward()
        dictionary.after_backward()
    for (name, expected), found in zip(plain.named_parameters(), frozen.parameters(), strict=True):
        if found.requires_grad:
            assert found.grad is not None and torch.equal(found.grad, expected.grad), name
        else:
            assert found.grad is None, name


def test_a_frozen_decoder_keeps_its_bits() -> None:
    dictionary = drawn(FrozenDecoder(FrozenDecoderConfig(**SIZE), 12))
    before = dictionary.W_dec.clone()
    for _ in range(3):
        dictionary.after_step()
    assert torch.equal(dictionary.W_dec, before)
