"""What every registered architecture promises."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sae.dictionaries import registry
from sae.dictionaries.affine import Affine
from sae.dictionaries.base import Dictionary, DictionaryConfig
from sae.dictionaries.io import load_dictionary, save_dictionary
from sae.errors import DictionaryError

D_IN = 16


@dataclass(frozen=True)
class Case:
    """How to build one architecture small, what of it learns, and whether it recovers a known dictionary."""

    settings: dict[str, Any]
    learns: frozenset[str] = frozenset()
    moves: frozenset[str] = frozenset()  # buffers that change while training
    toy_settings: dict[str, Any] | None = None
    toy_cosine: float = 0.9  # mean over the known directions of the largest with a latent
    more_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    decoder_norm: float = 1
    decoder_is_made: bool = False  # of other parameters, which get its gradient
    signed: bool = False  # a latent may stand for a direction or its opposite
    folds: bool = True  # behind any affine map, not just behind a factor


EVERYTHING = frozenset({"W_enc_rows", "b_enc", "W_dec", "b_dec"})
CASES = {
    "topk": Case({"d_sae": 48, "k": 5}, learns=EVERYTHING, toy_settings={"d_sae": 24, "k": 3}),
    "abs_topk": Case({"d_sae": 48, "k": 5}, learns=EVERYTHING, toy_settings={"d_sae": 24, "k": 3}, signed=True),
    "batch_topk": Case(
        {"d_sae": 48, "k": 5},
        learns=EVERYTHING,
        moves=frozenset({"threshold"}),
        toy_settings={"d_sae": 24, "k": 3},
        more_shapes={"threshold": (48,)},
    ),
    "matryoshka": Case(
        {"d_sae": 48, "k": 5},
        learns=EVERYTHING,
        moves=frozenset({"threshold"}),
        toy_settings={"d_sae": 24, "k": 3, "prefixes": (0.5, 1.0)},
        toy_cosine=0.8,  # directions of equal rank have to share the latents of the first prefix
        more_shapes={"threshold": (48,)},
    ),
    "relu": Case(
        {"d_sae": 48, "target_l0": 5.0},
        learns=EVERYTHING,
        moves=frozenset({"coefficient"}),
        toy_settings={"d_sae": 24, "target_l0": 3.0},
        more_shapes={"coefficient": (), "power": ()},
    ),
    "gated": Case(
        {"d_sae": 48, "target_l0": 5.0},
        learns=EVERYTHING | {"r_mag", "b_mag"},
        moves=frozenset({"coefficient"}),
        toy_settings={"d_sae": 24, "target_l0": 2.0, "coefficient": 0.3},
        more_shapes={"coefficient": (), "r_mag": (48,), "b_mag": (48,)},
    ),
    "jumprelu": Case(
        {"d_sae": 48, "target_l0": 5.0},
        learns=EVERYTHING | {"threshold"},
        moves=frozenset({"coefficient"}),
        toy_settings={"d_sae": 24, "target_l0": 2.0, "coefficient": 0.1, "bandwidth": 0.3},
        more_shapes={"coefficient": (), "threshold": (48,)},
    ),
    "matching_pursuit": Case(
        {"d_sae": 48, "k": 5},
        learns=frozenset({"W_dec", "b_dec"}),
        moves=frozenset({"W_enc_rows"}),
        toy_settings={"d_sae": 24, "k": 3},
    ),
    "archetypal": Case(
        {"d_sae": 48, "k": 5, "n_points": 20},
        learns=EVERYTHING | {"logits", "relaxation"},
        moves=frozenset({"lengths"}),
        toy_settings={"d_sae": 24, "k": 3, "n_points": 64},
        more_shapes={"logits": (48, 20), "relaxation": (48, D_IN), "points": (20, D_IN), "lengths": (48,)},
        decoder_is_made=True,
    ),
    "clt": Case(
        {"d_sae": 48, "k": 4, "n_layers": 2}, learns=EVERYTHING, more_shapes={"W_enc": (D_IN // 2, 48)}, folds=False
    ),
    "thresholded": Case({"d_sae": 48}, more_shapes={"threshold": (48,)}),
    "identity": Case({"d_sae": D_IN}, folds=False),
    "pca": Case({"d_sae": 2 * D_IN}, decoder_norm=0.5),
    "constant": Case({"d_sae": 48}, decoder_norm=0),
    "random_directions": Case({"d_sae": 48, "k": 5}),
    "ica": Case({"d_sae": D_IN}, decoder_norm=0.5),
    "kmeans": Case({"d_sae": 48}, more_shapes={"lengths": (48,)}),
    "semi_nmf": Case({"d_sae": 48}, more_shapes={"step": ()}, folds=False),
    "frozen_decoder": Case({"d_sae": 48, "k": 5}, learns=EVERYTHING - {"W_dec"}),
    "frozen_encoder": Case({"d_sae": 48, "k": 5}, learns=EVERYTHING - {"W_enc_rows"}),
}


def make(kind: str, seed: int = 0, d_out: int | None = None, **settings: bool) -> Dictionary:
    config = registry.decode_config({"kind": kind} | CASES[kind].settings | settings)
    dictionary = registry.make_dictionary(config, D_IN, d_out)
    generator = torch.Generator().manual_seed(seed)
    target = None if d_out is None else vectors(256) @ torch.randn(D_IN, d_out, generator=generator)
    dictionary.initialise(vectors(256), generator, target)
    with torch.no_grad():
        dictionary.b_enc.add_(0.1 * torch.randn(dictionary.d_sae, generator=generator))
    return dictionary


def vectors(n: int = 32) -> Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(1)) + 0.3


@pytest.fixture(params=sorted(registry.BUILT_IN))
def kind(request: pytest.FixtureRequest) -> str:
    assert request.param in CASES, "every architecture needs a case here"
    return request.param


def adam(dictionary: Dictionary, lr: float) -> torch.optim.Adam:
    return torch.optim.Adam([p for p in dictionary.parameters() if p.requires_grad], lr=lr, fused=True)


def train_step(dictionary: Dictionary, optimiser: torch.optim.Optimizer, x: Tensor, dead: Tensor) -> None:
    optimiser.zero_grad()
    dictionary.loss(x, dead).total.backward()
    dictionary.after_backward()
    optimiser.step()
    dictionary.after_step()


def test_shapes(kind: str) -> None:
    dictionary, x = make(kind), vectors()
    codes = dictionary.encode(x)
    assert len(codes) == len(x) and codes.d_sae == dictionary.d_sae
    assert dictionary.decode(codes).shape == dictionary(x).shape == x.shape
    shapes = {name: tuple(tensor.shape) for name, tensor in dictionary.tensors().items()}
    d_sae = dictionary.d_sae
    expected = {"W_enc": (D_IN, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, D_IN), "b_dec": (D_IN,), "variance": ()}
    assert shapes == expected | CASES[kind].more_shapes
    assert dictionary.W_enc.data_ptr() == dictionary.W_enc_rows.data_ptr()
    assert "\n" not in repr(dictionary) and kind in repr(dictionary)


def test_sparse_decode_equals_dense_decode(kind: str) -> None:
    dictionary = make(kind)
    codes = dictionary.encode(vectors())
    torch.testing.assert_close(dictionary.decode(codes), codes.dense() @ dictionary.W_dec + dictionary.b_dec)


def decoder_norms(kind: str) -> Tensor:
    return torch.full((int(CASES[kind].settings["d_sae"]),), float(CASES[kind].decoder_norm))


def test_decoder_rows_have_their_norm(kind: str) -> None:
    torch.testing.assert_close(make(kind).W_dec.norm(dim=1), decoder_norms(kind))


def test_saving_keeps_every_bit(kind: str, tmp_path: Path) -> None:
    dictionary, x = make(kind), vectors()
    save_dictionary(dictionary, tmp_path, {"seed": 3, "hookpoint": "blocks.0.hook_resid_post"})
    loaded = load_dictionary(tmp_path)
    assert type(loaded) is type(dictionary) and loaded.config == dictionary.config
    assert loaded.provenance == {"seed": 3, "hookpoint": "blocks.0.hook_resid_post"}
    assert loaded.hash == dictionary.hash
    assert all(torch.equal(tensor, loaded.tensors()[name]) for name, tensor in dictionary.tensors().items())
    assert torch.equal(loaded(x), dictionary(x))


def test_folded_on_raw_vectors_equals_trained_on_scaled_ones(kind: str) -> None:
    dictionary, raw, scale = make(kind), vectors() / 0.37, 0.37
    before = dictionary.hash
    folded = dictionary.fold_scale(scale)
    assert dictionary.hash == before, "folding changed the original"
    torch.testing.assert_close(folded.encode(raw).dense() * scale, dictionary.encode(raw * scale).dense())
    torch.testing.assert_close(folded(raw) * scale, dictionary(raw * scale))
    none = torch.zeros(dictionary.d_sae, dtype=torch.bool)
    torch.testing.assert_close(folded.loss(raw, none).total, dictionary.loss(raw * scale, none).total)
    torch.testing.assert_close(folded.W_dec.norm(dim=1), decoder_norms(kind))


MAPS = ["centre", "per coordinate", "full"]


def affine(name: str, width: int, seed: int = 0) -> Affine:
    generator = torch.Generator().manual_seed(seed)
    mean, factors = torch.randn(width, generator=generator), 0.5 + torch.rand(width, generator=generator).double()
    if name == "centre":
        return Affine.scaling(0.4, width, mean)
    if name == "per coordinate":
        return Affine(mean.double(), factors, 1 / factors)
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator).double()).Q
    return Affine(mean.double(), rotation * factors, (rotation / factors).T)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("kind", [kind for kind, case in CASES.items() if case.folds])
def test_folded_behind_any_map_equals_trained(kind: str, name: str) -> None:
    dictionary, mapping = make(kind), affine(name, D_IN)
    raw = mapping.undo(vectors().double()).float()
    folded = dictionary.fold(mapping)
    codes, trained = folded.encode(raw).dense(), dictionary.encode(mapping(raw)).dense()
    torch.testing.assert_close(codes, trained * mapping.unit, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folded(raw), mapping.undo(dictionary(mapping(raw))), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(
    "kind", [cls.config_type.kind for cls in registry.TRAINED if cls.transcodes and CASES[cls.config_type.kind].folds]
)
def test_a_folded_transcoder_equals_the_trained_one(kind: str, name: str, skip: bool) -> None:
    dictionary = make(kind, d_out=D_IN + 3, skip=skip)
    if dictionary.W_skip is not None:
        torch.nn.init.normal_(dictionary.W_skip, generator=torch.Generator().manual_seed(3))
    inputs, outputs = affine(name, D_IN), affine("full", D_IN + 3, seed=1)
    raw = inputs.undo(vectors().double()).float()
    folded = dictionary.fold(inputs, outputs)
    codes, trained = folded.encode(raw).dense(), dictionary.encode(inputs(raw)).dense()
    torch.testing.assert_close(codes, trained * outputs.unit, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folded(raw), outputs.undo(dictionary(inputs(raw))), atol=1e-4, rtol=1e-4)
    with pytest.raises(DictionaryError, match="cannot fold maps of width"):
        dictionary.fold(inputs)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_scale_is_refused(kind: str, scale: float) -> None:
    with pytest.raises(DictionaryError, match="positive"):
        make(kind).fold_scale(scale)


def test_the_same_seed_gives_the_same_bits(kind: str) -> None:
    results = []
    for _ in range(2):
        dictionary = make(kind, seed=7)
        if CASES[kind].learns:
            optimiser = adam(dictionary, lr=1e-3)
            for _ in range(3):
                train_step(dictionary, optimiser, vectors(), torch.arange(dictionary.d_sae) % 4 == 0)
        results.append(dictionary.hash)
    assert results[0] == results[1]


def test_rows_do_not_depend_on_their_batch_mates(kind: str) -> None:
    dictionary, x = make(kind), vectors()
    together = dictionary.encode(x).dense()
    alone = torch.cat([dictionary.encode(row[None]).dense() for row in x])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(dictionary(x), torch.cat([dictionary(row[None]) for row in x]))


def test_another_width_is_refused_naming_both(kind: str) -> None:
    with pytest.raises(DictionaryError, match=rf"d_in={D_IN}.*\[4, {D_IN + 1}\]"):
        make(kind).encode(torch.zeros(4, D_IN + 1))


def test_a_width_of_zero_is_refused(kind: str) -> None:
    config = make(kind).config
    with pytest.raises(DictionaryError, match="d_in"):
        registry.make_dictionary(config, 0)


def test_exactly_the_parameters_that_learn_change(kind: str) -> None:
    dictionary, learns = make(kind), CASES[kind].learns
    assert {name for name, parameter in dictionary.named_parameters() if parameter.requires_grad} == learns
    if not learns:
        return
    before = {name: tensor.clone() for name, tensor in dictionary.state_dict().items()}
    train_step(dictionary, adam(dictionary, lr=1e-3), vectors(), torch.arange(dictionary.d_sae) % 4 == 0)
    changed = {name for name, tensor in dictionary.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == learns | CASES[kind].moves


def test_the_decoder_gradient_keeps_the_norm(kind: str) -> None:
    dictionary = make(kind)
    if "W_dec" not in CASES[kind].learns:
        return
    dictionary.loss(vectors(), torch.zeros(dictionary.d_sae, dtype=torch.bool)).total.backward()
    dictionary.after_backward()
    assert (dictionary.W_dec.grad is None) == CASES[kind].decoder_is_made
    if dictionary.W_dec.grad is not None:
        along = (dictionary.W_dec.grad * dictionary.W_dec).sum(1)
        torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-6, rtol=0)
    with torch.no_grad():
        dictionary.W_dec.mul_(3)
    dictionary.after_step()
    torch.testing.assert_close(dictionary.W_dec.norm(dim=1), decoder_norms(kind))


def toy_truth(n_features: int, generator: torch.Generator) -> Tensor:
    truth = torch.randn(n_features, D_IN, generator=generator)
    return truth / truth.norm(dim=1, keepdim=True)


def toy_vectors(truth: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Sums of about two of the known directions, with magnitudes in [1, 2]."""
    active = torch.rand(n, len(truth), generator=generator) < 2 / len(truth)
    return (active * (1 + torch.rand(n, len(truth), generator=generator))) @ truth


@pytest.mark.parametrize("kind", [kind for kind, case in CASES.items() if case.toy_settings is not None])
def test_training_recovers_a_known_dictionary(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    settings = CASES[kind].toy_settings
    assert settings is not None
    truth = toy_truth(int(settings["d_sae"]), generator)
    config: DictionaryConfig = registry.decode_config({"kind": kind} | settings)
    dictionary = registry.make_dictionary(config, D_IN)
    dictionary.initialise(toy_vectors(truth, 2048, generator), generator)
    optimiser = adam(dictionary, lr=1e-2)
    fired = torch.ones(dictionary.d_sae, dtype=torch.bool)
    for step in range(300):
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * min(1, (300 - step) / 100)
        x = toy_vectors(truth, 256, generator)
        train_step(dictionary, optimiser, x, ~fired)
        if step % 20 == 19:
            fired = dictionary.encode(toy_vectors(truth, 2048, generator)).n_fired() > 0
    similarity = truth @ dictionary.W_dec.detach().T
    similarity = similarity.abs() if CASES[kind].signed else similarity
    assert similarity.max(1).values.mean() >= CASES[kind].toy_cosine
