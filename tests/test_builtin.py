from pathlib import Path

import pytest

from sae import builtin
from sae.errors import ConfigError


def test_names_with_and_without_a_seed_are_the_same() -> None:
    assert builtin.canonical("builtin:stdlib-1l") == "builtin:stdlib-1l@0"
    assert (
        builtin.canonical("builtin:stdlib-1l@1/blocks.0.hook_resid_post")
        == "builtin:stdlib-1l@1/blocks.0.hook_resid_post"
    )
    assert builtin.subject_folder("builtin:stdlib-1l") == builtin.subject_folder("builtin:stdlib-1l@0")
    assert (builtin.subject_folder("builtin:stdlib-1l") / "config.json").is_file()


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'builtin:stdlib-1l@"):
        builtin.subject_folder("builtin:stdlib-1")


def test_controls_lie_below_their_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "dictionaries/words-0/blocks.0.mlp.hook_post/controls/frozen_decoder"
    folder.mkdir(parents=True)
    monkeypatch.setattr(builtin, "root", lambda: tmp_path)
    name = "builtin:words/blocks.0.mlp.hook_post/controls/frozen_decoder"
    assert builtin.dictionary_folder(name) == folder
    assert builtin.canonical(name) == "builtin:words@0/blocks.0.mlp.hook_post/controls/frozen_decoder"
    with pytest.raises(ConfigError, match=r"Did you mean 'builtin:words@0/blocks\.0\.mlp\.hook_post/controls/froz"):
        builtin.dictionary_folder(name.replace("decoder", "decodre"))
