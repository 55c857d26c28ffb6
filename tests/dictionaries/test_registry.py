import dataclasses
import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from sae import config as configs
from sae.dictionaries import registry
from sae.dictionaries.linear import Identity, IdentityConfig
from sae.dictionaries.topk import TopKConfig
from sae.errors import ConfigError, DictionaryError
from scripts import write_architectures


def test_a_config_survives_plain_data() -> None:
    config = TopKConfig(d_sae=64, k=4, auxk_coefficient=0.5)
    assert registry.decode_config(configs.encode(config)) == config


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'topk'"):
        registry.decode_config({"kind": "topkk", "d_sae": 8})
    with pytest.raises(DictionaryError, match="Did you mean 'identity'"):
        registry.dictionary_type("identty")
    with pytest.raises(ConfigError, match="needs a kind"):
        registry.decode_config({"d_sae": 8})


def test_the_identity_is_as_wide_as_its_vectors() -> None:
    with pytest.raises(DictionaryError, match="it must be 7"):
        registry.make_dictionary(IdentityConfig(d_sae=8), 7)


class OtherConfig(IdentityConfig):
    kind = "other"


class Other(Identity):
    config_type = OtherConfig


def test_another_package_adds_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {
        "other": EntryPoint("other", f"{__name__}:Other", registry.GROUP),
        "broken": EntryPoint("broken", f"{__name__}:test_another_package_adds_a_kind", registry.GROUP),
    }
    monkeypatch.setattr(
        registry, "entry_points", lambda group, name=None: [p for n, p in points.items() if name in (None, n)]
    )
    assert registry.kinds()[-2:] == ["broken", "other"]
    assert type(registry.make_dictionary(registry.decode_config({"kind": "other", "d_sae": 3}), 3)) is Other
    with pytest.raises(DictionaryError, match="no Dictionary"):
        registry.dictionary_type("broken")


class TestPage:
    def test_it_is_up_to_date_and_names_everything(self) -> None:
        assert write_architectures.main(check=True) == 0, "run python scripts/write_architectures.py"
        text = write_architectures.page()
        for kind, one in registry.BUILT_IN.items():
            assert f"| [{kind}](#" in text and f"`{kind}`" in text
            for setting in dataclasses.fields(one.config_type):
                assert f"| `{setting.name}` | " in text, "every setting has a docstring"

    def test_links_lead_to_headings(self) -> None:
        text = write_architectures.page()
        headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in headings}
        assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= anchors

    def test_a_page_that_is_out_of_date_is_noticed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(write_architectures, "PAGE", tmp_path / "architectures.md")
        assert write_architectures.main(check=True) == 1
        assert write_architectures.main(check=False) == 0
        assert write_architectures.main(check=True) == 0
