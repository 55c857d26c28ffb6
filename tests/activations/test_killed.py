"""A harvest that dies by SIGKILL, in a process of its own, at every kind of moment."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from tiny_subject import RESID, TinyInputs, TinySubject, settings, tree

from sae import config
from sae.activations.files import locked
from sae.activations.harvest import harvest
from sae.activations.harvest_config import HarvestConfig
from sae.activations.store import ActivationStore
from sae.activations.verify import verify
from sae.activations.writer import CONFIG_NAME
from sae.errors import StoreError

FORK = multiprocessing.get_context("fork")
CALLS_PER_SHARD = 23
"""Seven files of three calls each, and two old statistics removed."""


def _harvest_and_die(store: Path, at_call: int) -> None:
    """Harvest, and be killed just before the n-th flush, rename or removal."""
    count = 0

    def deadly(real):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == at_call:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    os.fsync, Path.replace, Path.unlink = deadly(os.fsync), deadly(Path.replace), deadly(Path.unlink)
    harvest(TinySubject(), TinyInputs(), settings(store, covariance=True))


def _die(store: Path, at_call: int) -> int | None:
    process = FORK.Process(target=_harvest_and_die, args=(store, at_call))
    process.start()
    process.join(60)
    return process.exitcode


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole")
    harvest(TinySubject(), TinyInputs(), settings(folder, covariance=True))
    return tree(folder)


@pytest.mark.parametrize("at_call", [1, 3, 5, *range(CALLS_PER_SHARD + 2, 2 * CALLS_PER_SHARD + 6)])
def test_killed_once(tmp_path: Path, whole: dict[str, str], at_call: int) -> None:
    assert _die(tmp_path, at_call) == -signal.SIGKILL
    if (tmp_path / "manifest.json").exists():
        verify(tmp_path)
    if any(tmp_path.rglob("000000.safetensors")):
        assert config.load(HarvestConfig, tmp_path / CONFIG_NAME) == settings(tmp_path, covariance=True)
    harvest(TinySubject(), TinyInputs(), settings(tmp_path, covariance=True))
    assert tree(tmp_path) == whole


def test_killed_again_and_again(tmp_path: Path, whole: dict[str, str]) -> None:
    deaths = 0
    while _die(tmp_path, 29) == -signal.SIGKILL:
        deaths += 1
        assert deaths < 20
    assert deaths > 2
    assert tree(tmp_path) == whole


def test_a_second_process_is_turned_away(tmp_path: Path) -> None:
    held, done = FORK.Event(), FORK.Event()

    def hold() -> None:
        with locked(tmp_path):
            held.set()
            done.wait(60)

    process = FORK.Process(target=hold)
    process.start()
    assert held.wait(60)
    with pytest.raises(StoreError, match="another process is harvesting"):
        harvest(TinySubject(), TinyInputs(), settings(tmp_path))
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    # The lock file is still there, and holds nothing.
    assert (tmp_path / ".lock").exists()
    store = harvest(TinySubject(), TinyInputs(), settings(tmp_path))
    assert isinstance(store, ActivationStore) and len(store.vectors(RESID))
