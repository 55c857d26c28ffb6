"""The public names exist, are documented, and are all there are."""

import inspect

import pytest

import sae


@pytest.mark.parametrize("name", sae.__all__)
def test_every_public_name_loads_and_says_what_it_is(name: str) -> None:
    value = getattr(sae, name)
    assert inspect.getdoc(value)


def test_names_are_sorted_and_listed() -> None:
    assert sae.__all__ == sorted(set(sae.__all__))
    assert set(sae.__all__) <= set(dir(sae))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load_dictionnary'"):
        _ = sae.load_dictionnary  # type: ignore[attr-defined]
