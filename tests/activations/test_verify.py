from pathlib import Path

import pytest
from tiny_subject import RESID, TinyInputs, TinySubject
from tiny_subject import settings as config

from sae.activations.harvest import harvest
from sae.activations.store import ActivationStore
from sae.activations.verify import info, verify
from sae.errors import StoreError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    harvest(TinySubject(), TinyInputs(), config(tmp_path))
    return tmp_path


def flip(path: Path, byte: int) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(data)


def test_a_whole_store_passes(folder: Path) -> None:
    assert verify(folder).manifest.complete


def test_every_bad_file_is_named(folder: Path) -> None:
    flip(folder / "tokens/000002.safetensors", -1)
    (folder / "pooled/000001.safetensors").unlink()
    flip(folder / "inputs/000003.json", 5)
    with pytest.raises(StoreError) as caught:
        verify(folder)
    message = str(caught.value)
    assert "3 of 18 files are bad" in message
    assert "tokens/000002.safetensors: its bytes are not those that were written" in message
    assert "pooled/000001.safetensors: missing" in message and "inputs/000003.json" in message


def test_a_file_cut_short_is_named_when_it_is_read(folder: Path) -> None:
    path = folder / "tokens/000001.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    vectors = ActivationStore(folder).vectors(RESID)
    with pytest.raises(StoreError, match=r"000001\.safetensors: cut short"):
        vectors.read(0, len(vectors))
    path.write_bytes(b"")
    with pytest.raises(StoreError, match=r"000001\.safetensors"):
        ActivationStore(folder).vectors(RESID).read(0, len(vectors))


def test_a_manifest_that_lies_about_counts_is_found(folder: Path) -> None:
    path = folder / "manifest.json"
    n_vectors = ActivationStore(folder).manifest.grids["tokens"].shards[0].n_vectors
    path.write_text(path.read_text().replace(f'"n_vectors": {n_vectors},', '"n_vectors": 1,', 1))
    with pytest.raises(StoreError, match=r"rows, expected 1|the shards"):
        verify(folder)


def test_info_sums_up(folder: Path) -> None:
    found = info(folder)
    assert found["complete"] and found["n_shards"] == found["n_shards_planned"] == 4
    assert found["hookpoints"][RESID]["n_vectors"] == len(ActivationStore(folder).vectors(RESID))
    assert found["hookpoints"][RESID]["mean_norm"] > 0
    assert found["n_bytes"] < sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_an_interrupted_store_can_be_summed_up(tmp_path: Path) -> None:
    class Broken(TinySubject):
        def run(self, batch, hookpoints):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        harvest(Broken(), TinyInputs(), config(tmp_path))
    assert info(tmp_path)["hookpoints"][RESID]["n_vectors"] == 0
    assert not verify(tmp_path).manifest.complete
