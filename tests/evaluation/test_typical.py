import numpy as np
import pytest
import torch
from test_products import sparse

from sae.activations.store import Provenance
from sae.evaluation.typical import Factors, Portrait
from sae.inputs.base import Classes

TEXT = {1: "in", 2: " x\n", 3: "for", 4: "if"}


class Senses:
    """`sense` says which use of a token it is, `drawn` is bookkeeping, `group` says nothing, `length` is no class."""

    bookkeeping = ("drawn",)
    classes: Classes | None = None
    fingerprint = "0" * 64

    def __init__(self) -> None:
        self.label_names = {"sense": ("loop", "test")}

    def __len__(self) -> int:
        return 2

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]:
        assert (start, stop) == (5, 7)
        sense = np.array([[-1, -1, 0, 0, -1, 1], [-1, -1, 1, 0, -1, 1]])
        drawn = (sense == 0).astype(int)
        return {"sense": sense, "drawn": drawn, "group": np.full((2, 6), -1), "length": sense * 0.5}


def rows() -> Provenance:
    token = torch.tensor([3, 2, 1, 1, 4, 1, 4, 2, 1, 1, 3, 1], dtype=torch.int32)
    return Provenance(
        example=torch.arange(5, 7).repeat_interleave(6),
        position=torch.arange(6, dtype=torch.int32).repeat(2),
        kind=torch.zeros(12, dtype=torch.uint8),
        token=token,
    )


def factors(inputs: Senses | None = None) -> Factors:
    return Factors.of(rows(), inputs, lambda token: TEXT[token])


def latents(*active: dict[int, float]):
    dense = torch.zeros(12, len(active))
    for latent, values in enumerate(active):
        for row, value in values.items():
            dense[row, latent] = value
    return sparse(dense)


PARENT = dict.fromkeys([2, 3, 5, 8, 9, 11], 1.0)


def test_a_context_sets_a_child_apart():
    found = factors(Senses())
    responses = latents(PARENT, {2: 3.0, 3: 1.0, 9: 2.0, 8: 0.5})
    shares = [found.shares(responses, latent) for latent in (0, 1)]
    assert found.main_share(shares[0]) == pytest.approx(1.0)
    portrait = found.portrait(shares[1], shares[0])
    assert portrait.tokens == "«in»" and portrait.context == "sense=loop" and portrait.family == "sense"
    assert portrait.share == pytest.approx(6 / 6.5) and portrait.rise == pytest.approx(6 / 6.5 - 0.5)
    assert found.portrait(shares[0], shares[0]) == Portrait("«in»", "", "", 0.0, 0.0)


def test_without_labels_the_token_before_is_the_context():
    responses = latents(PARENT, {2: 1.0, 8: 1.0})
    found = factors()
    portrait = found.portrait(found.shares(responses, 1), found.shares(responses, 0))
    assert portrait.context == "after «␣x\\n»" and portrait.share == pytest.approx(1.0)
    assert portrait.rise == pytest.approx(2 / 3)


def test_a_latent_of_many_tokens_names_the_frequent_ones():
    found = factors()
    responses = latents({0: 4.0, 1: 3.0, 4: 2.5, 2: 0.5})
    shares = found.shares(responses, 0)
    assert found.portrait(shares, shares).tokens == "«for» «␣x\\n» «if»"
    assert found.main_share(shares) == pytest.approx(0.4)


def test_rows_without_tokens_are_described_by_their_labels_alone():
    bare = Provenance(example=rows().example, position=rows().position, kind=rows().kind, token=None)
    found = Factors.of(bare, Senses())
    shares = found.shares(latents({2: 1.0, 3: 1.0, 9: 1.0}), 0)
    assert found.everywhere["sense"].tolist() == pytest.approx([6 / 12, 3 / 12, 3 / 12])
    portrait = found.portrait(shares, found.everywhere)
    assert portrait.tokens == "" and portrait.context == "sense=loop" and portrait.rise == pytest.approx(0.75)
    nothing = Factors.of(bare, None)
    assert nothing.portrait(nothing.shares(latents({1: 1.0}), 0), nothing.everywhere) == Portrait("", "", "", 0.0, 0.0)
