import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_subject import MLP, POOLED, RESID, TinyInputs, TinySubject
from tiny_subject import settings as config

from sae.activations import reader
from sae.activations.harvest import harvest
from sae.activations.reader import ShuffledReader
from sae.activations.store import TRAINING_KINDS, ActivationStore
from sae.errors import StoreError

ROW_BYTES = 8 * 4


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return harvest(TinySubject(), TinyInputs(90), config(tmp_path_factory.mktemp("store"), dtype="float32"))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BLOCK_BYTES", 7 * ROW_BYTES)


def make(vectors, batch: int = 13, seed: int = 0, blocks: int = 5) -> ShuffledReader:
    return ShuffledReader(vectors, batch, seed, window_bytes=blocks * 7 * ROW_BYTES)


def order(found: torch.Tensor, vectors) -> list[int]:
    """Which row each one is; rows of one token at one position of a text of one length are alike, so count them."""
    rows = {}
    for index, row in enumerate(vectors.read(0, len(vectors))):
        rows.setdefault(row.numpy().tobytes(), []).append(index)
    return [rows[row.numpy().tobytes()].pop() for row in found]


@settings(max_examples=8, deadline=None)
@given(batch=st.integers(5, 700), seed=st.integers(0, 2**31), blocks=st.integers(2, 200))
def test_every_row_appears_exactly_once_per_epoch(store: ActivationStore, batch: int, seed: int, blocks: int) -> None:
    vectors = store.vectors(RESID, TRAINING_KINDS)
    n, batches = len(vectors), []
    shuffled = make(vectors, batch, seed, blocks)
    while sum(map(len, batches)) < 2 * n:
        batches.append(next(shuffled))
    rows = torch.cat(batches)
    for epoch in (rows[:n], rows[n : 2 * n]):
        assert sorted(order(epoch, vectors)) == list(range(n))


def test_orders_differ_between_epochs_and_seeds_but_repeat(store: ActivationStore) -> None:
    vectors = store.vectors(RESID)
    n = len(vectors)
    one, again, other = (make(vectors, n, seed) for seed in (3, 3, 4))
    first, second = next(one), next(one)
    assert torch.equal(first, next(again)) and torch.equal(second, next(again))
    assert not torch.equal(first, second) and not torch.equal(first, next(other))


def test_batches_mix_shards(store: ActivationStore) -> None:
    vectors = store.vectors(RESID)
    shard_of = vectors.provenance(0, len(vectors)).example // 6
    places = order(next(make(vectors, len(vectors), blocks=20)), vectors)
    seen = [len(set(shard_of[places[i : i + 50]].tolist())) for i in range(0, len(vectors) - 50, 50)]
    assert min(seen) >= 6


@pytest.mark.parametrize("n_before", [0, 1, 7, 40, 95])
def test_a_saved_place_goes_on_bit_for_bit(store: ActivationStore, n_before: int) -> None:
    vectors = store.vectors(RESID)
    uninterrupted, resumed = make(vectors), make(vectors)
    for _ in range(n_before):
        next(uninterrupted)
    next(resumed)
    resumed.load_state_dict(uninterrupted.state_dict())
    for _ in range(30):
        assert torch.equal(next(uninterrupted), next(resumed))


def test_the_state_of_another_order_is_refused(store: ActivationStore) -> None:
    state = make(store.vectors(RESID)).state_dict()
    with pytest.raises(StoreError, match="seed was 0, now 1"):
        make(store.vectors(RESID), seed=1).load_state_dict(state)
    with pytest.raises(StoreError, match="n_vectors"):
        make(store.vectors(RESID, TRAINING_KINDS)).load_state_dict(state)


def test_hookpoints_of_one_grid_stay_aligned(store: ActivationStore) -> None:
    vectors = store.vectors(RESID), store.vectors(MLP)
    whole = [v.read(0, len(v)) for v in vectors]
    pairs = {a.numpy().tobytes() + b.numpy().tobytes() for a, b in zip(*whole, strict=True)}
    shuffled = make(vectors)
    for _ in range(10):
        x, y = next(shuffled)
        assert x.shape == (13, 8) and y.shape == (13, 12)
        assert all(a.numpy().tobytes() + b.numpy().tobytes() in pairs for a, b in zip(x, y, strict=True))


def test_rows_that_do_not_match_are_refused(store: ActivationStore) -> None:
    with pytest.raises(StoreError, match="need the same rows"):
        make((store.vectors(RESID), store.vectors(POOLED)))
    with pytest.raises(StoreError, match="need the same rows"):
        make(store.vectors(RESID, kinds=[]))


def test_blocks_are_a_mebibyte_by_default(store: ActivationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert reader.BLOCK_BYTES == 1 << 20
    shuffled = ShuffledReader(store.vectors(RESID), 10, 0)
    assert shuffled.block_rows == len(store.vectors(RESID)) and shuffled.n_windows == 1
