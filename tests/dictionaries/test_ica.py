import logging
import sys

import pytest
import torch
from torch import Tensor

from sae.dictionaries import ica
from sae.dictionaries.ica import Ica, IcaConfig
from sae.errors import ConfigError, DictionaryError

D_IN = 5


def mixed(n: int = 4000) -> tuple[Tensor, Tensor]:
    """Independent sources with heavy tails, and the directions they are mixed along."""
    generator = torch.Generator().manual_seed(0)
    sources = torch.randn(n, D_IN, generator=generator) ** 3
    directions = torch.nn.functional.normalize(torch.randn(D_IN, D_IN, generator=generator), dim=1)
    return sources @ directions + 2, directions


def fitted(n_components: int = D_IN) -> Ica:
    result = Ica(IcaConfig(d_sae=2 * n_components), D_IN)
    result.initialise(mixed()[0], torch.Generator().manual_seed(0))
    return result


def test_it_finds_the_directions_that_independent_sources_are_mixed_along() -> None:
    one, (x, directions) = fitted(), mixed()
    found = (directions @ one.W_dec.T).amax(1) * 2
    assert (found > 0.99).all()
    torch.testing.assert_close(one(x), x, rtol=1e-4, atol=1e-4)


def test_units_are_deviations_along_what_they_write_with_either_sign() -> None:
    one, (x, _) = fitted(), mixed()
    codes = one.encode(x).dense()
    torch.testing.assert_close(codes[:, :D_IN], -codes[:, D_IN:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.W_dec.norm(dim=1), torch.full((2 * D_IN,), 0.5))
    alone = one.b_dec + 3 * 2 * one.W_dec[:1]
    torch.testing.assert_close(one.encode(alone).dense()[0, 0], torch.tensor(3.0))


def test_fewer_components_than_dimensions() -> None:
    one, (x, _) = fitted(2), mixed()
    error = (one(x) - x).square().sum() / (x - x.mean(0)).square().sum()
    assert 0 < error < 1


def test_the_seed_decides() -> None:
    assert fitted().hash == fitted().hash


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    with pytest.raises(DictionaryError, match=r"scikit-learn: pip install 'sae-dictionaries\[explore\]'"):
        fitted()


def test_it_says_when_it_has_not_converged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(ica, "N_ROUNDS", 1)
    monkeypatch.setattr(logging.getLogger("sae"), "propagate", True)
    fitted()
    assert "not converged after 1 rounds" in caplog.text


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="must be even"):
        IcaConfig(d_sae=5)
    with pytest.raises(DictionaryError, match="at most 10"):
        Ica(IcaConfig(d_sae=12), D_IN)
    with pytest.raises(DictionaryError, match="5 components of 3 vectors"):
        Ica(IcaConfig(d_sae=10), D_IN).initialise(torch.randn(3, D_IN), torch.Generator())
