"""Changes of latents and directions against what they must give exactly."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae.dictionaries.base import Dictionary
from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import ConfigError, DictionaryError
from sae.lab.change.interventions import Change, changed, edits, latent_parts, places, unit_in_activation, vector_parts
from sae.lab.change.positions import ALL, FIRING, At
from sae.subjects.splice import reconstruct
from sae.tensors import Rows

WIDTH, SILENT = 6, 8


def dictionary(layer_norm: bool = False, **provenance: Any) -> Dictionary:
    found = TopK(TopKConfig(d_sae=9, k=3, layer_norm=layer_norm), WIDTH)
    generator = torch.Generator().manual_seed(0)
    for parameter in (found.W_enc_rows, found.W_dec, found.b_dec, found.b_enc):
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    found.b_enc.data[SILENT] = -1e6
    found.provenance = {"hookpoint": "here", **provenance}
    return found.eval()


def rows(n: int = 40, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize(
    "change",
    [Change("scale", 1.0), Change("remove", 0.0), Change("add", 0.0), Change("clamp", 3.0, at=FIRING)],
    ids=lambda one: one.kind,
)
def test_what_changes_nothing_returns_the_very_same_bits(layer_norm: bool, change: Change) -> None:
    x, which = rows(), dictionary(layer_norm)
    latent = SILENT if change.kind == "clamp" else 2
    edit = edits(latent_parts(which, [latent]), change, "here")["here"]
    grid = x.reshape(4, 10, WIDTH)
    assert torch.equal(edit(grid), grid)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("at", [ALL, FIRING], ids=str)
@pytest.mark.parametrize("kind", ["add", "clamp", "scale", "remove"])
def test_changes_are_the_reconstruction_with_other_codes_plus_the_error(kind: Any, at: Any, layer_norm: bool) -> None:
    which, x, latents, strength = dictionary(layer_norm), rows(), [4, 1], 1.5

    def other_codes(x: torch.Tensor) -> torch.Tensor:
        codes = which.encode(x)
        dense = codes.dense().clone()
        for latent in latents:
            old = dense[:, latent].clone()
            new = {
                "add": old + strength,
                "clamp": torch.full_like(old, strength),
                "scale": old * strength,
                "remove": old * (1 - strength),
            }[kind]
            dense[:, latent] = torch.where(old != 0, new, old) if at.firing else new
        x_hat = dense @ which.W_dec + which.b_dec
        return x_hat if codes.row_mean is None else x_hat * codes.row_deviation + codes.row_mean

    with torch.no_grad():
        expected = reconstruct(which.forward, keep_error=True, change=other_codes)(x[None])[0]
        found = edits(latent_parts(which, latents), Change(kind, strength, at), "here")["here"](x[None])[0]
    assert not torch.equal(found, x)
    assert torch.allclose(found, expected, atol=1e-5)


def test_clamped_to_a_value_a_row_writes_that_value() -> None:
    which = dictionary()
    which.W_dec.data.copy_(torch.eye(9, WIDTH))
    x = rows()
    before, _ = latent_parts(which, [0]).read(x)
    after = x + changed(x, latent_parts(which, [0]), Change("clamp", 7.0))
    assert torch.allclose(after[:, 0] - x[:, 0], 7 - before[:, 0], atol=1e-5)
    assert torch.equal(after[:, 1:], x[:, 1:])


def test_only_kept_positions_change() -> None:
    x, keep = rows().reshape(4, 10, WIDTH), torch.rand(4, 10) < 0.5
    which = Rows(keep=keep, kind=torch.zeros(4, 10, dtype=torch.uint8))
    after = edits(latent_parts(dictionary(), [3]), Change("add", 2.0), "here", rows=which)["here"](x)
    assert torch.equal(after[~keep], x[~keep])
    assert torch.allclose(after[keep] - x[keep], (2 * dictionary().W_dec[3]).expand_as(x[keep]), atol=1e-5)


@given(st.integers(1, 4), st.integers(0, 100))
def test_a_span_that_is_removed_is_gone_and_what_is_orthogonal_stays(n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors, centre = torch.randn(n, WIDTH, generator=generator), torch.randn(WIDTH, generator=generator)
    x = rows(seed=seed)
    after = x + changed(x, vector_parts(vectors, centre), Change("remove"))
    basis = torch.linalg.qr(vectors.T).Q
    assert ((after - centre) @ basis).abs().max() < 1e-3
    orthogonal = lambda y: y - y @ basis @ basis.T  # noqa: E731
    assert torch.allclose(orthogonal(after), orthogonal(x), atol=1e-4)


def test_parts_side_by_side_change_as_one_after_the_other() -> None:
    which, x = dictionary(layer_norm=True), rows()
    both = latent_parts(which, [2]).joined(vector_parts(torch.eye(WIDTH)[[1]]))
    apart = [
        changed(x, one, Change("remove")) for one in (latent_parts(which, [2]), vector_parts(torch.eye(WIDTH)[[1]]))
    ]
    assert torch.allclose(changed(x, both, Change("remove")), sum(apart), atol=1e-5)


def test_a_transcoder_is_read_in_one_place_and_changed_in_another() -> None:
    which = TopK(TopKConfig(d_sae=9, k=3), WIDTH, 4)
    torch.nn.init.normal_(which.W_dec), torch.nn.init.normal_(which.W_enc_rows)
    which.provenance = {"hookpoint": "in", "target_hookpoint": "out"}
    assert places(which) == ("in", "out")
    change = edits(latent_parts(which, [1]), Change("remove"), *places(which))
    x, y = rows()[None], torch.randn(1, 40, 4)
    assert torch.equal(change["in"](x), x)
    removed = which.encode(x[0]).column(1)[:, None] * which.W_dec[1]
    assert torch.allclose(change["out"](y), y - removed, atol=1e-5)


def test_units() -> None:
    which = dictionary()
    length = float(which.W_dec[2].detach().norm())
    assert unit_in_activation(which, 2, "activation", 5.0, 3.0) == 1
    assert unit_in_activation(which, 2, "maximum", 5.0, 3.0) == 5
    assert unit_in_activation(which, 2, "norm", 5.0, 3.0) == pytest.approx(3 / length)
    with pytest.raises(ConfigError, match="never fires"):
        unit_in_activation(which, 2, "maximum", 0.0, 3.0)


def test_mistakes() -> None:
    which = dictionary()
    with pytest.raises(DictionaryError, match=r"no latent 9: .* has latents 0 to 8"):
        latent_parts(which, [9])
    with pytest.raises(DictionaryError, match="each once"):
        latent_parts(which, [1, 1])
    with pytest.raises(ConfigError, match="unknown kind 'clip'; allowed: add, clamp"):
        Change("clip")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be finite"):
        Change("add", float("nan"))
    with pytest.raises(ConfigError, match="at 2, but rows alone have no positions"):
        changed(rows(), latent_parts(which, [1]), Change("remove", at=At.of("2")))
    with pytest.raises(ConfigError, match="mixture"):
        vector_parts(torch.ones(2, WIDTH))
    sites = [{"subject": "s", "hookpoint": name, "width": 3} for name in ("a", "b")]
    with pytest.raises(DictionaryError, match="changed at one"):
        places(dictionary(sites=sites))
