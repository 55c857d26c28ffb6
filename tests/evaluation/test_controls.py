from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae import builtin
from sae.dictionaries.io import load_dictionary, save_dictionary
from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import EvaluationError
from sae.evaluation.controls import (
    CALIBRATION_ROWS,
    DESCRIPTIONS,
    N_CONSTANT,
    TRAINED,
    Control,
    controls_for,
    shipped_controls,
)

D_IN, D_SAE, K = 12, 40, 4


def vectors(n: int = 600) -> Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(0)).relu() + 0.1


def dictionary() -> TopK:
    made = TopK(TopKConfig(d_sae=D_SAE, k=K), D_IN).requires_grad_(False)
    made.initialise(vectors(), torch.Generator().manual_seed(1))
    return made


def controls(x: Tensor, seed: int = 0) -> dict[str, Control]:
    codes = dictionary().encode(x.float())
    found = controls_for(dictionary(), x, codes.n_fired() / len(x), float(codes.l0().double().mean()), seed)
    return {control.name: control for control in found}


def test_all_controls_are_there_in_order_and_described() -> None:
    found = controls(vectors())
    assert [*found, *TRAINED, "shuffled"] == list(DESCRIPTIONS)
    for control in found.values():
        assert control.description == DESCRIPTIONS[control.name]
        assert control.dictionary.d_in == D_IN and not control.dictionary.training
        assert not any(parameter.requires_grad for parameter in control.dictionary.parameters())
    widths = {name: control.dictionary.d_sae for name, control in found.items()}
    assert widths == {
        **dict.fromkeys(("neurons", "neurons_cut", "neurons_rectified"), D_IN),
        "random_directions": D_SAE,
        "constant": N_CONSTANT,
        "pca": 2 * D_IN,
    }


def test_they_fire_as_their_descriptions_say() -> None:
    x = vectors()
    codes = {name: control.dictionary.encode(x) for name, control in controls(x).items()}
    latents = dictionary().encode(x)
    assert torch.equal(codes["random_directions"].n_fired(), latents.n_fired())
    assert torch.equal(codes["neurons"].dense(), x)
    assert (codes["constant"].dense() == 1).all()
    cut, k = codes["neurons_cut"].dense(), round(float(latents.l0().double().mean()))
    expected = torch.where(x >= x.topk(k, dim=1).values[:, -1:], x, 0)
    assert (cut == expected).all(1).double().mean() > 0.9, "but for ties"
    rectified = codes["neurons_rectified"].l0().double().mean() / D_IN
    assert float(rectified) == pytest.approx(float(latents.l0().double().mean()) / D_SAE, abs=0.03)


def test_reconstructions_of_neurons_components_and_constants() -> None:
    x = vectors()
    found = controls(x)
    torch.testing.assert_close(found["neurons"].dictionary(x), x)
    torch.testing.assert_close(found["pca"].dictionary(x), x, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found["constant"].dictionary(x), x.mean(0).expand_as(x))


def test_the_seed_decides_the_directions_and_nothing_else() -> None:
    first, again, other = (controls(vectors(), seed) for seed in (0, 0, 1))
    for name in first:
        assert first[name].dictionary.hash == again[name].dictionary.hash
        assert (first[name].dictionary.hash == other[name].dictionary.hash) == (name != "random_directions")


def test_a_large_sample_is_thinned_out_and_any_format_read() -> None:
    x = vectors(CALIBRATION_ROWS * 2 + 1).bfloat16()
    fired = controls(x)["random_directions"].dictionary.encode(x.float()).n_fired() / len(x)
    torch.testing.assert_close(fired, dictionary().encode(x.float()).n_fired() / len(x), atol=0.02, rtol=0.1)


def test_strangers_are_refused() -> None:
    with pytest.raises(EvaluationError, match=r"\[5, 13\]"):
        controls_for(dictionary(), torch.zeros(5, D_IN + 1), torch.zeros(D_SAE), 1.0)
    with pytest.raises(EvaluationError, match="7 latents"):
        controls_for(dictionary(), vectors(), torch.zeros(7), 1.0)


def test_trained_controls_lie_below_their_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "root", lambda: tmp_path)
    folder, source = tmp_path / "dictionaries" / "words-0" / "blocks.0", "builtin:words/blocks.0"
    save_dictionary(dictionary(), folder)
    assert shipped_controls(source) == {}
    for name in ("untrained_subject", "frozen_encoder"):
        save_dictionary(dictionary(), folder / "controls" / name, {"subject": name}, compact=True)
    expected = {name: f"{source}/controls/{name}" for name in ("frozen_encoder", "untrained_subject")}
    assert shipped_controls(source) == expected
    assert load_dictionary(expected["frozen_encoder"]).provenance["subject"] == "frozen_encoder"
    assert load_dictionary(shipped_controls(folder)["untrained_subject"]).W_dec.dtype == torch.float32
