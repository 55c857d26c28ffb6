from pathlib import Path

import pytest
import torch
from tiny_subject import MLP, POOLED, RESID, TinyInputs, TinySubject
from tiny_subject import settings as config

from sae.activations.harvest import harvest
from sae.activations.join import join
from sae.activations.reader import ShuffledReader
from sae.activations.store import TRAINING_KINDS, ActivationStore
from sae.errors import StoreError


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[ActivationStore]:
    """Two seeds with other shards and other rows."""
    layouts = [{"shard_examples": 6}, {"shard_examples": 8, "rows_per_example": 4}]
    return [
        harvest(TinySubject(seed), TinyInputs(40), config(tmp_path_factory.mktemp("store"), **layout))
        for seed, layout in enumerate(layouts)
    ]


def places(vectors) -> list[tuple[int, int]]:
    rows = vectors.provenance(0, len(vectors))
    return list(zip(rows.example.tolist(), rows.position.tolist(), strict=True))


def test_common_rows_are_kept_in_the_same_order(stores: list[ActivationStore]) -> None:
    first, second = stores[0].vectors(RESID, TRAINING_KINDS), stores[1].vectors(MLP)
    joined = join([first, second])
    assert places(joined[0]) == places(joined[1]) == sorted(set(places(first)) & set(places(second)))
    assert 0 < len(joined[0]) < len(second) < len(first)
    table = dict(zip(places(first), first.read(0, len(first)), strict=True))
    rows = joined[0].read(0, len(joined[0]))
    assert all(torch.equal(row, table[place]) for place, row in zip(places(joined[0]), rows, strict=True))
    assert joined[0].statistics.count == len(joined[0])


def test_joined_rows_are_read_together(stores: list[ActivationStore]) -> None:
    joined = join([store.vectors(RESID) for store in stores])
    pairs = {
        (a.numpy().tobytes(), b.numpy().tobytes()) for a, b in zip(*(v.read(0, len(v)) for v in joined), strict=True)
    }
    for _, (x, y) in zip(range(5), ShuffledReader(joined, 20, seed=0), strict=False):
        assert all((a.numpy().tobytes(), b.numpy().tobytes()) in pairs for a, b in zip(x, y, strict=True))
    with pytest.raises(StoreError, match="align them with join"):
        ShuffledReader((joined[0], stores[1].vectors(RESID).restricted(joined[1].index)), 20, seed=0)


def test_one_row_per_example_is_found_by_the_example(stores: list[ActivationStore]) -> None:
    joined = join([store.vectors(POOLED) for store in stores], on=("example",))
    assert [len(v) for v in joined] == [40, 40]
    with pytest.raises(StoreError, match="does not tell its rows apart"):
        join([stores[0].vectors(POOLED), stores[1].vectors(RESID)], on=("example",))


def test_other_inputs_are_refused(stores: list[ActivationStore], tmp_path: Path) -> None:
    other = harvest(TinySubject(), TinyInputs(40, seed=1), config(tmp_path))
    with pytest.raises(StoreError, match="same inputs"):
        join([stores[0].vectors(RESID), other.vectors(RESID)])
    with pytest.raises(StoreError, match="two or more"):
        join([stores[0].vectors(RESID)])
