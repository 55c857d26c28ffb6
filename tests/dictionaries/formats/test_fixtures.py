"""Dictionaries that the peer libraries saved give the codes and reconstructions that those libraries give.

The files are written by scripts/test_interop.sh --fixtures from the libraries' own save code.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from sae.dictionaries.base import Dictionary
from sae.dictionaries.formats import registry as formats
from sae.dictionaries.io import export_dictionary, load_dictionary, save_dictionary
from sae.errors import DictionaryError

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.safetensors"))


def expected(name: str) -> tuple[dict[str, torch.Tensor], str, dict]:
    with safe_open(FIXTURES / f"{name}.safetensors", framework="pt") as file:
        about = file.metadata()
        return {key: file.get_tensor(key) for key in file.keys()}, about["kind"], json.loads(about["hints"])  # noqa: SIM118


def check(dictionary: Dictionary, tensors: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(dictionary.encode(tensors["x"]).dense(), tensors["codes"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dictionary(tensors["x"]), tensors["x_hat"], rtol=1e-5, atol=1e-5)
    assert 0 < (tensors["codes"] != 0).float().mean() < 1, "the case itself must be sparse"


def test_every_library_has_square_and_wide_fixtures() -> None:
    libraries = {name.partition("-")[0] for name in NAMES}
    assert libraries == {"saelens", "sparsify", "dictionary_learning", "overcomplete", "llamascopium"}
    shapes = {name: tuple(expected(name)[0]["codes"].shape[1:]) for name in NAMES}
    assert {shapes[name] for name in NAMES if name.endswith("-6")} == {(6,)}
    assert {shapes[name] for name in NAMES if name.endswith("-10")} == {(10,)}


@pytest.mark.parametrize("name", NAMES)
def test_codes_and_reconstruction_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    tensors, kind, hints = expected(name)
    folder = FIXTURES / name
    assert formats.detect(folder) == name.partition("-")[0]
    dictionary = load_dictionary(folder, **hints)
    assert dictionary.config.kind == kind
    assert getattr(dictionary.config, "target_l0", None) is None, "no file says what L0 was aimed at"
    check(dictionary, tensors)
    assert dictionary.provenance["imported"]["format"] == name.partition("-")[0]
    if name.startswith("llamascopium-transcoder"):
        assert dictionary.provenance["target_hookpoint"] == "blocks.2.hook_mlp_out"
    save_dictionary(dictionary, tmp_path)
    check(load_dictionary(tmp_path), tensors)


@pytest.mark.parametrize("form", sorted(formats.WRITERS))
@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_reads_back_the_same(name: str, form: str, tmp_path: Path) -> None:
    tensors, _, hints = expected(name)
    dictionary = load_dictionary(FIXTURES / name, **hints)
    try:
        export_dictionary(dictionary, tmp_path, form)
    except DictionaryError as error:
        refused = dictionary.config.kind != "topk" if form == "sparsify" else dictionary.is_transcoder
        assert refused, error
        return
    assert formats.detect(tmp_path) == form
    check(load_dictionary(tmp_path), tensors)
