import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sae.activations.harvest import harvest
from sae.activations.harvest_config import HarvestConfig
from sae.activations.store import ActivationStore
from sae.dictionaries.base import Dictionary
from sae.dictionaries.registry import make_dictionary
from sae.dictionaries.topk import TopKConfig
from sae.errors import ConfigError, EvaluationError, StoreError
from sae.evaluation.relate import RelateConfig, relate
from sae.evaluation.splitting_graph import SplittingGraph
from sae.subjects.load import load
from sae.tensors import Batch, Kind

HOOKPOINT = "blocks.0.mlp.hook_post"


class RandomTokens:
    """Sixty examples of twelve tokens."""

    def __init__(self, seed: int = 0) -> None:
        self.fingerprint = str(seed) * 64
        self._tokens = torch.randint(3, 200, (60, 12), generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return 60

    def describe(self) -> dict[str, str]:
        return {"kind": "random tokens"}

    def batch(self, start: int, stop: int) -> Batch:
        tokens = self._tokens[start:stop]
        kind = torch.full(tokens.shape, int(Kind.TOKEN), dtype=torch.uint8)
        return Batch(first_example=start, tokens=tokens, attended=torch.ones_like(tokens, dtype=torch.bool), kind=kind)


def make_store(folder: Path, out: Path, seed: int = 0) -> ActivationStore:
    subject = load(f"language:{folder}")
    config = HarvestConfig(subject=subject.id, hookpoints=(HOOKPOINT,), out=out, dtype="float32", batch_examples=16)
    return harvest(subject, RandomTokens(seed), config)


@pytest.fixture(scope="module")
def stores(tiny_gpt2_folder: Path, tiny_neox_folder: Path, tmp_path_factory) -> list[ActivationStore]:
    folders = (tiny_gpt2_folder, tiny_neox_folder)
    return [make_store(folder, tmp_path_factory.mktemp("store") / "store") for folder in folders]


def make(store: ActivationStore, d_sae: int = 48, seed: int = 0) -> Dictionary:
    vectors = store.vectors(HOOKPOINT)
    dictionary = make_dictionary(TopKConfig(d_sae=d_sae, k=6), vectors.d_in)
    dictionary.initialise(vectors.read(0, len(vectors)), torch.Generator().manual_seed(seed))
    dictionary.provenance = {"subject": store.subject_id, "hookpoint": HOOKPOINT}
    return dictionary


def settings(out: Path, n: int = 2, **given) -> RelateConfig:
    names = tuple(f"dictionary-{number}" for number in range(n))
    return RelateConfig(dictionaries=names, store=Path("unused"), out=out, **given)


def scores(relation) -> dict[str, float]:
    return {comparison.score.name: comparison.score.value for comparison in relation.comparisons}


def test_a_dictionary_and_itself_agree_beyond_every_control(stores, tmp_path: Path) -> None:
    dictionary = make(stores[0])
    relation = relate([dictionary, dictionary], stores[:1], settings(tmp_path))
    alive = 1 - relation.about["dictionaries"][0]["n_dead"] / 48
    assert scores(relation)["stability"] == pytest.approx(alive, abs=1e-6)
    assert scores(relation)["universality"] > 0.9 * alive
    for comparison in relation.comparisons:
        assert all(comparison.score.value > control.value for control in comparison.controls.values())
    assert {"random_directions", "shuffled_rows"} == set(relation.comparisons[-1].controls)
    written = json.loads((tmp_path / "relation.json").read_text())
    assert [c["name"] for c in written["comparisons"]] == [c.score.name for c in relation.comparisons]
    assert len(load_file(tmp_path / "latents.safetensors")["universality.0.1"]) == 48
    assert all(len(row) == 6 for row in relation.rows())


def test_two_subjects_are_compared_by_activations_alone(stores, tmp_path: Path) -> None:
    relation = relate([make(stores[0]), make(stores[1], d_sae=40)], stores, settings(tmp_path))
    (comparison,) = relation.comparisons
    assert comparison.score.name == "universality"
    assert set(comparison.controls) == {"random_directions", "neurons", "shuffled_rows"}


def test_sizes_become_a_graph_with_pictures(stores, tmp_path: Path) -> None:
    dictionaries = [make(stores[0], d_sae, seed) for seed, d_sae in enumerate((96, 12, 24, 12))]
    relation = relate(dictionaries, stores[:1], settings(tmp_path, 4), token_text=str)
    splits = [comparison for comparison in relation.comparisons if comparison.score.name == "split_share"]
    assert [(c.one, c.two) for c in splits] == [("dictionary-1", "dictionary-2"), ("dictionary-2", "dictionary-0")]
    always = {"random_directions", "shuffled_within_tokens", "shuffled_rows"}
    assert [set(c.controls) - always for c in splits] == [{"same_size"}, set()]
    graph = SplittingGraph.load(tmp_path / "splitting.json")
    assert graph.names == ("12 latents", "24 latents", "96 latents")
    assert [bar["masked_cosine"] for bar in relation.about["splitting_bars"]] == list(graph.bars)
    names = ("splitting", "splitting-chance")
    pictures = {f"{name}.{suffix}" for name in names for suffix in ("png", "pdf", "csv")}
    assert {path.name for path in tmp_path.glob("splitting*")} == {"splitting.json", *pictures}


def test_a_larger_dictionary_with_the_same_latents_inherits_beyond_every_control(stores, tmp_path: Path) -> None:
    small = make(stores[0])
    large = make(stores[0], 96)
    for name in ("W_enc_rows", "W_dec"):
        getattr(large, name).data[:48] = getattr(small, name).data
        getattr(large, name).data[48:] = -getattr(small, name).data
    relation = relate([small, large], stores[:1], settings(tmp_path))
    (inherited,) = [c for c in relation.comparisons if c.score.name == "inherited_share"]
    assert all(inherited.score.value > control.value + 0.1 for control in inherited.controls.values())
    assert inherited.controls["random_directions"].value < 0.2


def test_sizes_that_share_a_seed_are_warned_of(stores, tmp_path: Path, caplog) -> None:
    dictionaries = [make(stores[0], d_sae) for d_sae in (12, 24)]
    for dictionary, seed in zip(dictionaries, (3, 4), strict=True):
        dictionary.provenance["seed"] = seed
    relate(dictionaries, stores[:1], settings(tmp_path))
    assert "seed of its own" not in caplog.text
    dictionaries[1].provenance["seed"] = 3
    relate(dictionaries, stores[:1], settings(tmp_path))
    assert "seed of its own" in caplog.text


def test_labels_of_other_inputs_are_not_used(stores, tmp_path: Path, caplog) -> None:
    dictionaries = [make(stores[0], d_sae) for d_sae in (12, 24)]
    relate(dictionaries, stores[:1], settings(tmp_path), RandomTokens(seed=1))
    assert "their labels are not used" in caplog.text


def test_what_does_not_belong_together_is_refused(stores, tiny_neox_folder: Path, tmp_path: Path) -> None:
    here, there = make(stores[0]), make(stores[1])
    with pytest.raises(EvaluationError, match="Each subject needs one store"):
        relate([here, there], stores[:1], settings(tmp_path))
    other_inputs = make_store(tiny_neox_folder, tmp_path / "other", seed=1)
    with pytest.raises(StoreError, match="same inputs"):
        relate([here, there], [stores[0], other_inputs], settings(tmp_path))
    elsewhere = make(stores[0])
    elsewhere.provenance["hookpoint"] = "blocks.0.hook_resid_post"
    with pytest.raises(EvaluationError, match=r"dictionary-1: reads blocks.0.hook_resid_post"):
        relate([here, elsewhere], stores[:1], settings(tmp_path))
    narrow = make_dictionary(TopKConfig(d_sae=8, k=2), 4)
    narrow.provenance = here.provenance
    with pytest.raises(EvaluationError, match="width 4"):
        relate([here, narrow], stores[:1], settings(tmp_path))
    narrow.provenance = {}
    with pytest.raises(EvaluationError, match="names no subject"):
        relate([here, narrow], stores[:1], settings(tmp_path))
    with pytest.raises(ConfigError, match="root: no latent 99"):
        relate([make(stores[0], 12), here], stores[:1], settings(tmp_path, root=99))
    with pytest.raises(ConfigError, match="two or more"):
        settings(tmp_path, 1)
