"""The hub without a hub: what is asked of its client, and what is made of the answers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from sae.dictionaries import hub, io
from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import DictionaryError

FILES = [
    "README.md",
    "layers.3/cfg.json",
    "layers.3/sae.safetensors",
    "layers.3/optimizer_0.bin",
    "layers.3/extra/cfg.json",
    "ours/dictionary.json",
    "ours/dictionary.safetensors",
    "ours/latents.safetensors",
    "ours/controls/pca/dictionary.json",
    "Llama-L0R-8x/hyperparams.json",
    "Llama-L0R-8x/checkpoints/final.safetensors",
    "vision/n_images_1.pt",
    "vision/n_images_2.pt",
    "vision/config.json",
]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, Any]]:
    """A hub that lists FILES and notes what is downloaded from it; its snapshots lie in tmp_path."""
    notes: list[tuple[str, str | None, Any]] = []

    def snapshot(repo: str, revision: str | None = None, allow_patterns: Any = None, **_: Any) -> str:
        notes.append((repo, revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, repo, revision=None: FILES)
    return notes


@pytest.mark.parametrize(
    ("folder", "files"),
    [
        ("layers.3", ["layers.3/cfg.json", "layers.3/sae.safetensors"]),
        ("ours", ["ours/dictionary.json", "ours/dictionary.safetensors"]),
        ("Llama-L0R-8x", ["Llama-L0R-8x/hyperparams.json", "Llama-L0R-8x/checkpoints/final.safetensors"]),
        ("vision/n_images_2.pt", ["vision/n_images_2.pt", "vision/config.json"]),
    ],
)
def test_only_the_files_of_one_dictionary_are_fetched(
    folder: str, files: list[str], asked: list, tmp_path: Path
) -> None:
    assert hub.download(f"hub:some-one/a.b_c/{folder}") == tmp_path / folder
    ((repo, revision, patterns),) = asked
    assert (repo, revision) == ("some-one/a.b_c", None)
    assert sorted(patterns) == sorted(files)


def test_a_revision_is_passed_on(asked: list) -> None:
    hub.download("hub:one/two@refs-v1/layers.3")
    assert asked[0][:2] == ("one/two", "refs-v1")


def test_a_folder_without_a_dictionary_names_those_with_one(asked: list) -> None:
    with pytest.raises(DictionaryError, match=r"no dictionary directly in layers\.4\. Did you mean 'layers\.3'\?"):
        hub.download("hub:one/two/layers.4")
    with pytest.raises(DictionaryError, match=r"no dictionary directly in it\. Allowed: .*layers\.3"):
        hub.download("hub:one/two")
    assert not asked


def test_a_malformed_name_says_how_it_is_spelled() -> None:
    with pytest.raises(DictionaryError, match=r"expected hub:OWNER/NAME\[@REVISION\]\[/FOLDER\]"):
        hub.download("hub:justaname")


def test_what_is_fetched_is_loaded(asked: list, tmp_path: Path) -> None:
    dictionary = TopK(TopKConfig(d_sae=12, k=2), 6)
    io.save_dictionary(dictionary, tmp_path / "ours")
    assert io.load_dictionary("hub:one/two/ours").hash == dictionary.hash
    assert len(asked) == 1


def test_without_a_connection_the_cache_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DictionaryError, match=r"hub:one/two: could not be fetched: "):
        hub.download("hub:one/two")
    commit = "a" * 40
    repo = tmp_path / "models--one--two"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    dictionary = TopK(TopKConfig(d_sae=12, k=2), 6)
    io.save_dictionary(dictionary, repo / "snapshots" / commit / "ours")
    monkeypatch.setattr(hub._library(), "snapshot_download", cached_snapshot(tmp_path))
    assert io.load_dictionary("hub:one/two/ours").hash == dictionary.hash


def cached_snapshot(cache: Path) -> Any:
    original = huggingface_hub.snapshot_download

    def snapshot(repo: str, **settings: Any) -> str:
        assert settings["local_files_only"]
        return original(repo, cache_dir=cache, **settings)

    return snapshot


def test_pushing_is_one_commit_with_card_files_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary = TopK(TopKConfig(d_sae=12, k=2), 6)
    io.save_dictionary(dictionary, tmp_path / "ours", {"hookpoint": "blocks.0.hook_mlp_out"})
    (tmp_path / "ours" / "report.json").write_text("{}")
    (tmp_path / "ours" / "controls").mkdir()
    (tmp_path / "ours" / ".gitattributes").write_text("")
    picture = tmp_path / "controls.png"
    picture.write_bytes(b"png")
    card = hub.model_card(
        dictionary, "one/two", ("metric", "value"), [("fvu", "0.1 | 0.2")], [picture], path_in_repo="mlp"
    )
    commits: list[tuple[str, dict[str, Any]]] = []

    def create_commit(self: Any, repo: str, operations: list, commit_message: str) -> Any:
        commits.append((repo, {one.path_in_repo: one.path_or_fileobj for one in operations}))
        return SimpleNamespace(commit_url="https://hub/one/two/commit/1")

    created: list[dict[str, Any]] = []
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda self, repo, **settings: created.append(settings))
    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", create_commit)
    url = hub.push(tmp_path / "ours", "one/two", card, [picture], path_in_repo="mlp", private=True)
    assert url == "https://hub/one/two/commit/1"
    assert created == [{"private": True, "exist_ok": True}]
    ((repo, contents),) = commits
    assert repo == "one/two"
    assert sorted(contents) == [
        "README.md",
        "mlp/dictionary.json",
        "mlp/dictionary.safetensors",
        "mlp/report.json",
        "pictures/controls.png",
    ]
    assert contents["README.md"] == card.encode()


def test_the_card_says_what_it_is_how_to_load_it_and_what_it_scored(tmp_path: Path) -> None:
    dictionary = TopK(TopKConfig(d_sae=12, k=2), 6)
    dictionary.provenance = {"subject": "language:gpt2", "hookpoint": "blocks.0.hook_mlp_out"}
    card = hub.model_card(
        dictionary,
        "one/two",
        ("metric", "value"),
        [("fvu", "0.1 | 0.2")],
        [Path("far/controls.png")],
        path_in_repo="mlp",
    )
    assert card.startswith("---\nlibrary_name: sae-dictionaries\n")
    assert 'sae.load_dictionary("hub:one/two/mlp")' in card
    assert (
        "- kind: `topk`" in card
        and "- k: `2`" in card
        and "- subject: `language:gpt2`" in card
        and dictionary.hash in card
    )
    assert "| metric | value |\n| --- | --- |\n| fvu | 0.1 \\| 0.2 |" in card
    assert "![controls](pictures/controls.png)" in card
    assert "There is no report." in hub.model_card(dictionary, "one/two")
    assert "auxk" not in card and "d_out" not in card and "layer_norm" not in card


def test_the_card_of_a_transcoder_says_both_ends() -> None:
    dictionary = TopK(TopKConfig(d_sae=12, k=2, skip=True), 6, 5)
    dictionary.provenance = {"hookpoint": "blocks.0.mlp.hook_in", "target_hookpoint": "blocks.0.hook_mlp_out"}
    card = hub.model_card(dictionary, "one/two")
    for fact in ("d_in: `6`", "d_out: `5`", "skip: `True`", "target_hookpoint: `blocks.0.hook_mlp_out`"):
        assert f"- {fact}\n" in card
    assert "x_hat = dictionary(x)  # [batch, 5]" in card


@pytest.mark.parametrize("name", ["one/two", "hub:one/two", "one/two/"])
def test_where_to_push_is_an_owner_a_name_and_perhaps_a_folder(name: str) -> None:
    assert hub.repository(name) == ("one/two", "")
    assert hub.repository("one/two/layers.3/mlp") == ("one/two", "layers.3/mlp")


@pytest.mark.parametrize("name", ["one", "one/two@main", "one two/three", ""])
def test_other_places_to_push_are_refused(name: str) -> None:
    with pytest.raises(DictionaryError, match=r"expected OWNER/NAME\[/FOLDER\]"):
        hub.repository(name)


def test_a_folder_without_a_dictionary_is_not_pushed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DictionaryError, match="no dictionary to upload"):
        hub.push(tmp_path, "one/two", "")
    with pytest.raises(DictionaryError, match="a single file"):
        hub.push(tmp_path / "notes.txt", "one/two", "")
