import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_subject import MLP, POOLED, RESID, TinyInputs, TinySubject
from tiny_subject import settings as config

from sae.activations.harvest import harvest
from sae.activations.holdout import hold_out
from sae.activations.reader import ShuffledReader
from sae.activations.store import TRAINING_KINDS, ActivationStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return harvest(TinySubject(), TinyInputs(90), config(tmp_path_factory.mktemp("store"), dtype="float32"))


def places(vectors) -> set[tuple[int, int]]:
    rows = vectors.provenance(0, len(vectors))
    return set(zip(rows.example.tolist(), rows.position.tolist(), strict=True))


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 500), seed=st.integers(0, 2**31))
def test_whole_examples_are_held_out(store: ActivationStore, n: int, seed: int) -> None:
    vectors = store.vectors(RESID, TRAINING_KINDS)
    (kept,), (held,) = hold_out([vectors], n, seed)
    assert places(kept) | places(held) == places(vectors)
    assert not {example for example, _ in places(kept)} & {example for example, _ in places(held)}
    assert len({example for example, _ in places(held)}) == min(max(round(90 * n / len(vectors)), 1), 90)


def test_the_choice_is_the_seeds_and_that_of_all_hookpoints(store: ActivationStore) -> None:
    vectors = [store.vectors(RESID, TRAINING_KINDS), store.vectors(MLP, TRAINING_KINDS)]
    _, held = hold_out(vectors, 60, seed=1)
    assert places(held[0]) == places(held[1])
    assert places(hold_out([store.vectors(RESID, TRAINING_KINDS)], 60, seed=1)[1][0]) == places(held[0])
    assert places(hold_out(vectors, 60, seed=2)[1][0]) != places(held[0])
    _, (pooled,) = hold_out([store.vectors(POOLED)], 9, seed=1)
    assert len(pooled) == 9


def test_none_held_out_leaves_the_rows_as_they_are(store: ActivationStore) -> None:
    vectors = store.vectors(RESID)
    assert hold_out([vectors], 0, seed=0) == ((vectors,), ())


def test_a_reader_never_serves_what_is_held_out(store: ActivationStore) -> None:
    vectors = (store.vectors(RESID, TRAINING_KINDS), store.vectors(MLP, TRAINING_KINDS))
    kept, held = hold_out(vectors, 100, seed=0)
    reader = ShuffledReader(kept, 50, seed=0)
    served = torch.cat([next(reader)[0] for _ in range(2 * len(kept[0]) // 50)])
    known = {row.numpy().tobytes() for row in kept[0].read(0, len(kept[0]))}
    only_held = {row.numpy().tobytes() for row in held[0].read(0, len(held[0]))} - known
    assert only_held and not only_held & {row.numpy().tobytes() for row in served}
