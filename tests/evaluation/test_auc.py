import numpy as np
import pytest
import torch

from sae.dictionaries.codes import Codes
from sae.evaluation.auc import EntryCollector, auc_matrix, dense_auc_matrix, pool_dense


def naive_auc(scores: np.ndarray, label: np.ndarray) -> float:
    positive, negative = scores[label], scores[~label]
    wins = (positive[:, None] > negative[None, :]).sum() + 0.5 * (positive[:, None] == negative[None, :]).sum()
    return wins / (len(positive) * len(negative))


def sparse_activations(rows: int, latents: int, signed: bool, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, latents, generator=generator)
    values = (values * 4).round() / 4  # coarse values, so that ties occur
    kept = torch.rand(rows, latents, generator=generator) < 0.3
    return (values if signed else values.abs()) * kept


@pytest.mark.parametrize("signed", [False, True])
def test_auc_equals_the_pairwise_definition(signed: bool) -> None:
    dense = sparse_activations(120, 7, signed, seed=1)
    dense[:, 3] = 0
    labels = torch.rand(120, 4, generator=torch.Generator().manual_seed(2)) < 0.25
    collector = EntryCollector(7)
    for start in range(0, 120, 50):
        collector.update(Codes.from_dense(dense[start : start + 50]))
    found = auc_matrix(collector.entries(), labels, latent_block=3)
    expected = [[naive_auc(dense[:, j].numpy(), labels[:, c].numpy()) for c in range(4)] for j in range(7)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert (found[3] == 0.5).all()
    torch.testing.assert_close(dense_auc_matrix(dense, labels, unit_block=2), found)


def test_a_label_on_every_row_or_none_is_undefined() -> None:
    collector = EntryCollector(2)
    collector.update(Codes.from_dense(torch.rand(5, 2)))
    labels = torch.stack([torch.ones(5), torch.zeros(5), torch.tensor([1, 0, 0, 1, 0])], 1).bool()
    found = auc_matrix(collector.entries(), labels)
    assert found[:, :2].isnan().all()
    assert not found[:, 2].isnan().any()


@pytest.mark.parametrize("signed", [False, True])
def test_pooling_takes_the_maximum_over_the_rows_of_a_group(signed: bool) -> None:
    dense = sparse_activations(60, 5, signed, seed=3)
    groups = torch.arange(60) // 6
    collector = EntryCollector(5)
    collector.update(Codes.from_dense(dense[:36]), groups[:36])
    collector.update(Codes.from_dense(dense[36:]), groups[36:] - 6)
    entries = collector.entries()
    pooled = torch.zeros(10, 5)
    pooled[entries.rows, entries.latents] = entries.values
    torch.testing.assert_close(pooled, dense.reshape(10, 6, 5).amax(1))
    torch.testing.assert_close(pool_dense(dense, groups), dense.reshape(10, 6, 5).amax(1))


def test_restricting_rows_equals_collecting_only_those() -> None:
    dense = sparse_activations(40, 6, True, seed=4)
    keep = torch.rand(40, generator=torch.Generator().manual_seed(5)) < 0.5
    whole, part = EntryCollector(6), EntryCollector(6)
    whole.update(Codes.from_dense(dense))
    part.update(Codes.from_dense(dense[keep]))
    labels = torch.rand(40, 3, generator=torch.Generator().manual_seed(6)) < 0.4
    torch.testing.assert_close(
        auc_matrix(whole.entries().restricted(keep), labels[keep]), auc_matrix(part.entries(), labels[keep])
    )
