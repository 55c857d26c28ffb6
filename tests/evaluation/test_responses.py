import numpy as np
import pytest
import torch

from sae.dictionaries.codes import Codes
from sae.evaluation import detection, weights
from sae.evaluation import responses as responses_module
from sae.evaluation import similarity as similarity_module
from sae.evaluation.detection import phi_coefficient
from sae.evaluation.pooling import pool_dense
from sae.evaluation.recovery import Firing
from sae.evaluation.responses import DenseResponses, Responses, SparseResponses
from sae.evaluation.similarity import Similarity, mean_cosine
from sae.evaluation.weights import Weights


def activations(items: int, units: int, signed: bool, seed: int) -> torch.Tensor:
    """Sparse activations, coarse so that ties occur; unit 1 is dead, unit 2 always on."""
    generator = torch.Generator().manual_seed(seed)
    values = (torch.randn(items, units, generator=generator) * 4).round() / 4
    kept = torch.rand(items, units, generator=generator) < 0.3
    dense = (values if signed else values.abs()) * kept
    dense[:, 1] = 0
    dense[:, 2] = values[:, 2].abs() + 0.25
    return dense


def sparse(dense: torch.Tensor) -> SparseResponses:
    items, units = dense.nonzero(as_tuple=True)
    shuffled = torch.randperm(len(items), generator=torch.Generator().manual_seed(9))
    items, units = items[shuffled], units[shuffled]
    return SparseResponses.of_entries(items, units, dense[items, units], *dense.shape)


def lazy(dense: torch.Tensor) -> DenseResponses:
    return DenseResponses(lambda units: dense[:, units], *dense.shape)


def some_labels(items: int, n: int, seed: int) -> torch.Tensor:
    return torch.rand(items, n, generator=torch.Generator().manual_seed(seed)) < 0.25


def restored(responses: Responses) -> torch.Tensor:
    return torch.cat([block for _, block in responses.blocks(3)], 1)


def naive_auc(scores: np.ndarray, label: np.ndarray) -> float:
    positive, negative = scores[label], scores[~label]
    wins = (positive[:, None] > negative[None, :]).sum() + 0.5 * (positive[:, None] == negative[None, :]).sum()
    return wins / (len(positive) * len(negative))


@pytest.mark.parametrize("make", [sparse, lazy])
@pytest.mark.parametrize("signed", [False, True])
def test_auc_equals_the_pairwise_definition(make, signed: bool) -> None:
    dense = activations(120, 70, signed, seed=1)
    labels = some_labels(120, 66, seed=2)
    found = make(dense).auc(labels)
    expected = [[naive_auc(dense[:, u].numpy(), labels[:, c].numpy()) for c in range(66)] for u in range(70)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert (found[1] == 0.5).all()


@pytest.mark.parametrize("make", [sparse, lazy])
def test_auc_of_a_label_on_every_item_or_none_is_undefined(make) -> None:
    labels = torch.stack([torch.ones(5), torch.zeros(5), torch.tensor([1, 0, 0, 1, 0])], 1).bool()
    found = make(activations(5, 4, False, seed=3)).auc(labels)
    assert found[:, :2].isnan().all()
    assert not found[:, 2].isnan().any()


@pytest.mark.parametrize("make", [sparse, lazy])
@pytest.mark.parametrize("signed", [False, True])
def test_sums_counts_and_extremes_equal_those_of_the_dense_matrix(make, signed: bool) -> None:
    dense = activations(50, 9, signed, seed=4)
    responses, weights = make(dense), torch.rand(50, 4, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(restored(responses), dense)
    torch.testing.assert_close(responses.total(weights), dense.T @ weights)
    torch.testing.assert_close(responses.fired_total(weights), (dense > 0).float().T @ weights)
    torch.testing.assert_close(responses.fired_total(weights.double()), (dense > 0).double().T @ weights.double())
    assert responses.n_fired.tolist() == (dense > 0).sum(0).tolist()
    torch.testing.assert_close(responses.maximum, dense.amax(0))
    torch.testing.assert_close(responses.minimum, dense.amin(0))
    chosen = torch.tensor([7, 1, 2])
    torch.testing.assert_close(responses.columns(chosen), dense[:, chosen])
    items, values = responses.top(5)
    torch.testing.assert_close(values, dense.T.topk(5, 1).values)
    torch.testing.assert_close(dense.T.gather(1, items), values)


@pytest.mark.parametrize("make", [sparse, lazy])
def test_on_some_items_equals_gathering_only_those(make) -> None:
    dense = activations(40, 6, True, seed=6)
    keep = torch.rand(40, generator=torch.Generator().manual_seed(7)) < 0.5
    part = make(dense).on(keep)
    assert part.n_items == int(keep.sum())
    torch.testing.assert_close(restored(part), dense[keep])
    labels = some_labels(40, 3, seed=8)[keep]
    torch.testing.assert_close(part.auc(labels), make(dense[keep]).auc(labels))
    torch.testing.assert_close(restored(part.on(torch.arange(part.n_items) < 4)), dense[keep][:4])


@pytest.mark.parametrize("signed", [False, True])
def test_pooling_takes_the_maximum_over_the_rows_of_an_item(signed: bool) -> None:
    dense = activations(60, 5, signed, seed=10)
    item = torch.arange(60) // 6
    pooled = dense.reshape(10, 6, 5).amax(1)
    torch.testing.assert_close(restored(SparseResponses.of_codes(Codes.from_dense(dense), item, 10)), pooled)
    torch.testing.assert_close(pool_dense(dense, item, 10), pooled)


def test_rows_that_are_items_stay_as_they_are_sorted_by_value() -> None:
    dense = activations(30, 5, True, seed=11)
    gathered = SparseResponses.of_codes(Codes.from_dense(dense), torch.arange(30), 30)
    torch.testing.assert_close(restored(gathered), dense)
    assert gathered.counts.tolist() == (dense != 0).sum(0).tolist()
    for unit in range(5):
        owned = gathered.values[gathered.offsets[unit] : gathered.offsets[unit + 1]]
        assert (owned.diff() >= 0).all()


def test_units_that_are_silent_everywhere_are_all_zero() -> None:
    silent = sparse(torch.zeros(12, 3))
    assert (silent.auc(some_labels(12, 2, seed=12) | (torch.arange(12) < 2)[:, None]) == 0.5).all()
    assert silent.n_fired.sum() == 0
    assert silent.maximum.tolist() == silent.minimum.tolist() == [0, 0, 0]
    assert (restored(silent) == 0).all()


@pytest.mark.parametrize("make", [sparse, lazy])
def test_parts_are_the_same_units_in_order_and_sums_do_not_depend_on_their_size(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense, labels = activations(40, 23, True, seed=4), some_labels(40, 6, seed=5)
    similarity = Similarity.of_vectors("drawn", torch.randn(40, 5, generator=torch.Generator().manual_seed(6)))

    def found() -> list[torch.Tensor]:
        whole = make(dense)
        firing = Firing.of(whole, Weights.of(labels))
        sums = whole.total(Weights.of(labels))
        return [whole.auc(labels), sums, mean_cosine(whole, similarity), firing.hits, phi_coefficient(firing, 40)]

    at_once = found()
    for module in (responses_module, weights, similarity_module, detection):
        monkeypatch.setattr(module, "UNITS_AT_ONCE", 7)
    parts = list(make(dense).parts())
    assert [part.n_units for part in parts] == [7, 7, 7, 2]
    assert torch.equal(torch.cat([restored(part) for part in parts], 1), dense)
    for one, other in zip(found(), at_once, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
