import dataclasses

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sae.dictionaries.codes import Codes


@st.composite
def dense_codes(draw: st.DrawFn) -> Tensor:
    batch, d_sae = draw(st.integers(0, 5)), draw(st.integers(1, 6))
    entry = st.one_of(st.just(0.0), st.floats(-4, 4, width=32))
    rows = draw(st.lists(st.lists(entry, min_size=d_sae, max_size=d_sae), min_size=batch, max_size=batch))
    return torch.tensor(rows, dtype=torch.float32).reshape(batch, d_sae)


@settings(deadline=None)  # a busy machine may take long over one example
@given(dense_codes())
def test_dense_to_sparse_and_back(dense: Tensor) -> None:
    codes = Codes.from_dense(dense)
    assert torch.equal(codes.dense(), dense)
    assert len(codes) == len(dense)
    assert torch.equal(codes.l0(), (dense != 0).sum(1))
    assert torch.equal(codes.n_fired(), (dense != 0).sum(0))
    assert torch.equal(codes.counts, codes.l0())


@given(st.integers(0, 4), st.integers(0, 5), st.integers(0, 2**31))
def test_topk_entries_to_dense(batch: int, k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    indices = torch.rand(batch, 7, generator=generator).argsort(1)[:, :k]
    values = torch.randn(batch, k, generator=generator).relu()
    codes = Codes.from_topk(indices, values, 7)
    assert torch.equal(codes.dense(), torch.zeros(batch, 7).scatter(1, indices, values))
    assert codes.counts.tolist() == [k] * batch


@given(dense_codes(), dense_codes(), st.data())
def test_rows_of_several_codes_in_any_order(one: Tensor, two: Tensor, data: st.DataObject) -> None:
    d_sae = min(one.shape[1], two.shape[1])
    dense = torch.cat([one[:, :d_sae], two[:, :d_sae]])
    codes = Codes.cat([Codes.from_dense(part[:, :d_sae]) for part in (one, two)])
    assert torch.equal(codes.dense(), dense)
    number = st.integers(0, len(dense) - 1)
    rows = torch.tensor(data.draw(st.lists(number, max_size=6)) if len(dense) else [], dtype=torch.int64)
    assert torch.equal(codes.on(rows).dense(), dense[rows])


@given(dense_codes(), st.data())
def test_entries_of_some_latents_alone(dense: Tensor, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, dense.shape[1] - 1), unique=True))
    alone = torch.zeros_like(dense)
    alone[:, chosen] = dense[:, chosen]
    assert torch.equal(Codes.from_dense(dense).of_latents(chosen).dense(), alone)


def test_stored_zeros_do_not_fire() -> None:
    codes = Codes.from_topk(torch.tensor([[0, 2], [2, 1]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]]), 3)
    assert codes.l0().tolist() == [1, 0]
    assert codes.n_fired().tolist() == [1, 0, 0]


def test_gradient_flows_through_dense() -> None:
    values = torch.tensor([[1.0, 2.0]], requires_grad=True)
    codes = Codes.from_topk(torch.tensor([[3, 1]]), values, 4)
    (codes.dense() * torch.tensor([1.0, 10.0, 100.0, 1000.0])).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [[1000.0, 10.0]]


def test_rows_keep_what_they_were_normalised_by() -> None:
    first, second = (Codes.from_dense(torch.rand(3, 5) + number) for number in range(2))
    parts = [
        dataclasses.replace(codes, row_mean=torch.rand(3, 1), row_deviation=torch.rand(3, 1))
        for codes in (first, second)
    ]
    chosen = Codes.cat(parts).on(torch.tensor([4, 0]))
    assert chosen.row_mean is not None and parts[0].row_mean is not None and parts[1].row_deviation is not None
    assert torch.equal(chosen.row_mean[1], parts[0].row_mean[0])
    assert chosen.row_deviation is not None and torch.equal(chosen.row_deviation[0], parts[1].row_deviation[1])
