import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae.errors import CatalogError
from sae.features import catalog as module
from sae.features.cards import SECTIONS, Card, rounded, strings
from sae.features.catalog import About, Catalog, shard_path, write_columns, write_json, write_shard

HOSTILE = ["<script>alert(1)</script>", "\u202ertl", "🦆\u200d", "x" * 10_000, '"\\\n\u2028', "</textarea>", "\x00"]
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def card(index: int) -> Card:
    ref = {
        "example": index,
        "position": 1,
        "value": 1.5,
        "start": 0,
        "tokens": HOSTILE,
        "values": [None] * len(HOSTILE),
    }
    return Card(
        "latent", index, HOSTILE[index % len(HOSTILE)], {"statistics": {"rate": 0.25}, "examples": {"top": [ref]}}
    )


def about(n_cards: int) -> About:
    return About(
        dictionary={"sha256": "0"},
        subject="tiny:one",
        hookpoint="here",
        store="1",
        modality="text",
        n_vectors=10,
        n_examples=3,
        counts={"latents": n_cards},
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalog of ten cards, four to a shard."""
    monkeypatch.setattr(module, "CARDS_PER_SHARD", 4)
    about(10).save(tmp_path)
    for number, start in enumerate(range(0, 10, 4)):
        write_shard(tmp_path / "latents", number, [card(i).packed() for i in range(start, min(start + 4, 10))])
    write_columns(tmp_path / "latents", {"rate": np.linspace(0, 1, 10)})
    write_json(tmp_path / "latents" / "words.json", [[card(i).title, "words"] for i in range(10)])
    return tmp_path


def test_cards_come_back_as_they_were(folder: Path) -> None:
    catalog = Catalog.open(folder)
    assert len(catalog) == 10 and [one.to_json() for one in catalog.latents] == [card(i).to_json() for i in range(10)]
    assert catalog[7]["examples"]["top"][0]["tokens"] == HOSTILE
    assert json.loads(zlib.decompress(catalog.latents.packed(9))) == card(9).to_json()
    assert catalog.latents.column("rate")[9] == 1
    assert catalog.latents.words[3] == (card(3).title, "words")
    assert "10 latents" in repr(catalog) and len(catalog.shelf("neuron")) == 0 and catalog.overview == {}


@given(st.dictionaries(st.sampled_from(sorted(SECTIONS)), PLAIN), st.text())
def test_any_plain_data_survives_packing(sections: dict, title: str) -> None:
    made = Card("neuron", 3, title, sections)
    assert Card.unpacked(made.packed()) == made


def test_what_is_not_there_is_named(folder: Path) -> None:
    catalog = Catalog.open(folder)
    with pytest.raises(CatalogError, match="no latent 10; they are numbered 0 to 9"):
        catalog[10]
    with pytest.raises(CatalogError, match="no latent -1"):
        catalog[-1]
    with pytest.raises(CatalogError, match="no neuron 0"):
        catalog.neuron(0)
    with pytest.raises(CatalogError, match="Did you mean 'rate'"):
        catalog.latents.column("rates")
    with pytest.raises(CatalogError, match="Did you mean 'neuron'"):
        catalog.shelf("neurons")
    with pytest.raises(KeyError, match="latent 0 has statistics, examples"):
        catalog[0]["writes"]


def test_damaged_files_are_told_of_by_name(folder: Path, tmp_path: Path) -> None:
    path = shard_path(folder / "latents", 1)
    path.write_bytes(path.read_bytes()[:60])
    catalog = Catalog.open(folder)
    assert catalog[3].index == 3
    with pytest.raises(CatalogError, match=r"000001.safetensors: cannot be read"):
        catalog[4]
    whole = shard_path(folder / "latents", 0)
    whole.write_bytes(whole.read_bytes()[:-40] + b"\0" * 40)
    with pytest.raises(CatalogError, match="latent 3 is damaged"):
        Catalog.open(folder)[3]
    write_shard(folder / "latents", 2, [card(8).packed()])
    with pytest.raises(CatalogError, match="ends before latent 9"):
        Catalog.open(folder)[9]
    (folder / "latents" / "words.json").write_text("[")
    with pytest.raises(CatalogError, match=r"words.json: cannot be read"):
        _ = catalog.latents.words
    (folder / About.FILE).write_text(json.dumps({"format_version": "0"}))
    with pytest.raises(CatalogError, match="format version '0'; this reads '1'"):
        Catalog.open(folder)
    with pytest.raises(CatalogError, match="is this the folder of a catalog"):
        Catalog.open(tmp_path / "nowhere")


def test_a_catalog_is_read_without_torch(folder: Path) -> None:
    code = (
        "import sys; from sae.features.catalog import Catalog; c = Catalog.open(sys.argv[1]);"
        "assert c[3].title and c.latents.columns and c.latents.words; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == 0


@pytest.mark.parametrize(("value", "shown"), [(1.23456, 1.235), (0.000123456, 0.0001235), (123456.0, 123500.0), (0, 0)])
def test_numbers_keep_four_digits(value: float, shown: float) -> None:
    assert rounded(value) == shown


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_cannot_hold_is_none(value: float) -> None:
    assert rounded(value) is None


def test_strings_are_found_at_any_depth() -> None:
    assert list(strings({"a": ["x", {"b": "y"}, 3], "c": ("z", None)})) == ["x", "y", "z"]
