import os
from pathlib import Path
from typing import Any

import pytest
import torch

from sae.errors import TrainingError
from sae.training.checkpoint import Checkpoints


def state(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "model": {"W_dec": torch.randn(3, 4, generator=generator), "variance": torch.tensor(0.1)},
        "optimiser": {"state": {0: {"step": torch.tensor(5.0)}, 1: {}}, "param_groups": [{"lr": 0.1, "eps": 1e-300}]},
        "rng": torch.arange(7, dtype=torch.uint8),
        "mask": torch.tensor([True, False]),
        "n": 2**60,
        "name": None,
    }


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    path = checkpoints.save(10, state())
    assert checkpoints.latest() == path
    assert_same(checkpoints.load(), state())


def test_views_of_one_memory_are_saved_each(tmp_path: Path) -> None:
    memory = torch.arange(6.0)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"a": memory, "b": memory, "transposed": memory.view(2, 3).T})
    loaded = checkpoints.load()
    assert torch.equal(loaded["transposed"], memory.view(2, 3).T)
    assert torch.equal(loaded["a"], loaded["b"])


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (5, 10, 15):
        checkpoints.save(step, state(step))
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-000000010", "step-000000015"]
    assert_same(checkpoints.load(), state(15))


def test_a_write_that_was_cut_off_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, state(5))

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(TrainingError, match=r"No space left.*step-000000005"):
            checkpoints.save(10, state(10))
    assert_same(checkpoints.load(), state(5))
    checkpoints.save(10, state(10))
    assert not list(tmp_path.glob("*.partial"))
    assert_same(checkpoints.load(), state(10))


def test_the_newest_is_never_written_over(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save(5, state())
    before = (path / "state.json").stat().st_mtime_ns
    assert checkpoints.save(5, state()) == path
    assert (path / "state.json").stat().st_mtime_ns == before


def test_going_back_to_an_older_one_by_hand_keeps_it_until_the_next(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (5, 10):
        checkpoints.save(step, state(step))
    (tmp_path / "latest").write_text("step-000000005\n")
    assert_same(checkpoints.load(), state(5))
    checkpoints.save(7, state(7))
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-000000005", "step-000000007"]
    assert_same(checkpoints.load(), state(7))


def test_nothing_to_resume_from(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).latest() is None
    with pytest.raises(TrainingError, match="no checkpoint to resume from"):
        Checkpoints(tmp_path).load()


def test_a_damaged_checkpoint_names_the_other_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, state())
    newest = checkpoints.save(10, state())
    (newest / "tensors.safetensors").write_bytes(b"12345678")
    with pytest.raises(TrainingError, match=r"cannot be read.*step-000000005"):
        checkpoints.load()


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).save(5, state()) / "state.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(TrainingError, match="99 found, 1 can be read"):
        Checkpoints(tmp_path).load()
