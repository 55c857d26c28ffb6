import pytest
import torch
from tiny_subject import MLP, POOLED, RESID, TinyInputs, TinySubject
from tiny_subject import settings as config

from sae.activations.harvest import harvest
from sae.activations.join import align
from sae.activations.reader import ShuffledReader
from sae.activations.side_by_side import SideBySide, together
from sae.activations.store import TRAINING_KINDS, ActivationStore
from sae.errors import StoreError


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[ActivationStore]:
    """Two seeds with other shards, other rows and another number format."""
    layouts = [{"shard_examples": 6}, {"shard_examples": 8, "rows_per_example": 4, "dtype": "float32"}]
    return [
        harvest(TinySubject(seed), TinyInputs(40), config(tmp_path_factory.mktemp("store"), **layout))
        for seed, layout in enumerate(layouts)
    ]


def test_rows_of_one_store_are_put_next_to_each_other(stores: list[ActivationStore]) -> None:
    parts = [stores[0].vectors(RESID, TRAINING_KINDS), stores[0].vectors(MLP, TRAINING_KINDS)]
    assert align(parts) == tuple(parts)
    vectors = SideBySide(parts)
    assert vectors.d_in == 20 and vectors.parts == tuple(parts) and len(vectors) == len(parts[0])
    expected = torch.cat([part.read(3, 50) for part in parts], dim=1)
    assert torch.equal(vectors.read(3, 50), expected)
    assert torch.equal(vectors.take(torch.tensor([3, 7, 49])).float(), expected[[0, 4, 46]])
    whole = torch.cat([part.read(0, len(part), torch.float64) for part in parts], dim=1)
    torch.testing.assert_close(vectors.statistics.mean, whole.mean(0))
    assert vectors.statistics.mean_norm == pytest.approx(float(whole.norm(dim=1).mean()))
    torch.testing.assert_close(vectors.covariance, torch.cov(whole.T, correction=0))
    assert torch.equal(vectors.provenance(0, 30).example, parts[0].provenance(0, 30).example)


def test_one_hookpoint_in_two_stores_is_joined(stores: list[ActivationStore]) -> None:
    vectors = together(align([store.vectors(RESID, TRAINING_KINDS) for store in stores]))
    assert vectors.dtype == torch.float32 and vectors.hookpoint.name == RESID and vectors.d_in == 16
    rows = vectors.provenance(0, len(vectors))
    batches = ShuffledReader((vectors,), 20, seed=0)
    table = {row.numpy().tobytes() for row in vectors.read(0, len(vectors))}
    assert all(row.numpy().tobytes() in table for _ in range(5) for row in next(batches)[0])
    for part in vectors.parts:
        assert torch.equal(part.provenance(0, len(part)).position, rows.position)


def test_rows_left_out_at_one_hookpoint_are_left_out_at_all(stores: list[ActivationStore]) -> None:
    strict, plain = stores[0].vectors(RESID, TRAINING_KINDS, 1.2), stores[0].vectors(MLP, TRAINING_KINDS)
    joined = align([strict, plain])
    assert len(joined[0]) == len(joined[1]) == len(strict) < len(plain)


def test_other_grids_go_by_example_where_each_has_one_row(stores: list[ActivationStore]) -> None:
    pooled = stores[0].vectors(POOLED)
    with pytest.raises(StoreError, match=r"does not tell its rows apart.*different grids \(pooled, tokens\)"):
        align([pooled, stores[0].vectors(RESID)])


def test_parts_on_other_rows_are_refused(stores: list[ActivationStore]) -> None:
    with pytest.raises(StoreError, match=r"align them with join"):
        SideBySide([stores[0].vectors(RESID), stores[1].vectors(RESID)])
    vectors = SideBySide([stores[0].vectors(RESID), stores[0].vectors(MLP)])
    with pytest.raises(StoreError, match="restrict its parts"):
        vectors.restricted(vectors.index)


def test_one_part_stays_itself(stores: list[ActivationStore]) -> None:
    vectors = stores[0].vectors(RESID)
    assert together([vectors]) is vectors
