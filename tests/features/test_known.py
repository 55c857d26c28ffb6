"""A catalog of the built-in language model: every section is there, and says what its dictionary is known for."""

from pathlib import Path

import pytest

import sae
from sae.activations.harvest_config import HarvestConfig
from sae.features.building.build import build
from sae.features.building.catalog_config import CatalogConfig
from sae.features.building.evidence import Amounts
from sae.features.catalog import Catalog
from sae.inputs.configs import StdlibInputsConfig

HOOKPOINT = "blocks.0.mlp.hook_post"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("known")
    subject = sae.load_subject("builtin:stdlib-1l")
    config = StdlibInputsConfig(split="score", context=128, n_examples=96)
    inputs = sae.open_inputs(config, tokenizer=subject.tokenizer)  # type: ignore[attr-defined]
    harvested = HarvestConfig(subject=subject.id, inputs=config, hookpoints=(HOOKPOINT,), out=folder / "store")
    store = sae.harvest(subject, inputs, harvested)
    settings = CatalogConfig(
        dictionary=f"builtin:stdlib-1l/{HOOKPOINT}",
        store=store.path,
        out=folder / "catalog",
        examples=Amounts(top=5, quantiles=2, levels=2, each=1, random=2, near=2),
        near_vectors=256,
        neuron_vectors=2048,
        map=False,
    )
    return build(sae.load_dictionary(settings.dictionary), store, settings, subject, inputs)


def test_a_latent_has_every_section(catalog: Catalog) -> None:
    card = catalog[1981]
    expected = {"statistics", "examples", "held_out", "writes", "neurons", "neighbours", "labels", "scores"}
    assert set(card.sections) == expected
    assert card["labels"][0]["label"] == "role=class definition" and card["labels"][0]["auc"] > 0.9
    assert {token for token, _ in card["writes"]["up"]} >= {"():", "Manager"}


def test_a_neuron_shows_what_it_mixes(catalog: Catalog) -> None:
    mixed = [card for card in catalog.neurons if "mixture" in card.sections]
    assert len(mixed) > 50
    parts = mixed[0]["mixture"]["parts"]
    assert len(parts) >= 2 and all(0 <= latent < len(catalog) for part in parts for latent, _, _ in part["latents"])


def test_search_words_hold_labels_and_titles(catalog: Catalog) -> None:
    title, words = catalog.latents.words[1981]
    assert title and "role=class definition" in words


def test_the_catalog_can_be_shown_in_a_notebook(catalog: Catalog, tmp_path: Path) -> None:
    html = catalog[1981]._repr_html_()
    assert "iframe" in html and "<script src=" not in html
