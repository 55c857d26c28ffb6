"""First-order effects in real architectures made tiny: gradients agree with tangents, and both with differences."""

from pathlib import Path
from typing import Any

import pytest
import torch
from chain_subject import A, B, ChainSubject, Texts, drawn_dictionary
from tiny_clip import save_clip

from sae.errors import CatalogError
from sae.features.circuits.attribution import (
    Activity,
    Member,
    attributions,
    differentiating,
    effects,
    gradients,
    observe,
    only_modality,
    passed,
    pre_activations,
    tangents,
)
from sae.subjects.load import load
from sae.tensors import Batch

PAIRS = [
    ("gpt2", "hook_embed", "blocks.1.hook_resid_post"),
    ("gpt2", "blocks.0.hook_resid_mid", "blocks.1.attn.hook_z"),
    ("neox", "blocks.0.mlp.hook_post", "blocks.1.mlp.hook_post"),
    ("llama", "hook_embed", "blocks.1.mlp.hook_in"),
    ("gemma2", "blocks.0.mlp.hook_post", "blocks.1.hook_resid_post"),
    ("bert", "blocks.0.hook_resid_pre", "blocks.1.mlp.hook_post"),
    ("vit", "visual.blocks.0.hook_attn_out", "visual.embedding"),
    ("vit", "text.blocks.0.hook_resid_pre", "text.blocks.1.mlp.hook_post"),
    ("resnet", "visual.layer2.0.hook_post", "visual.layer4.0.hook_post"),
    ("resnet", "visual.layer4.0.hook_post", "visual.embedding"),
    ("timm", "visual.blocks.1.mlp.hook_post", "visual.embedding"),
]


@pytest.fixture(scope="module")
def subjects(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory):
    """Return what loads a subject by its architecture, once."""
    loaded: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in loaded:
            clip = None if name in tiny_folders else save_clip(tmp_path_factory.mktemp("clip") / name, name)
            loaded[name] = load(f"language:{tiny_folders[name]}" if clip is None else f"clip:{clip}")
        return loaded[name]

    return get


def batch_for(subject: Any, hookpoint: str) -> Batch:
    generator = torch.Generator().manual_seed(0)
    if subject.kind == "language":
        tokens = torch.randint(3, 60, (3, 9), generator=generator)
        return Batch(first_example=0, tokens=tokens, attended=torch.ones_like(tokens, dtype=torch.bool))
    tokens, _, _ = subject.tokenize(["the cat", "a dog sat on the cat", "cat"])
    images = torch.randint(0, 256, (3, 3, *subject._frames.size), generator=generator, dtype=torch.uint8)
    return only_modality(Batch(first_example=0, tokens=tokens, images=images), hookpoint)


def both(subject: Any, batch: Batch, reads: tuple[str, str], **settings: Any) -> tuple[Activity, Activity]:
    dictionaries = [drawn_dictionary(subject, name, seed, **settings) for seed, name in enumerate(reads)]
    members = [Member.of(f"{i}", one, subject) for i, one in enumerate(dictionaries)]
    seen = observe(subject, batch, members)
    return seen["0"], seen["1"]


def busiest(activity: Activity) -> int:
    return int(activity.total((activity.strength > 0).float()).argmax())


def summed(subject: Any, batch: Batch, source: Activity, i: int, target: Activity, j: int, share: float) -> float:
    """Return the pre-activation of j, summed over where it fires, with so much more of i."""
    part = share * source.grid(i)[..., None] * source.member.dictionary.W_dec[i]
    edits = {source.member.writes.hookpoint: lambda x: x + part.to(x)}
    found, _ = passed(subject, batch, edits, [target.member.reads], to_end=False)
    x = found[target.member.reads][target.grid(j) > 0].float()
    return float(pre_activations(target.member.dictionary, x, torch.tensor([j])).double().sum())


@pytest.mark.parametrize(("name", "earlier", "later"), PAIRS)
def test_gradients_are_tangents_are_differences(subjects: Any, name: str, earlier: str, later: str) -> None:
    subject = subjects(name)
    batch = batch_for(subject, later)
    source, target = both(subject, batch, (earlier, later))
    i, j = busiest(source), busiest(target)
    back, reach = attributions(source, gradients(subject, batch, target, j, [earlier])[earlier])
    with differentiating():
        found, output = tangents(subject, batch, source, i, [later], to_end=False)
        forth = effects(target, found[later])
    assert output is None and back[i] != 0
    assert float(back[i]) == pytest.approx(float(forth[j]), rel=1e-3, abs=1e-5 * float(reach[i]))
    assert bool((back.abs() <= reach * 1.001 + 1e-6).all()), "nothing exceeds what pointing along the gradient gives"
    if name != "resnet":  # where half of the units sit at a kink, a difference is between two slopes
        step = 0.002
        ends = [summed(subject, batch, source, i, target, j, sign * step) for sign in (1, -1)]
        difference = (ends[0] - ends[1]) / (2 * step)
        assert float(back[i]) == pytest.approx(difference, rel=0.03, abs=1e-3 * float(reach[i]))


def test_layer_norm_on_either_side_is_differentiated(subjects: Any) -> None:
    subject, reads = subjects("gpt2"), ("blocks.0.hook_mlp_out", "blocks.1.hook_resid_post")
    batch = batch_for(subject, reads[1])
    source, target = both(subject, batch, reads, layer_norm=True)
    i, j = busiest(source), busiest(target)
    back, reach = attributions(source, gradients(subject, batch, target, j, [reads[0]])[reads[0]])
    with differentiating():
        found, _ = tangents(subject, batch, source, i, [reads[1]], to_end=False)
        forth = effects(target, found[reads[1]])
    ends = [summed(subject, batch, source, i, target, j, sign * 0.02) for sign in (1, -1)]
    assert float(back[i]) == pytest.approx(float(forth[j]), rel=1e-3)
    assert float(back[i]) == pytest.approx((ends[0] - ends[1]) / 0.04, rel=0.03, abs=1e-3 * float(reach[i]))


def test_several_hookpoints_share_one_gradient(subjects: Any) -> None:
    subject, later = subjects("gpt2"), "blocks.1.hook_resid_post"
    batch, names = batch_for(subject, later), ["hook_embed", "blocks.0.mlp.hook_post"]
    _, target = both(subject, batch, (names[0], later))
    j = busiest(target)
    together = gradients(subject, batch, target, j, names)
    for name in names:
        torch.testing.assert_close(together[name], gradients(subject, batch, target, j, [name])[name])


def test_the_subject_stays_as_it_was(subjects: Any) -> None:
    subject, reads = subjects("vit"), ("visual.blocks.0.hook_attn_out", "visual.embedding")
    batch = batch_for(subject, reads[1])
    fast, before = torch.backends.mha.get_fastpath_enabled(), subject.forward(batch).image
    source, target = both(subject, batch, reads)
    gradients(subject, batch, target, busiest(target), [reads[0]])
    with differentiating():
        tangents(subject, batch, source, busiest(source), [reads[1]], to_end=True)
    assert torch.equal(subject.forward(batch).image, before)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert not any(parameter.requires_grad for parameter in subject.model.parameters())


def test_where_nothing_flows_it_is_said_so() -> None:
    subject, texts = ChainSubject(), Texts()
    batch = texts.batch(0, 5)
    subject.M, subject.S = torch.zeros_like(subject.M), torch.zeros_like(subject.S)
    source, target = both(subject, batch, (A, B))

    def cut(batch: Batch, edits: Any = None, grad: bool = False) -> torch.Tensor:
        edits = edits or {}
        for edit in edits.values():
            edit(torch.ones(len(batch), batch.tokens.shape[1], 6))  # type: ignore[union-attr]
        return torch.zeros(1)

    subject.forward = cut  # type: ignore[method-assign]
    with pytest.raises(CatalogError, match=f"nothing flows from {A} to {B}"):
        gradients(subject, batch, target, busiest(target), [A])
    with differentiating():
        found, _ = tangents(subject, batch, source, busiest(source), [B], to_end=False)
        with pytest.raises(CatalogError, match="nothing flows"):
            effects(target, found[B])
    with pytest.raises(CatalogError, match="cannot be changed and measured at once"):
        passed(subject, batch, {A: lambda x: x}, [A], to_end=False)
