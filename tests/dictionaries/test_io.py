import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae import builtin
from sae.dictionaries import io
from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import ConfigError, DictionaryError


def dictionary(seed: int = 0) -> TopK:
    result = TopK(TopKConfig(d_sae=12, k=2), 6)
    generator = torch.Generator().manual_seed(seed)
    result.initialise(torch.randn(32, 6, generator=generator), generator)
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    io.save_dictionary(dictionary(), tmp_path, {"subject": "builtin:stdlib-1l@0", "seed": 0})
    return tmp_path


def change(folder: Path, **entries: Any) -> None:
    path = folder / io.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def change_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / io.TENSORS_FILE)
    edit(tensors)
    save_file(tensors, folder / io.TENSORS_FILE)


def test_files_hold_the_api_orientation(folder: Path) -> None:
    tensors = load_file(folder / io.TENSORS_FILE)
    assert tensors["W_enc"].shape == (6, 12) and tensors["W_dec"].shape == (12, 6)
    assert sorted(path.name for path in folder.iterdir()) == [io.CONFIG_FILE, io.TENSORS_FILE]


def test_saving_replaces_and_adds_provenance(folder: Path) -> None:
    other = dictionary(seed=1)
    other.provenance = {"seed": 1}
    io.save_dictionary(other, folder, {"n_vectors": 10})
    loaded = io.load_dictionary(str(folder))
    assert loaded.hash == other.hash
    assert loaded.provenance == {"seed": 1, "n_vectors": 10}


def test_exports_to_every_format_that_is_written(folder: Path, tmp_path: Path) -> None:
    x, original = torch.randn(20, 6), io.load_dictionary(folder)
    for form in ("saelens", "sparsify", "sae"):
        io.export_dictionary(original, tmp_path / form, form)
        torch.testing.assert_close(io.load_dictionary(tmp_path / form)(x), original(x), rtol=0, atol=0)
    with pytest.raises(
        DictionaryError, match=r"'sealens'\. Did you mean 'saelens'\? Allowed: saelens, sparsify, sae\."
    ):
        io.export_dictionary(original, tmp_path / "other", "sealens")
    assert not (tmp_path / "other").exists()


def test_the_same_dictionary_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    io.save_dictionary(dictionary(), tmp_path / "again", {"subject": "builtin:stdlib-1l@0", "seed": 0})
    for name in (io.CONFIG_FILE, io.TENSORS_FILE):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_other_precisions_survive(tmp_path: Path) -> None:
    half = dictionary().to(torch.bfloat16)
    io.save_dictionary(half, tmp_path)
    loaded = io.load_dictionary(tmp_path)
    assert loaded.W_dec.dtype == torch.bfloat16 and loaded.hash == half.hash


def test_loading_by_builtin_name(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "dictionaries" / "stdlib-1l-0"
    shipped.mkdir(parents=True)
    (shipped / "blocks.0.hook_mlp_out").symlink_to(folder)
    monkeypatch.setattr(builtin, "root", lambda: tmp_path)
    assert io.load_dictionary("builtin:stdlib-1l/blocks.0.hook_mlp_out").hash == dictionary().hash
    with pytest.raises(ConfigError, match=r"no such built-in dictionary\. Did you mean"):
        io.load_dictionary("builtin:stdlib-1l/blocks.0.hook_mlp_uot")


def test_the_hash_covers_settings_and_tensors() -> None:
    first, second = dictionary(), dictionary()
    assert first.hash == second.hash
    second.b_enc.data[3] += 1e-6
    assert first.hash != second.hash
    assert first.hash != TopK(TopKConfig(d_sae=12, k=3), 6).hash


@pytest.mark.parametrize("missing", [io.CONFIG_FILE, io.TENSORS_FILE])
def test_a_missing_file(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(DictionaryError, match=missing):
        io.load_dictionary(folder)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": 2}, "format version 2; this version reads 1"),
        ({"config": {"kind": "topkk", "d_sae": 12}}, "Did you mean 'topk'"),
        ({"config": {"kind": "topk", "d_sae": 12, "kk": 2}}, "kk"),
        ({"config": {"kind": "topk", "d_sae": 13, "k": 2}}, r"shape \[.*12.*\].*13"),
        ({"config": {"kind": "topk", "d_sae": 12, "k": 3}}, "damaged"),
        ({"d_in": "six"}, "d_in"),
        ({"sha256": "0" * 64}, "damaged"),
    ],
)
def test_a_description_that_does_not_fit(folder: Path, entries: dict[str, Any], message: str) -> None:
    change(folder, **entries)
    with pytest.raises(DictionaryError, match=message):
        io.load_dictionary(folder)


@pytest.mark.parametrize("key", ["config", "d_in", "provenance", "sha256", "format"])
def test_an_entry_that_is_missing(folder: Path, key: str) -> None:
    path = folder / io.CONFIG_FILE
    description = json.loads(path.read_text())
    del description[key]
    path.write_text(json.dumps(description))
    with pytest.raises(DictionaryError, match=key):
        io.load_dictionary(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.pop("b_enc"), "b_enc is missing"),
        (lambda tensors: tensors.update(other=torch.zeros(1)), "other is not part"),
        (lambda tensors: tensors.update(W_enc=tensors["W_dec"].clone()), r"W_enc has shape \[12, 6\].*\[6, 12\]"),
        (lambda tensors: tensors["b_dec"].add_(1), "damaged"),
    ],
)
def test_tensors_that_do_not_fit(folder: Path, edit: Callable[..., Any], message: str) -> None:
    change_tensors(folder, edit)
    with pytest.raises(DictionaryError, match=message):
        io.load_dictionary(folder)


@pytest.mark.parametrize("name", [io.CONFIG_FILE, io.TENSORS_FILE])
def test_a_truncated_file(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DictionaryError, match=name):
        io.load_dictionary(folder)


def test_provenance_must_be_plain_data(tmp_path: Path) -> None:
    unsaved = dictionary()
    with pytest.raises(DictionaryError, match="provenance"):
        io.save_dictionary(unsaved, tmp_path, {"when": object()})
    assert unsaved.provenance == {}
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DictionaryError, match="could not be written"):
        io.save_dictionary(dictionary(), tmp_path / "file")


def test_compact_files_round_the_matrices_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    original, x = dictionary(), torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    io.save_dictionary(original, tmp_path / "compact", {"seed": 0}, compact=True)
    stored = load_file(tmp_path / "compact" / io.TENSORS_FILE)
    assert {name for name, tensor in stored.items() if tensor.dtype == torch.bfloat16} == {"W_enc", "W_dec"}
    loaded = io.load_dictionary(tmp_path / "compact")
    assert all(tensor.dtype == torch.float32 for tensor in loaded.tensors().values())
    assert loaded(x).dtype == torch.float32
    torch.testing.assert_close(loaded.W_dec, original.W_dec, rtol=2**-8, atol=0)
    assert torch.equal(loaded.b_dec, original.b_dec)
    assert original.hash == dictionary().hash, "saving changed what was saved"
    io.save_dictionary(loaded, tmp_path / "again", compact=True)
    assert io.load_dictionary(tmp_path / "again").hash == loaded.hash
