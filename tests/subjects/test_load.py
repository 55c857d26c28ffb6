import json

import pytest

from sae import builtin
from sae.errors import ConfigError, SubjectError
from sae.subjects.load import load


def test_a_folder_becomes_an_absolute_id(tiny_gpt2_folder, monkeypatch):
    monkeypatch.chdir(tiny_gpt2_folder.parent)
    assert load("language:gpt2").id == f"language:{tiny_gpt2_folder.resolve()}"
    assert load("language:./gpt2").kind == "language"


def test_built_ins_are_told_apart_by_their_files(tiny_gpt2_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(builtin, "root", lambda: tmp_path)
    (tmp_path / "subjects").mkdir()
    (tmp_path / "subjects" / "words-0").symlink_to(tiny_gpt2_folder)
    (tmp_path / "subjects" / "empty-0").mkdir()
    assert load("builtin:words").id == "builtin:words@0"
    with pytest.raises(SubjectError, match=r"neither config.json"):
        load("builtin:empty")
    with pytest.raises(ConfigError, match="builtin:words@0"):
        load("builtin:word")


@pytest.mark.parametrize("id", ["langauge:gpt2", "gpt2", "language:", ""])
def test_unknown_prefix(id):
    with pytest.raises(SubjectError, match="Allowed: builtin:, language:, clip:"):
        load(id)


def test_missing_folder_names_its_neighbour(tiny_gpt2_folder):
    with pytest.raises(SubjectError, match="Did you mean 'gpt2'"):
        load(f"language:{tiny_gpt2_folder.parent}/gpt3")


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(SubjectError, match="cannot load"):
        load(f"language:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))
    with pytest.raises(SubjectError, match="no-such-model"):
        load(f"language:{tmp_path}")


def test_an_architecture_that_transformer_lens_does_not_know(tmp_path):
    from transformers import FunnelConfig

    FunnelConfig(architectures=["FunnelForMaskedLM"]).save_pretrained(tmp_path)
    with pytest.raises(SubjectError, match="cannot load"):
        load(f"language:{tmp_path}")


def test_a_missing_package_is_named(monkeypatch, tiny_gpt2_folder):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SubjectError, match=r"sae-dictionaries\[language\]"):
        load(f"language:{tiny_gpt2_folder}")
