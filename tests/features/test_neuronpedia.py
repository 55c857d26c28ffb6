import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sae.errors import CatalogError
from sae.features.cards import Card
from sae.features.catalog import CARDS_PER_SHARD, About, Catalog, write_shard
from sae.features.exchange.neuronpedia import BATCH, Upload, export_neuronpedia
from sae.features.exchange.neuronpedia_import import import_neuronpedia
from sae.features.exchange.saedashboard import import_saedashboard

UPLOAD = Upload(source_set="res-test", creator_name="somebody", created="2025-01-01T00:00:00")
HOSTILE = '<script>alert("x")</script>\u202e\U0001f600'


def text_card(index: int) -> Card:
    values = [0.0, 0.5, 2.5, None]
    ref = {"example": 17, "position": 42, "value": 2.5, "start": 40, "tokens": ["a", " b", HOSTILE, "d"]}
    ref |= {"values": values, "losses": [0.1, 0.2, 0.3, 0.4]}
    low = ref | {"example": 3, "position": 41, "value": 0.5, "values": [0.1, 0.5, 0.0, 0.0]}
    silent = ref | {"example": 5, "value": -0.3, "values": [-0.3, -1.0, -2.0, -3.0]}
    return Card(
        kind="latent",
        index=index,
        title="b",
        sections={
            "statistics": {
                "rate": 3.333e-07,
                "n_fired": 1,
                "n_vectors": 3_000_000,
                "max": 2.5,
                "linear": {"edges": [0.0, 1.0, 2.0, 3.0], "counts": [5, 3, 1]},
            },
            "examples": {
                "top": [ref],
                "levels": [{"low": 0.0, "high": 1.25, "examples": [low]}],
                "random": [low],
                "negative": [silent],
            },
            "writes": {
                "up": [["x", 0.5], [HOSTILE, 0.4]],
                "down": [["y", -0.6]],
                "histogram": {"edges": [-1.0, 0.0, 1.0], "counts": [2, 3]},
            },
            "neurons": {"reads": [[1, 0.5]], "writes": [[1, 0.6], [0, -0.2]], "correlated": [[2, 0.3]], "share": 0.36},
            "neighbours": {"decoder": [[index + 1, 0.61]], "coactivation": [[index + 2, 0.31]]},
        },
    )


def image_card(index: int) -> Card:
    about = {"concept": "kite", "facet": "photo", "caption": "a photo of a kite"}
    patches = {"example": 17, "position": 3, "value": 7.0, "image": "images/000017.png", "grid": [2, 2]}
    patches |= {"values": [0.0, 1.0, 7.0, 2.0], "about": about}
    pooled = {"example": 18, "position": 0, "value": 4.0, "image": "images/000018.png", "values": [4.0]}
    pooled |= {"about": about}
    sections = {"statistics": {"rate": 0.1, "max": 7.0}, "examples": {"top": [patches, pooled]}}
    return Card(kind="latent", index=index, title="kite", sections=sections)


def catalog_of(folder: Path, cards: list[Card], hookpoint: str = "blocks.3.hook_resid_post") -> Catalog:
    for number, first in enumerate(range(0, len(cards), CARDS_PER_SHARD)):
        write_shard(folder / "latents", number, [card.packed() for card in cards[first : first + CARDS_PER_SHARD]])
    About(
        dictionary={"repr": "<test>"},
        subject="language:org/model",
        hookpoint=hookpoint,
        store="",
        modality="text",
        n_vectors=3_000_000,
        n_examples=100,
        counts={"latents": len(cards)},
        complete=True,
    ).save(folder)
    return Catalog.open(folder)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in gzip.open(path, "rt")]


@pytest.fixture
def text(tmp_path: Path) -> Catalog:
    return catalog_of(tmp_path / "text", [text_card(i) for i in range(3)])


def test_the_layout_is_the_one_that_is_imported(text: Catalog, tmp_path: Path) -> None:
    folder = export_neuronpedia(text, tmp_path / "out", UPLOAD)
    assert folder == tmp_path / "out" / "language-org-model" / "3-res-test"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    heads = {f"{name}.jsonl" for name in ("release", "model", "sourceset", "source")}
    assert found == heads | {"features/batch-0.jsonl.gz", "activations/batch-0.jsonl.gz"}
    source = json.loads((folder / "source.jsonl").read_text())
    assert source["id"] == "3-res-test" and source["modelId"] == "language-org-model"
    assert source["setName"] == json.loads((folder / "sourceset.jsonl").read_text())["name"]


def test_rows_of_a_file_have_the_same_columns_and_ids_of_their_own(text: Catalog, tmp_path: Path) -> None:
    folder = export_neuronpedia(text, tmp_path / "out", UPLOAD)
    for kind in ("features", "activations"):
        found = rows(folder / kind / "batch-0.jsonl.gz")
        assert len({tuple(row) for row in found}) == 1
        assert all(isinstance(row["index"], str) for row in found)
    identities = [row["id"] for row in rows(folder / "activations" / "batch-0.jsonl.gz")]
    assert len(set(identities)) == len(identities) == 6


def test_densities_are_never_zero_where_a_latent_fires(text: Catalog, tmp_path: Path) -> None:
    folder = export_neuronpedia(text, tmp_path / "out", UPLOAD)
    for row in rows(folder / "features" / "batch-0.jsonl.gz"):
        assert row["frac_nonzero"] == pytest.approx(1 / 3_000_000)


def test_features_say_what_the_card_says(text: Catalog, tmp_path: Path) -> None:
    W_dec = np.array([[0.6, -0.8, 0.0]] * 3, dtype=np.float32)
    bare = rows(export_neuronpedia(text, tmp_path / "a", UPLOAD) / "features" / "batch-0.jsonl.gz")[0]
    row = rows(export_neuronpedia(text, tmp_path / "b", UPLOAD, W_dec=W_dec) / "features" / "batch-0.jsonl.gz")[0]
    assert row["pos_str"] == ["x", HOSTILE] and row["neg_values"] == [-0.6]
    assert row["freq_hist_data_bar_values"] == [0.5, 1.5, 2.5]
    assert row["logits_hist_data_bar_heights"] == [2, 3]
    assert row["topkCosSimIndices"] == [1] and row["maxActApprox"] == 2.5
    assert row["hasVector"] and row["vector"] == pytest.approx([0.6, -0.8, 0.0])
    assert row["neuron_alignment_l1"] == pytest.approx([0.8 / 1.4, 0.6 / 1.4], abs=1e-5)
    assert not bare["hasVector"] and bare["vector"] == [] and bare["neuron_alignment_l1"] == []


def test_only_examples_on_which_it_fires_are_shown(text: Catalog, tmp_path: Path) -> None:
    folder = export_neuronpedia(text, tmp_path / "out", UPLOAD)
    top, level = rows(folder / "activations" / "batch-0.jsonl.gz")[:2]
    assert top["tokens"] == ["a", " b", HOSTILE, "d"] and top["values"] == [0.0, 0.5, 2.5, 0.0]
    assert (top["maxValue"], top["maxValueTokenIndex"], top["minValue"]) == (2.5, 2, 0.0)
    assert top["binMin"] is None and (level["binMin"], level["binMax"]) == (0.0, 1.25)
    assert top["lossValues"] == [0.1, 0.2, 0.3, 0.4] and top["qualifyingTokenIndex"] == 2


def test_a_catalog_comes_back(text: Catalog, tmp_path: Path) -> None:
    said = [
        {"kind": "latent", "index": 1, "text": "a letter", "author": "ann", "method": "person", "given": 0.7},
        {"kind": "latent", "index": 1, "text": "letters", "author": "bob", "method": "llm", "given": 0.9},
        {"kind": "neuron", "index": 1, "text": "a neuron", "author": "ann", "method": "person", "given": None},
    ]
    folder = export_neuronpedia(text, tmp_path / "out", UPLOAD, said)
    back, explanations = import_neuronpedia(folder, tmp_path / "back")
    assert explanations == said[:2]
    assert back[1].title == "letters" and back[0].title == f"{HOSTILE} b"
    assert len(back) == 3 and back.about.complete and back.about.modality == "text"
    for index in range(3):
        ours, theirs = text[index].sections, back[index].sections
        assert theirs["statistics"]["rate"] == ours["statistics"]["rate"]
        assert theirs["statistics"]["linear"] == ours["statistics"]["linear"]
        assert theirs["writes"] == ours["writes"]
        assert theirs["neurons"]["writes"] == ours["neurons"]["writes"]
        assert theirs["neighbours"] == ours["neighbours"]
        (top,), (level,) = theirs["examples"]["top"], theirs["examples"]["levels"]
        expected = ours["examples"]["top"][0]
        assert top == expected | {"values": [0.0, 0.5, 2.5, 0.0]}
        assert (level["low"], level["high"]) == (0.0, 1.25)
        assert level["examples"] == ours["examples"]["levels"][0]["examples"]
    assert back.latents.column("max").tolist() == [2.5] * 3


def test_pictures_travel_in_columns_of_their_own(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path / "image", [image_card(0)], "visual.layer4.0.hook_post")
    (catalog.path / "images").mkdir()
    (catalog.path / "images" / "000017.png").write_bytes(b"picture")
    folder = export_neuronpedia(catalog, tmp_path / "out", UPLOAD)
    assert folder.name == "0-res-test"
    patches, pooled = rows(folder / "activations" / "batch-0.jsonl.gz")
    # What a tool for text shows: as many words as values.
    assert patches["tokens"] == ["[1,1]", "[1,2]", "[2,1]", "[2,2]"]
    assert pooled["tokens"] == ["a photo of a kite"] and pooled["values"] == [4.0]
    assert patches["image"] == "images/000017.png" and patches["imageGrid"] == [2, 2]
    back, _ = import_neuronpedia(folder, tmp_path / "back")
    assert back.about.modality == "image"
    assert back[0]["examples"]["top"] == catalog[0]["examples"]["top"]
    assert (back.path / "images" / "000017.png").read_bytes() == b"picture"


def test_no_picture_is_taken_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    card = image_card(0)
    card.sections["examples"]["top"][0]["image"] = "images/../../secret.png"
    catalog = catalog_of(tmp_path / "image", [card])
    with pytest.raises(CatalogError, match="no name of a picture"):
        export_neuronpedia(catalog, tmp_path / "out", UPLOAD)


def test_many_latents_lie_in_many_batches_and_any_order(tmp_path: Path) -> None:
    count = BATCH + 5
    cards = [Card("latent", i, "", {"statistics": {"rate": 0.5, "max": float(i + 1)}}) for i in range(count)]
    folder = export_neuronpedia(catalog_of(tmp_path / "many", cards), tmp_path / "out", UPLOAD)
    assert len(rows(folder / "features" / "batch-1.jsonl.gz")) == 5
    back, _ = import_neuronpedia(folder, tmp_path / "back")
    assert len(back) == count
    assert back.latents.column("max").tolist() == [float(i + 1) for i in range(count)]


def test_the_same_catalog_gives_the_same_bytes(text: Catalog, tmp_path: Path) -> None:
    first, second = (export_neuronpedia(text, tmp_path / name, UPLOAD) for name in ("a", "b"))
    for path in first.rglob("*.*"):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()


def test_damaged_and_missing_files_are_named(text: Catalog, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no latents"):
        import_neuronpedia(tmp_path, tmp_path / "back")
    folder = export_neuronpedia(text, tmp_path / "out", UPLOAD)
    path = folder / "features" / "batch-0.jsonl.gz"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CatalogError, match="batch-0"):
        import_neuronpedia(folder, tmp_path / "back")


def dashboard(**changes) -> dict:
    """One feature as SAEDashboard's runner writes it."""
    top = {"bin_min": -1, "bin_max": -1, "bin_contains": -1, "tokens": ["p", "q"], "values": [0.0, 3.25]}
    binned = {"bin_min": 1.0, "bin_max": 2.0, "bin_contains": 0.2, "tokens": ["r", "s"], "values": [1.5, 0.25]}
    feature = {
        "feature_index": 2,
        "neuron_alignment_indices": [5, 7],
        "neuron_alignment_values": [0.4, 0.3],
        "neuron_alignment_l1": [0.1, 0.08],
        "correlated_neurons_indices": [9],
        "correlated_neurons_pearson": [0.2],
        "correlated_neurons_l1": [0.1],
        "correlated_features_indices": [2, 1],
        "correlated_features_pearson": [1.0, 0.5],
        "correlated_features_l1": [1.0, 0.3],
        "neg_str": ["n"],
        "neg_values": [-0.9],
        "pos_str": ["m"],
        "pos_values": [0.8],
        "frac_nonzero": 0.01234,
        "freq_hist_data_bar_values": [0.5, 1.5],
        "freq_hist_data_bar_heights": [4, 1],
        "logits_hist_data_bar_heights": [1, 2],
        "logits_hist_data_bar_values": [-0.5, 0.5],
        "n_prompts_total": 10,
        "n_tokens_in_prompt": 8,
        "dataset": "d",
        "decoder_weights_dist": [],
        "activations": [binned, top],
    }
    return {"model_id": "gpt2", "layer": 3, "sae_set": "set", "features": [feature | changes]}


def test_saedashboards_batches_become_cards(tmp_path: Path) -> None:
    (tmp_path / "batch-0.json").write_text(json.dumps(dashboard()))
    (tmp_path / "batch-10.json").write_text(json.dumps(dashboard(feature_index=4, frac_nonzero=0.0)))
    catalog = import_saedashboard(tmp_path, tmp_path / "out")
    assert len(catalog) == 5 and catalog.about.subject == "gpt2" and catalog.about.n_vectors == 80
    card = catalog[2]
    assert card["statistics"]["rate"] == 0.01234 and card["statistics"]["max"] == 3.25
    assert card["statistics"]["linear"] == {"edges": [0.0, 1.0, 2.0], "counts": [4, 1]}
    assert card["writes"]["up"] == [["m", 0.8]]
    assert card["neurons"] == {"writes": [[5, 0.4], [7, 0.3]], "correlated": [[9, 0.2]]}
    assert card["neighbours"] == {"coactivation": [[1, 0.5]]}
    (top,) = card["examples"]["top"]
    assert (top["tokens"], top["position"], top["value"]) == (["p", "q"], 1, 3.25)
    (level,) = card["examples"]["levels"]
    assert (level["low"], level["high"], level["examples"][0]["values"]) == (1.0, 2.0, [1.5, 0.25])
    assert card.title == "q r"
    # A density that was rounded to nothing is not known; it is not 0.
    assert "rate" not in catalog[4]["statistics"]
    assert np.isnan(catalog.latents.column("rate")[4])
    assert catalog[0].sections == {}


def test_a_latent_that_never_fires_has_density_zero(tmp_path: Path) -> None:
    dead = dashboard(frac_nonzero=0.0, activations=[], freq_hist_data_bar_values=[], freq_hist_data_bar_heights=[])
    (tmp_path / "batch-0.json").write_text(json.dumps(dead))
    assert import_saedashboard(tmp_path, tmp_path / "out")[2]["statistics"] == {"rate": 0.0}


@pytest.mark.parametrize("content", ["{", '{"other": 1}', "[]"])
def test_files_of_another_kind_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "batch-0.json").write_text(content)
    with pytest.raises(CatalogError, match="batch-0"):
        import_saedashboard(tmp_path, tmp_path / "out")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no batch"):
        import_saedashboard(tmp_path, tmp_path / "out")


def test_none_of_this_needs_torch() -> None:
    names = ("neuronpedia", "neuronpedia_import", "saedashboard")
    imports = "; ".join(f"import sae.features.exchange.{name}" for name in names)
    code = f"import sys; {imports}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
