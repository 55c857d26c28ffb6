import dataclasses
import errno
import logging
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_subject import MLP, POOLED, RESID, TinyInputs, TinySubject, expected, tree
from tiny_subject import settings as config

from sae import durable
from sae.activations import planning
from sae.activations.harvest import harvest, plan
from sae.activations.store import ActivationStore
from sae.errors import ConfigError, HookpointError, StoreError
from sae.tensors import Kind


class StopError(Exception):
    """Ends a harvest at a chosen batch."""


class StoppingInputs(TinyInputs):
    def __init__(self, n_examples: int, stop_at: int) -> None:
        super().__init__(n_examples)
        self.stop_at = stop_at

    def batch(self, start: int, stop: int):
        if start >= self.stop_at:
            raise StopError
        return super().batch(start, stop)


@pytest.fixture
def no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sae.activations.harvest.check_space", lambda *_: None)
    monkeypatch.setattr("sae.activations.harvest.estimate", lambda *_: None)


def test_every_row_of_every_grid_is_stored(tmp_path: Path) -> None:
    inputs, subject = TinyInputs(), TinySubject()
    store = harvest(subject, inputs, config(tmp_path, dtype="float32"))
    assert store.manifest.complete
    assert {name: point.grid for name, point in store.hookpoints.items()} == {
        RESID: "tokens",
        MLP: "tokens",
        POOLED: "pooled",
    }
    for name in (RESID, MLP):
        vectors = store.vectors(name)
        assert torch.equal(vectors.read(0, len(vectors)), expected(inputs, subject, name))
    assert len(store.vectors(POOLED)) == len(inputs)


def test_rows_say_where_they_came_from(tmp_path: Path) -> None:
    inputs = TinyInputs()
    store = harvest(TinySubject(), inputs, config(tmp_path))
    vectors = store.vectors(RESID)
    rows = vectors.provenance(0, len(vectors))
    texts = [inputs.tokens(example) for example in range(len(inputs))]
    assert rows.token.tolist() == [int(token) for text in texts for token in text]
    assert rows.example.tolist() == [i for i, text in enumerate(texts) for _ in text]
    assert rows.position.tolist() == [p for text in texts for p in range(len(text))]
    assert (rows.kind == Kind.BOS).sum() == len(inputs)
    assert store.inputs.tokens(13).tolist() == texts[13].tolist()
    assert store.inputs.reference(21) == {"file": "21.png"}
    assert store.vectors(POOLED).provenance(3, 5).token is None
    with pytest.raises(StoreError, match="no example 22"):
        store.inputs.tokens(22)


def test_shards_are_plain_safetensors(tmp_path: Path) -> None:
    store = harvest(TinySubject(), TinyInputs(), config(tmp_path))
    tensors = load_file(tmp_path / "tokens/000001.safetensors")
    assert set(tensors) == {RESID, MLP, "example", "position", "token", "kind"}
    assert tensors[MLP].dtype == torch.bfloat16 and tensors["token"].dtype == torch.int32
    n_first = store.manifest.grids["tokens"].shards[0].n_vectors
    assert torch.equal(tensors[MLP], store.vectors(MLP)[n_first : n_first + len(tensors[MLP])])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 14), max_size=3), shards=st.integers(1, 4))
def test_stopped_anywhere_it_ends_with_the_same_bytes(tmp_path_factory, no_estimate, cuts, shards) -> None:
    folder = tmp_path_factory.mktemp("cut")
    changes = {"shard_examples": 2 * shards, "covariance": True, "hookpoints": (RESID, POOLED)}
    harvest(TinySubject(), TinyInputs(14), config(folder / "whole", **changes))
    for stop_at in cuts:
        try:
            harvest(TinySubject(), StoppingInputs(14, stop_at), config(folder / "cut", **changes))
        except StopError:
            assert not ActivationStore(folder / "cut").manifest.complete
    harvest(TinySubject(), TinyInputs(14), config(folder / "cut", **changes))
    assert tree(folder / "cut") == tree(folder / "whole")


def test_an_incomplete_store_can_be_read(tmp_path: Path, no_estimate, caplog) -> None:
    with pytest.raises(StopError):
        harvest(TinySubject(), StoppingInputs(22, 14), config(tmp_path))
    with caplog.at_level(logging.WARNING, logger="sae"):
        store = ActivationStore(tmp_path)
    assert "2 of 4 shards" in caplog.text
    vectors = store.vectors(RESID)
    assert vectors.statistics.count == len(vectors) == sum(len(TinyInputs().tokens(i)) for i in range(12))


def test_other_settings_are_refused_by_name(tmp_path: Path, no_estimate) -> None:
    with pytest.raises(StopError):
        harvest(TinySubject(), StoppingInputs(22, 14), config(tmp_path))
    with pytest.raises(StoreError, match="dtype: 'bfloat16', now 'float32'"):
        harvest(TinySubject(), TinyInputs(), config(tmp_path, dtype="float32"))
    with pytest.raises(StoreError, match=r"inputs\.fingerprint"):
        harvest(TinySubject(), TinyInputs(seed=1), config(tmp_path))
    with pytest.raises(StoreError, match=r"grids\.pooled"):
        harvest(TinySubject(), TinyInputs(), config(tmp_path, hookpoints=(RESID, MLP)))
    assert harvest(TinySubject(), TinyInputs(), config(tmp_path)).manifest.complete


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(StoreError, match=r"thesis\.tex"):
        harvest(TinySubject(), TinyInputs(), config(tmp_path))


def test_sampled_rows_do_not_depend_on_the_batches(tmp_path: Path) -> None:
    stores = [
        harvest(TinySubject(), TinyInputs(), config(tmp_path / str(n), rows_per_example=3, batch_examples=n))
        for n in (2, 3)
    ]
    rows = [store.vectors(RESID).provenance(0, 66) for store in stores]
    assert len(stores[0].vectors(RESID)) == 66
    assert rows[0].example.bincount().tolist() == [3] * 22
    assert torch.equal(rows[0].position, rows[1].position)
    assert len(set(rows[0].position.tolist())) > 5
    assert len(stores[0].vectors(POOLED)) == 22


class BadSubject(TinySubject):
    def run(self, batch, hookpoints):
        out = super().run(batch, hookpoints)
        if batch.first_example == 14:
            out[MLP][1, 2, 5] = self.value
        return out


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_a_value_that_is_not_finite_is_named(tmp_path: Path, value: float) -> None:
    subject = BadSubject()
    subject.value = value
    with pytest.raises(StoreError, match=r"mlp\.hook_post is not finite in float16 at example 15, position 2.*2 of 4"):
        harvest(subject, TinyInputs(), config(tmp_path, dtype="float16"))
    store = ActivationStore(tmp_path)
    assert store.manifest.n_shards == 2 and store.vectors(MLP).statistics.finite()


def test_wrong_shapes_are_named(tmp_path: Path) -> None:
    subject = TinySubject()
    subject.run = lambda batch, hookpoints: {name: torch.zeros(len(batch), 2, 5) for name in hookpoints}
    with pytest.raises(StoreError, match=r"hook_resid_post is \[2, 2, 5\], needed \[2, \d+, 8\]"):
        harvest(subject, TinyInputs(), config(tmp_path))
    subject.run = lambda batch, hookpoints: {}
    with pytest.raises(StoreError, match=r"returned nothing for blocks\.0\.hook_resid_post"):
        harvest(subject, TinyInputs(), config(tmp_path / "other"))


def test_an_unknown_hookpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HookpointError, match=r"Did you mean .blocks\.0\.hook_resid_post"):
        harvest(TinySubject(), TinyInputs(), config(tmp_path, hookpoints=("blocks.0.hook_resid_pos",)))


def test_a_full_disk_leaves_a_valid_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 40:
            raise OSError(errno.ENOSPC, "No space left on device")

    written: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "fsync", full)
        with pytest.raises(StoreError, match=r"No space left on device.*valid up to \d of 4 shards"):
            harvest(TinySubject(), TinyInputs(), config(tmp_path / "full"))
    assert not list((tmp_path / "full").rglob("*.tmp"))
    store = ActivationStore(tmp_path / "full")
    vectors = store.vectors(RESID)
    assert 0 < store.manifest.n_shards < 4 and len(vectors.read(0, len(vectors))) == vectors.statistics.count
    harvest(TinySubject(), TinyInputs(), config(tmp_path / "full"))
    harvest(TinySubject(), TinyInputs(), config(tmp_path / "free"))
    assert tree(tmp_path / "full") == tree(tmp_path / "free")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written to"):
        harvest(TinySubject(), TinyInputs(), config(tmp_path / "file" / "store"))


def test_too_small_a_disk_is_refused_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "free_bytes", lambda _: 1000)
    with pytest.raises(StoreError, match="GB are free"):
        harvest(TinySubject(), TinyInputs(), config(tmp_path))
    assert not list(tmp_path.glob("tokens/*"))


def test_a_plan_writes_nothing_and_comes_close(tmp_path: Path) -> None:
    planned = plan(TinySubject(), TinyInputs(200), config(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    assert planned.rows["pooled"] == 200 and planned.n_shards == 34 and planned.hours is not None
    store = harvest(TinySubject(), TinyInputs(200), config(tmp_path / "new"))
    size = sum(path.stat().st_size for path in tmp_path.glob("new/[tp]*/0*.safetensors"))
    headers = 34 * 2 * 600
    assert abs(planned.n_bytes - (size - headers)) < 0.25 * size
    assert abs(planned.rows["tokens"] - len(store.vectors(RESID))) < 0.2 * len(store.vectors(RESID))


def test_the_same_harvest_twice_has_the_same_hash(tmp_path: Path) -> None:
    first = harvest(TinySubject(), TinyInputs(), config(tmp_path / "a"))
    second = harvest(TinySubject(), TinyInputs(), config(tmp_path / "b", queue=1))
    assert first.hash == second.hash
    assert harvest(TinySubject(), TinyInputs(), config(tmp_path / "a")).hash == first.hash


@pytest.mark.parametrize(
    "changes",
    [{"hookpoints": ()}, {"hookpoints": ("a", "a")}, {"shard_examples": 5}, {"rows_per_example": 0}, {"queue": 0}],
)
def test_settings_are_checked(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        dataclasses.replace(config(tmp_path), **changes)


@pytest.mark.gpu
def test_vectors_come_from_the_gpu_unchanged(tmp_path: Path) -> None:
    class OnGpu(TinySubject):
        def run(self, batch, hookpoints):
            return {name: x.cuda() for name, x in super().run(batch, hookpoints).items()}

    inputs, subject = TinyInputs(), OnGpu()
    store = harvest(subject, inputs, config(tmp_path, dtype="float32", device="cuda"))
    vectors = store.vectors(RESID)
    assert torch.equal(vectors.read(0, len(vectors)), expected(inputs, subject, RESID).cpu())
    whole = vectors.read(0, len(vectors), torch.float64)
    assert torch.allclose(vectors.statistics.mean, whole.mean(0), rtol=1e-12)
