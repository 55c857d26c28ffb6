import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_catalog import GRID, IMAGE, POOLED, SPELLED, TEXT, tiny_dictionary, tiny_store

from sae.activations.store import TRAINING_KINDS
from sae.errors import CatalogError, EvaluationError
from sae.evaluation.latent_scores import LatentScores
from sae.evaluation.metric import Score
from sae.evaluation.report import Control, Report
from sae.features import catalog as catalog_module
from sae.features.building import build as module
from sae.features.building import firings as firings_module
from sae.features.building.build import build
from sae.features.building.catalog_config import CatalogConfig
from sae.features.building.contexts import runs
from sae.features.building.evidence import Amounts
from sae.features.building.titles import CaptionTitles, text_title, visible
from sae.features.catalog import Catalog, shard_path

FEW = Amounts(top=4, quantiles=3, levels=2, each=1, random=3, near=2)
Made = Callable[..., Catalog]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in (module, catalog_module):
        monkeypatch.setattr(part, "CARDS_PER_SHARD", 8)
    monkeypatch.setattr(firings_module, "SEGMENT_ROWS", 64)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {kind: tiny_store(tmp_path_factory.mktemp(kind), kind) for kind in ("language", "clip")}


@pytest.fixture
def made(stores: dict[str, Any], tmp_path: Path) -> Made:
    def make(hookpoint: str = TEXT, name: str = "catalog", **changes: Any) -> Catalog:
        store, subject, inputs = stores["language" if hookpoint == TEXT else "clip"]
        given: dict[str, Any] = {
            "dictionary": "tiny",
            "store": store.path,
            "out": tmp_path / name,
            "examples": FEW,
            "map": False,
        }
        settings = CatalogConfig(**(given | {"near_vectors": 30, "context": 3} | changes))
        return build(tiny_dictionary(store, hookpoint), store, settings, subject, inputs)

    return make


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_cards_show_tokens_and_values_as_they_are(made: Made, stores: dict[str, Any]) -> None:
    catalog = made()
    store, _, inputs = stores["language"]
    dictionary, vectors = tiny_dictionary(store, TEXT), store.vectors(TEXT, TRAINING_KINDS)
    codes = dictionary.encode(vectors.read(0, len(vectors))).dense().detach().numpy()
    rows = vectors.provenance(0, len(vectors))
    row_at = {place: i for i, place in enumerate(zip(rows.example.tolist(), rows.position.tolist(), strict=True))}
    assert catalog.about.complete and len(catalog) == 20 and catalog.about.n_vectors == len(vectors)
    assert not (catalog.path / "firings").exists() and not (catalog.path / "images").exists()
    for card in catalog.latents:
        assert card["statistics"]["n_fired"] == (codes[:, card.index] > 0).sum()
        for ref in card["examples"].get("top", []):
            texts = [SPELLED[token] for token in inputs.tokens(ref["example"])]
            assert ref["tokens"] == texts[ref["start"] : ref["start"] + len(ref["tokens"])]
            places = range(ref["start"], ref["start"] + len(ref["tokens"]))
            assert places.start == max(0, ref["position"] - 3)
            for place, value in zip(places, ref["values"], strict=True):
                row = row_at.get((ref["example"], place))
                assert value is None if row is None else value == pytest.approx(codes[row, card.index], rel=1e-3)
    dead = int((codes.max(0) <= 0).sum())
    assert dead >= 1 and catalog[19].title == "never fires"
    assert set(catalog[19].sections) == {"statistics", "examples", "neurons", "neighbours"}
    assert set(catalog[19]["examples"]) == {"near", "negative"}
    assert catalog.latents.column("rate")[19] == 0
    assert catalog.overview["log_rates"]["counts"] and ["never fire", str(dead)] in catalog.overview["facts"]


def test_neurons_have_cards_of_the_first_vectors(made: Made, stores: dict[str, Any]) -> None:
    catalog = made(neuron_vectors=60)
    vectors = stores["language"][0].vectors(TEXT, TRAINING_KINDS)
    x = vectors.read(0, 60)
    assert len(catalog.neurons) == x.shape[1] and len(catalog.neurons.words) == x.shape[1]
    for number in range(x.shape[1]):
        statistics = catalog.neuron(number)["statistics"]
        assert statistics["n_vectors"] == 60 and statistics["n_fired"] == (x[:, number] > 0).sum()
        assert statistics["max"] == pytest.approx(float(x[:, number].amax()), rel=1e-3)
        near = catalog.neuron(number)["examples"].get("near", [])
        assert all(ref["value"] <= 0 for ref in near), "a neuron that is above zero fires"
    assert len(made(name="without", neurons=False).neurons) == 0


def test_the_map_places_latents_that_fire(made: Made) -> None:
    catalog = made(map=True)
    rate, x, cluster = (catalog.latents.column(name) for name in ("rate", "map_x", "cluster"))
    assert (np.isfinite(x) == (rate > 0)).all() and ((cluster >= 0) == (rate > 0)).all()
    assert sum(cluster["n"] for cluster in catalog.overview["clusters"]) == (rate > 0).sum()
    assert "map_x" not in made(name="without").latents.columns


def test_examples_are_grouped_with_their_ends(made: Made) -> None:
    catalog = made()
    card = max(catalog.latents, key=lambda card: card["statistics"]["rate"])
    examples = card["examples"]
    assert [(part["low"], part["high"]) for part in examples["quantiles"]] == [
        (0, 0.3333),
        (0.3333, 0.6667),
        (0.6667, 1),
    ]
    top = card["statistics"]["max"]
    assert examples["levels"][0]["low"] == 0 and examples["levels"][-1]["high"] == pytest.approx(top, rel=1e-3)
    for part in examples["levels"]:
        assert all(part["low"] <= ref["value"] <= part["high"] for ref in part["examples"])
    assert examples["top"][0]["value"] == top
    assert len({ref["example"] for ref in examples["top"]}) == 4
    assert examples["near"][0]["value"] >= examples["near"][1]["value"]
    assert examples["negative"][0]["value"] <= examples["negative"][1]["value"]


def test_images_are_the_frames_and_values_lie_on_their_patches(made: Made, stores: dict[str, Any]) -> None:
    catalog = made(IMAGE)
    store, _, inputs = stores["clip"]
    dictionary, vectors = tiny_dictionary(store, IMAGE), store.vectors(IMAGE, TRAINING_KINDS)
    n_here = GRID[0] * GRID[1] + 1
    codes = dictionary.encode(vectors.read(0, len(vectors))).dense().detach().numpy().reshape(-1, n_here, 20)
    shown = set()
    for card in catalog.latents:
        for ref in card["examples"].get("top", []):
            assert ref["grid"] == list(GRID)
            assert ref["values"] == pytest.approx(codes[ref["example"], 1:, card.index].clip(min=0), rel=1e-3)
            assert ref["about"] == {"caption": f"a photo of thing {ref['example'] % 4}"}
            frame = np.asarray(Image.open(catalog.path / ref["image"])).transpose(2, 0, 1)
            assert np.array_equal(frame, inputs.image(ref["example"]).numpy())
            shown.add(ref["image"])
    assert shown <= {f"images/{path.name}" for path in (catalog.path / "images").iterdir()}


def test_pooled_vectors_have_no_grid(made: Made) -> None:
    catalog = made(POOLED)
    refs = [ref for card in catalog.latents for ref in card["examples"].get("top", [])]
    assert refs and all("grid" not in ref and "values" not in ref for ref in refs)


@pytest.mark.parametrize("hookpoint", [TEXT, IMAGE])
@pytest.mark.parametrize("writes", [1, 2, 4, 6, 7, 9])
def test_a_build_that_is_killed_goes_on_to_the_same_cards(
    made: Made, hookpoint: str, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = files(made(hookpoint, "whole").path)
    left = [writes]

    def count(write: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return write(*arguments)

        return counted

    with monkeypatch.context() as patch:
        for part in (firings_module, catalog_module):
            patch.setattr(part, "write_durably", count(part.write_durably))
        with pytest.raises(KeyboardInterrupt):
            made(hookpoint, "killed")
    catalog = made(hookpoint, "killed")
    assert files(catalog.path) == whole


def test_shards_that_are_there_are_kept_and_damaged_ones_made_again(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_overall", stop)
        with pytest.raises(KeyboardInterrupt):
            made(name="stopped")
    folder = made(name="whole").path
    stopped = folder.parent / "stopped"
    assert not Catalog.open(stopped).about.complete
    damaged, kept = (shard_path(stopped / "latents", number) for number in (0, 1))
    damaged.write_bytes(damaged.read_bytes()[:50])
    time = kept.stat().st_mtime_ns
    assert files(made(name="stopped").path) == files(folder)
    assert kept.stat().st_mtime_ns == time


def test_a_finished_catalog_is_left_as_it_is(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(made().path)
    monkeypatch.setattr(module, "record", lambda *_: pytest.fail("encoded again"))
    assert files(made().path) == before


def test_other_settings_need_another_folder(made: Made) -> None:
    made()
    with pytest.raises(CatalogError, match=r"holds a catalog with settings .*'context': 3.*; choose another folder"):
        made(context=4)
    with pytest.raises(CatalogError, match="holds a catalog with dictionary"):
        made(IMAGE)


def test_inputs_of_another_store_are_refused(stores: dict[str, Any], tmp_path: Path) -> None:
    store, subject, _ = stores["language"]
    settings = CatalogConfig(dictionary="tiny", store=store.path, out=tmp_path)
    with pytest.raises(EvaluationError, match="fingerprint"):
        build(tiny_dictionary(store, TEXT), store, settings, subject, stores["clip"][2])


def score(name: str, value: float) -> Score:
    return Score(
        name=name, version=1, value=value, n=20, unit="latents", better="higher", interval=(value - 0.1, value)
    )


def test_a_report_gives_scores_columns_and_the_overview(made: Made, stores: dict[str, Any], tmp_path: Path) -> None:
    dictionary = tiny_dictionary(stores["language"][0], TEXT)
    values = torch.linspace(0, 1, 20)
    values[3] = torch.nan
    report = Report(
        about={"dictionary": {"sha256": dictionary.hash}},
        scores=[score("clarity", 0.5), score("fvu", 0.25)],
        controls={"neurons": Control(description="Raw.", scores=[score("clarity", 0.3)])},
    )
    report.save(tmp_path / "report.json")
    scores = LatentScores(values={"clarity": values}, numbers={}, versions={"clarity": 1}, about={})
    scores.save(tmp_path / "latents.safetensors")
    catalog = made(report=str(tmp_path))
    expected = {"value": 0.2105, "control": 0.3, "against": "neurons", "low": 0.2, "high": 0.3}
    assert catalog[4]["scores"] == {"clarity": expected}
    assert "scores" not in catalog[3].sections
    assert catalog.latents.column("score.clarity")[19] == 1 and np.isnan(catalog.latents.column("score.clarity")[3])
    assert catalog.overview["report"][0]["control"] == "neurons"
    assert catalog.overview["controls"]["neurons"] == {"description": "Raw.", "scores": {"clarity": 0.3}}
    assert ["FVU", "0.25"] in catalog.overview["facts"]
    data = json.loads((tmp_path / "report.json").read_text())
    data["about"]["dictionary"]["sha256"] = "f" * 64
    (tmp_path / "report.json").write_text(json.dumps(data))
    with pytest.raises(CatalogError, match="a report on dictionary ffff"):
        made(name="other", report=str(tmp_path))


def ref(before: str, token: str) -> dict[str, Any]:
    return {"position": 5, "start": 4, "tokens": [before, token], "values": [0, 1.0]}


@pytest.mark.parametrize(
    ("pairs", "title"),
    [
        ([(" def", " __"), (" def", " __"), ("x", " __")], "def __"),
        ([("a", "\n"), ("b", "\n"), ("c", "(")], "⏎"),
        ([("a", "  "), ("b", "  ")], "␣␣"),
        ([("a", "x"), ("a", "y"), ("a", "z"), ("a", "z"), ("a", "w")], "z · x · y"),
        ([("a", "y" * 100)], "a" + "y" * 58 + "…"),
        ([], ""),
    ],
)
def test_a_text_title_names_the_token_and_what_comes_before(pairs: list[tuple[str, str]], title: str) -> None:
    assert text_title([ref(*pair) for pair in pairs]) == title


def test_an_image_title_names_words_that_other_captions_have_not() -> None:
    titles = CaptionTitles([f"a photo of the {word}" for word in ("cat", "dog", "kite", "sun")] * 5)
    refs = [{"about": {"caption": f"a photo of the {word}"}} for word in ("kite", "kite", "cat")]
    assert titles.title(refs) == "kite"
    assert titles.title([{"image": "1.png"}]) == ""


def test_spaces_show() -> None:
    assert visible("\n\t") == "⏎→" and visible(" a") == "a" and visible("  ") == "␣␣"


def test_runs_of_numbers_are_cut() -> None:
    assert list(runs([1, 2, 3, 5, 6, 9], 2)) == [range(1, 3), range(3, 4), range(5, 7), range(9, 10)]
    assert list(runs([], 2)) == []
