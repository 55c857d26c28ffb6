import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae.activations.files import hash_file, locked, map_tensors, tensor_pieces
from sae.durable import write_durably
from sae.errors import StoreError

COLUMNS = {
    "a": [torch.randn(3, 5).bfloat16(), torch.randn(0, 5).bfloat16(), torch.randn(2, 5).bfloat16()],
    "b": [torch.arange(5)],
    "c": [torch.tensor([1, 2, 3], dtype=torch.uint8)],
    "d": [torch.randn(4, 3).T],
    "e": [torch.randn(5, dtype=torch.float64), torch.randn(1, dtype=torch.float64)],
}


def test_pieces_make_one_safetensors_file(tmp_path: Path) -> None:
    digest = write_durably(tmp_path / "new" / "x.safetensors", tensor_pieces(COLUMNS))
    path = tmp_path / "new" / "x.safetensors"
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest() == hash_file(path)
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]
    for tensors in (load_file(path), map_tensors(path)):
        assert set(tensors) == set(COLUMNS)
        for name, pieces in COLUMNS.items():
            assert torch.equal(tensors[name], torch.cat(pieces))


def test_files_of_the_library_are_mapped_too(tmp_path: Path) -> None:
    tensors = {name: torch.cat(pieces) for name, pieces in COLUMNS.items()}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"made": "elsewhere"})
    mapped = map_tensors(tmp_path / "x.safetensors")
    assert all(torch.equal(mapped[name], value) for name, value in tensors.items())


def test_writing_to_what_was_mapped_leaves_the_file_alone(tmp_path: Path) -> None:
    write_durably(tmp_path / "x.safetensors", tensor_pieces(COLUMNS))
    before = hash_file(tmp_path / "x.safetensors")
    map_tensors(tmp_path / "x.safetensors")["a"].zero_()
    assert hash_file(tmp_path / "x.safetensors") == before


@pytest.mark.parametrize("data", [b"", b"\x05", b"\xff" * 100, (2).to_bytes(8, "little") + b"{}", b"not at all"])
def test_damaged_files_are_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(StoreError, match=r"x\.safetensors"):
        map_tensors(tmp_path / "x.safetensors")


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    def failing():
        yield b"new"
        raise OSError(28, "No space left on device")

    write_durably(tmp_path / "x", [b"old"])
    with pytest.raises(StoreError, match="No space left on device"):
        write_durably(tmp_path / "x", failing(), StoreError)
    assert (tmp_path / "x").read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_folder_is_held_once_and_then_free_again(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path), pytest.raises(StoreError, match="another process"), locked(tmp_path):
            pass
