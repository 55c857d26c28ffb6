"""`sae export --neuronpedia` and `sae import`: catalogs to other tools and back, with what was said of them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from toy_catalog import write_toy_catalog

from sae import cli
from sae.features.catalog import Catalog
from sae.features.explanations import Explanations

NAMES = ["--source-set", "res-toy", "--creator", "somebody"]


def test_explanations_and_cards_come_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_toy_catalog(tmp_path / "catalog", n_latents=20)
    said = Explanations(folder)
    scored = said.add("latent", 3, "a kite", "Ada")
    said.score(scored.id, "Bob", scored.revision, 0.75, 20, (0.5, 0.9), "blind")
    said.add("latent", 3, "kites", "model", method="patterns", given=0.4)
    said.add("neuron", 3, "a neuron", "Ada")
    command = ["export", str(folder), "--out", str(tmp_path / "out"), "--neuronpedia", *NAMES, "--model", "toy"]
    assert cli.main([*command, "--release", "first", "--description", "A toy.", "--creator-id", "me"]) == 0
    source = tmp_path / "out" / "toy" / "0-res-toy"
    assert f"saved in {source}" in capsys.readouterr().out
    assert json.loads((source / "release.jsonl").read_text())["name"] == "first"
    assert cli.main(["import", "neuronpedia", str(source), "--out", str(tmp_path / "back")]) == 0
    assert "with 2 explanations" in capsys.readouterr().out
    back = {one.text: one for one in Explanations(tmp_path / "back")}
    assert {(one.kind, one.index) for one in back.values()} == {("latent", 3)}
    assert (back["a kite"].author, back["a kite"].method, back["a kite"].given) == ("Ada", "person", 0.75)
    assert (back["kites"].author, back["kites"].method, back["kites"].given) == ("model", "patterns", 0.4)
    assert back["a kite"].score is None, "nobody has tested it on the examples of the catalog that was made"
    again, before = Catalog.open(tmp_path / "back"), Catalog.open(folder)
    assert len(again) == 20 and again[5]["examples"]["top"][0]["tokens"] == before[5]["examples"]["top"][0]["tokens"]
    assert again[3].title == "a kite"
    assert cli.main(["export", str(tmp_path / "back"), "--out", str(tmp_path / "site")]) == 0


def test_vectors_go_along_where_they_are_asked_for(tmp_path: Path) -> None:
    folder = write_toy_catalog(tmp_path / "catalog", n_latents=20)
    manifest = json.loads((folder / "catalog.json").read_text())
    manifest["dictionary"]["source"] = "builtin:stdlib-1l/blocks.0.mlp.hook_post"
    (folder / "catalog.json").write_text(json.dumps(manifest))
    command = ["export", str(folder), "--out", str(tmp_path / "out"), "--neuronpedia", "--vectors", "--model", "toy"]
    assert cli.main([*command, *NAMES]) == 0
    with gzip.open(tmp_path / "out" / "toy" / "0-res-toy" / "features" / "batch-0.jsonl.gz", "rt") as file:
        row = json.loads(file.readline())
    assert row["hasVector"] and len(row["vector"]) == 512


def test_files_of_saedashboard_become_a_catalog(tmp_path: Path) -> None:
    feature = {"feature_index": 2, "activations": [{"tokens": ["a", "b"], "values": [0.0, 1.5]}], "frac_nonzero": 0.1}
    folder = tmp_path / "dashboard"
    folder.mkdir()
    (folder / "batch-0.json").write_text(
        json.dumps({"model_id": "toy", "layer": 1, "sae_set": "s", "features": [feature]})
    )
    assert cli.main(["import", "saedashboard", str(folder), "--out", str(tmp_path / "catalog")]) == 0
    assert Catalog.open(tmp_path / "catalog")[2]["examples"]["top"][0]["value"] == 1.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["export", "{catalog}", "--out", "x", "--neuronpedia", "--creator", "me"],
            "--source-set: --neuronpedia needs it",
        ),
        (["export", "{catalog}", "--out", "x", "--neuronpedia", *NAMES, "--card", "latent/1"], "name one of them"),
        (["export", "{catalog}", "--out", "x", "--neuronpedia", *NAMES, "--vectors"], "does not name its dictionary"),
        (["import", "neuronpedias", "{catalog}", "--out", "x"], "Did you mean 'neuronpedia'"),
        (["import", "neuronpedia", "{catalog}"], "--out: name the folder"),
        (["import", "neuronpedia", "{catalog}", "--out", "{catalog}"], "is there already"),
        (["import", "saedashboard", "{catalog}", "--out", "x"], "no batch-"),
        (["import", "neuronpedia"], "usage: sae import neuronpedia|saedashboard FOLDER"),
    ],
)
def test_errors_of_moving(text_catalog: Path, words: list[str], message: str, capsys: Any, tmp_path: Path) -> None:
    filled = [word.format(catalog=text_catalog) if word != "x" else str(tmp_path / "x") for word in words]
    assert cli.main(filled) == 2
    assert message in capsys.readouterr().err
