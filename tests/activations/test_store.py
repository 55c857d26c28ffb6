from pathlib import Path

import pytest
import torch
from tiny_subject import MLP, POOLED, RESID, TinyInputs, TinySubject, expected
from tiny_subject import settings as config

from sae.activations.harvest import harvest
from sae.activations.store import TRAINING_KINDS, ActivationStore
from sae.errors import HookpointError, StoreError
from sae.tensors import Kind


class SinkSubject(TinySubject):
    """Every text has one token of enormous norm."""

    def run(self, batch, hookpoints):
        out = super().run(batch, hookpoints)
        for x in out.values():
            x[:, min(2, x.shape[1] - 1)] *= 100
        return out


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return harvest(TinySubject(), TinyInputs(40), config(tmp_path_factory.mktemp("store"), covariance=True))


@pytest.fixture(scope="module")
def sinks(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return harvest(SinkSubject(), TinyInputs(40), config(tmp_path_factory.mktemp("sinks")))


def test_any_range_is_read_across_shards(store: ActivationStore) -> None:
    vectors = store.vectors(RESID)
    whole = expected(TinyInputs(40), TinySubject(), RESID).bfloat16()
    for start, stop in ((0, len(whole)), (5, 5), (0, 1), (30, 200), (len(whole) - 3, len(whole))):
        assert torch.equal(vectors[start:stop], whole[start:stop])
        assert torch.equal(vectors.read(start, stop), whole[start:stop].float())
    assert vectors[-4:].dtype == torch.bfloat16 and torch.equal(vectors[-4:], whole[-4:])
    assert vectors.read(0, 2, torch.float64).dtype == torch.float64


@pytest.mark.parametrize("kinds", [None, TRAINING_KINDS])
def test_single_rows_are_taken_across_shards(store: ActivationStore, kinds: tuple[Kind, ...] | None) -> None:
    vectors = store.vectors(RESID, kinds)
    whole = vectors[0 : len(vectors)]
    for rows in ([], [0], [3, 3, 4, 50, 51, 120], list(range(0, len(vectors), 7)), [len(vectors) - 1]):
        chosen = torch.tensor(rows, dtype=torch.int64)
        assert torch.equal(vectors.take(chosen), whole[chosen])
    for wrong in ([len(vectors)], [-1, 2], [5, 4]):
        with pytest.raises(StoreError, match="must rise within"):
            vectors.take(torch.tensor(wrong))


def test_ranges_that_do_not_exist_are_refused(store: ActivationStore) -> None:
    vectors = store.vectors(RESID)
    with pytest.raises(StoreError, match="no rows"):
        vectors.read(0, len(vectors) + 1)
    with pytest.raises(StoreError, match="steps of 1"):
        vectors[::2]
    with pytest.raises(HookpointError, match="Did you mean"):
        store.vectors("blocks.0.hook_resid_pos")


def test_what_was_read_belongs_to_the_reader(store: ActivationStore) -> None:
    vectors = store.vectors(RESID)
    before = vectors[0:5].clone()
    vectors[0:5].zero_()
    assert torch.equal(vectors[0:5], before)


def test_kinds_filter_rows_and_statistics(store: ActivationStore) -> None:
    everything = store.vectors(MLP)
    kind = everything.provenance(0, len(everything)).kind
    for kinds in (TRAINING_KINDS, [Kind.BOS]):
        vectors = store.vectors(MLP, kinds)
        wanted = torch.isin(kind, torch.tensor([int(k) for k in kinds], dtype=torch.uint8))
        rows = everything.read(0, len(everything), torch.float64)[wanted]
        assert torch.equal(vectors.read(0, len(vectors), torch.float64), rows)
        assert set(vectors.provenance(0, len(vectors)).kind.tolist()) <= {int(k) for k in kinds}
        assert vectors.statistics.count == len(rows)
        torch.testing.assert_close(vectors.statistics.variance, rows.var(0, correction=0), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(vectors.statistics.covariance, torch.cov(rows.T, correction=0), rtol=1e-9, atol=1e-9)
    assert store.vectors(MLP, TRAINING_KINDS).describe()["n_left_out"] == 40


def test_no_rows_have_no_statistics(store: ActivationStore) -> None:
    vectors = store.vectors(RESID, [Kind.PATCH])
    assert len(vectors) == 0 and vectors[0:0].shape == (0, 8)
    with pytest.raises(StoreError, match="no rows"):
        assert vectors.statistics


def test_sinks_are_left_out_and_said_so(sinks: ActivationStore) -> None:
    vectors = sinks.vectors(RESID, TRAINING_KINDS, max_norm_ratio=10)
    positions = vectors.provenance(0, len(vectors)).position
    assert 2 not in positions and {1, 3} <= set(positions.tolist())
    assert len(vectors) == len(sinks.vectors(RESID, TRAINING_KINDS)) - 40
    rows = vectors.read(0, len(vectors), torch.float64)
    torch.testing.assert_close(vectors.statistics.mean, rows.mean(0), rtol=1e-12, atol=0)
    described = vectors.describe()
    assert described["rows"]["max_norm_ratio"] == 10 and described["n_left_out"] == 80
    assert rows.norm(dim=1).max() <= described["rows"]["max_norm"]


def test_pooled_rows_are_one_per_example(store: ActivationStore) -> None:
    rows = store.vectors(POOLED).provenance(0, 40)
    assert rows.example.tolist() == list(range(40)) and set(rows.position.tolist()) == {0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "it has no manifest.json"),
        ("{", "damaged"),
        ("[]", "format version None"),
        ('{"format_version": 99}', "format version 99; this version of sae reads 1"),
        ('{"format_version": 1}', "Manifest needs subject"),
    ],
)
def test_what_is_no_store_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        ActivationStore(tmp_path)


def test_covariance_is_the_harvests_or_measured(store: ActivationStore, sinks: ActivationStore) -> None:
    for vectors in (store.vectors(MLP, TRAINING_KINDS), sinks.vectors(RESID, TRAINING_KINDS, max_norm_ratio=10)):
        rows = vectors.read(0, len(vectors), torch.float64)
        torch.testing.assert_close(vectors.covariance, torch.cov(rows.T, correction=0), rtol=1e-9, atol=1e-9)
