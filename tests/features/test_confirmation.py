"""Ablations against one at a time by hand, and the control that they have to exceed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from chain_subject import A, B, C, ChainSubject, Texts, drawn_dictionary
from hypothesis import given
from hypothesis import strategies as st

from sae.features.circuits.attribution import Activity, Member, attributions, gradients, observe
from sae.features.circuits.confirmation import Targets, ablated, confirmed, peers, threshold
from sae.features.circuits.outputs import NextTokens
from sae.subjects.load import load
from sae.subjects.splice import record
from sae.tensors import Batch


def seen_by(subject: Any, batch: Batch, names: tuple[str, ...], **settings: Any) -> list[Activity]:
    dictionaries = [drawn_dictionary(subject, name, seed, **settings) for seed, name in enumerate(names)]
    members = [Member.of(name, one, subject) for name, one in zip(names, dictionaries, strict=True)]
    return list(observe(subject, batch, members).values())


def test_ablations_are_those_of_one_latent_at_a_time() -> None:
    subject, texts = ChainSubject(), Texts()
    batch = texts.batch(0, 9)
    source, one, two = seen_by(subject, batch, (A, B, C))
    latents, outputs = [4, 7, 11, 3], NextTokens(subject)
    at = source.keep
    targets = Targets({B: one, C: two}, {B: [2, 9], C: [5]}, (3, 8), (outputs, at))
    before, after = ablated(subject, batch, source, latents, targets, batch_examples=4)
    assert before.shape == after.shape == (4, 5)
    clean = subject.run(batch, [B, C])
    clean_logits = outputs.scores(subject.forward(batch), at)
    for row, latent in enumerate(latents):
        part = source.grid(latent)[..., None] * source.member.dictionary.W_dec[latent]
        found: dict[str, torch.Tensor] = {}
        edits: dict[str, Any] = {name: record(found, name) for name in (B, C)}
        logits = subject.forward(batch, {A: lambda x, part=part: x - part, **edits})
        expected, changed = [], []
        for activity, latent_there in ((one, 2), (one, 9), (two, 5)):
            dictionary, name = activity.member.dictionary, activity.member.reads
            fires = activity.grid(latent_there) > 0
            moved = (clean[name] - found[name])[fires].sum(0) @ dictionary.W_enc_rows[latent_there]
            expected.append(moved)
            codes = [dictionary.encode(x[name][fires]).dense()[:, latent_there].sum() for x in (clean, found)]
            changed.append(codes[0] - codes[1])
        scores = (clean_logits - outputs.scores(logits, at)).sum(0)[[3, 8]]
        torch.testing.assert_close(before[row], torch.cat([torch.stack(expected), scores]), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(after[row], torch.cat([torch.stack(changed), scores]), rtol=1e-3, atol=1e-4)


@given(sizes=st.lists(st.floats(0, 100), min_size=2, max_size=30), n=st.integers(0, 30), count=st.integers(1, 3))
def test_peers_are_near_in_reach_and_never_sources(sizes: list[float], n: int, count: int) -> None:
    reach = torch.tensor(sizes)
    sources = list(range(min(count, len(sizes))))
    found = peers(reach, sources, n)
    able = [i for i in range(len(sizes)) if float(reach[i]) > 0 and i not in sources]
    assert len(found) == len(set(found)) == min(n, len(able)) and set(found) <= set(able)
    if len(sources) == 1 and reach[0] > 0 and found:
        ratio = (reach.clamp_min(1e-38).log() - reach[0].clamp_min(1e-38).log()).abs()
        left = [i for i in able if i not in found]
        assert all(ratio[i] >= ratio[found].max() - 1e-4 for i in left)


@pytest.mark.parametrize(
    ("attribution", "ablation", "limit", "verdict"),
    [
        (1.0, 0.9, 0.3, True),
        (-1.0, -0.9, 0.3, True),
        (1.0, -0.9, 0.3, False),
        (1.0, 0.4, 0.3, False),
        (1.0, 0.6, 0.7, False),
        (1.0, 3.0, 0.7, True),
        (0.0, 0.5, 0.1, False),
        (1.0, 0.9, float("inf"), False),
    ],
)
def test_what_bears_an_edge_out(attribution: float, ablation: float, limit: float, verdict: bool) -> None:
    assert confirmed(attribution, ablation, limit) is verdict


def test_the_threshold_is_the_largest_twentieth() -> None:
    effects = torch.cat([torch.arange(1.0, 101.0), -torch.arange(1.0, 101.0)])[:, None]
    assert (effects.abs() > threshold(effects)).float().mean() == pytest.approx(0.05, abs=0.011)
    assert threshold(torch.zeros(0, 3)).tolist() == [float("inf")] * 3


def test_latents_drawn_at_random_are_seldom_confirmed(tiny_gpt2_folder: Path) -> None:
    """Against the latents of largest attribution, others of the same reach: what singles out is the direction."""
    subject = load(f"language:{tiny_gpt2_folder}")
    tokens = torch.randint(3, 60, (8, 12), generator=torch.Generator().manual_seed(0))
    batch = Batch(first_example=0, tokens=tokens, attended=torch.ones_like(tokens, dtype=torch.bool))
    earlier, later = "blocks.0.hook_resid_mid", "blocks.1.hook_resid_post"
    source, target = seen_by(subject, batch, (earlier, later), d_sae=160, k=12)
    shares: dict[str, list[bool]] = {"drawn": [], "random": []}
    for latent in target.total((target.strength > 0).float()).topk(10).indices.tolist():
        attributed, reach = attributions(source, gradients(subject, batch, target, latent, [earlier])[earlier])
        drawn = attributed.abs().topk(5).indices.tolist()
        others = peers(reach, drawn, 60)
        control, random = others[0::2], others[1::2]
        targets = Targets({later: target}, {later: [latent]})
        effect = ablated(subject, batch, source, [*control, *drawn, *random], targets, batch_examples=32)[0][:, 0]
        limit = float(threshold(effect[: len(control), None])[0])
        for name, group, start in (("drawn", drawn, len(control)), ("random", random, len(control) + len(drawn))):
            for i, one in enumerate(group):
                shares[name].append(confirmed(float(attributed[one]), float(effect[start + i]), limit))
    rates = {name: sum(found) / len(found) for name, found in shares.items()}
    assert rates["random"] < 0.1 and rates["drawn"] > 5 * rates["random"] and len(shares["random"]) > 100
