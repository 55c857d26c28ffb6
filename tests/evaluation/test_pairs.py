import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from sae.activations.store import Provenance
from sae.dictionaries.linear import Identity, IdentityConfig
from sae.errors import EvaluationError
from sae.evaluation.pairs import FACTOR, pair_details, pair_sample, pair_scores
from sae.evaluation.sample import Sample, Units, halves
from sae.evaluation.toys import superposition, toy_sample, true_dictionary
from sae.inputs.concepts import World
from sae.subjects.base import Activation, Hookpoint
from sae.tensors import Batch, Kind, Rows

N_FACTORS, PER_FACTOR = 4, 60
WIDTH = 6


def paired(x: torch.Tensor) -> Sample:
    """Items 2i, 2i + 1 are a pair; factor f changes coordinate f."""
    n = 2 * N_FACTORS * PER_FACTOR
    numbers = torch.arange(n)
    factor = np.repeat(np.arange(N_FACTORS), 2 * PER_FACTOR)
    return Sample(
        x=x,
        rows=Provenance(numbers, torch.zeros_like(numbers), torch.full((n,), int(Kind.POOLED), dtype=torch.uint8)),
        pooled=True,
        labels={FACTOR: factor},
        factors={FACTOR: factor},
        label_names={FACTOR: ("a", "b", "c", "d")},
        match=halves(numbers // 2, 0),
    )


def vectors() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2 * N_FACTORS * PER_FACTOR, WIDTH, generator=generator)
    x[1::2] = x[::2]
    for factor in range(N_FACTORS):
        rows = slice(2 * PER_FACTOR * factor + 1, 2 * PER_FACTOR * (factor + 1), 2)
        x[rows, factor] = torch.rand(PER_FACTOR, generator=generator)
    x[:, 5] = 0
    return x


@pytest.fixture(scope="module")
def units() -> Units:
    return Units("planted", Identity(IdentityConfig(d_sae=WIDTH), WIDTH), paired(vectors()))


def test_units_of_one_factor_are_selective_and_invariant(units: Units) -> None:
    selectivity, invariance = (measured.values for measured in pair_scores(units))
    assert (selectivity[:4] == 1).all()
    assert (invariance[:4] == 1).all()
    # A unit that changes in no pair, and a dead one.
    assert selectivity[4:].tolist() == [0.25, 0.25]
    assert invariance[4:].tolist() == [1, 0]


def test_agreement_with_a_naive_computation() -> None:
    generator = torch.Generator().manual_seed(1)
    strength = torch.tensor([1.0, 3.0, 0.5, 2.0]).repeat_interleave(PER_FACTOR)
    x = torch.rand(2 * N_FACTORS * PER_FACTOR, WIDTH, generator=generator)
    x[1::2] = x[::2] + strength[:, None] * torch.randn(len(strength), WIDTH, generator=generator)
    sample = paired(x)
    found = [
        measured.values for measured in pair_scores(Units("n", Identity(IdentityConfig(d_sae=WIDTH), WIDTH), sample))
    ]
    match, factor = sample.match[::2], torch.arange(N_FACTORS).repeat_interleave(PER_FACTOR)
    values = x.double()
    for unit in range(WIDTH):
        shares, changes = [], []
        for half in (match, ~match):
            relative, raw = [], []
            for f in range(N_FACTORS):
                pairs = (half & (factor == f)).nonzero()[:, 0].tolist()
                own = [abs(float(values[2 * i, unit] - values[2 * i + 1, unit])) for i in pairs]
                whole = [float((values[2 * i] - values[2 * i + 1]).norm()) for i in pairs]
                raw.append(float(np.mean(own)))
                relative.append(float(np.mean(own) / np.mean(whole)))
            shares.append([value / sum(relative) for value in relative])
            changes.append(raw)
        top = int(np.argmax(shares[0]))
        assert found[0][unit].item() == pytest.approx(shares[1][top], abs=1e-6)
        members = (~match).nonzero()[:, 0].tolist()
        n, shift = len(members), len(members) // 2
        apart = [
            abs(float(values[2 * members[i], unit] - values[2 * members[(i - shift) % n], unit])) for i in range(n)
        ]
        others = [change for f, change in enumerate(changes[1]) if f != top]
        assert found[1][unit].item() == pytest.approx(1 - np.mean(others) / np.mean(apart), abs=1e-6)
    # Units that follow every change alike sit at 1 / factors, although one factor changes six times as much.
    assert found[0].mean() == pytest.approx(0.25, abs=0.05)


def test_shuffled_factors_are_at_chance(units: Units) -> None:
    dealt = torch.randperm(N_FACTORS * PER_FACTOR, generator=torch.Generator().manual_seed(0)).repeat_interleave(2)
    factor = units.sample.factors[FACTOR][2 * dealt.numpy()]
    sample = dataclasses.replace(units.sample, factors={FACTOR: factor}, labels={FACTOR: factor})
    selectivity = pair_scores(Units("shuffled", units.dictionary, sample))[0].values
    assert selectivity.mean() == pytest.approx(0.25, abs=0.06)


def test_details_count_the_units_of_each_factor(units: Units) -> None:
    rows = pair_details(units)
    assert [row["factor"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["units"] for row in rows] == [1, 1, 1, 1]


def test_a_sample_without_pairs_is_refused() -> None:
    toy = superposition(6, 4, 1.0)
    with pytest.raises(EvaluationError, match="holds no pairs"):
        pair_scores(Units("true", true_dictionary(toy), toy_sample(toy, 100)))


class Averages:
    """A subject of two positions: the class token sees the mean colour, the patch the top left pixel."""

    id, kind = "averages", "clip"

    def hookpoints(self) -> dict[str, Hookpoint]:
        return {"visual.mean": Hookpoint("visual.mean", 3, "visual.tokens")}

    def rows(self, batch: Batch, grid: str) -> Rows:
        keep = torch.ones(len(batch), 2, dtype=torch.bool)
        kind = torch.tensor([int(Kind.CLASS), int(Kind.PATCH)], dtype=torch.uint8).expand(len(batch), 2)
        return Rows(keep=keep, kind=kind)

    def run(self, batch: Batch, hookpoints: Sequence[str]) -> dict[str, Activation]:
        assert batch.images is not None
        images = batch.images.float() / 255
        return {"visual.mean": torch.stack([images.mean((2, 3)), images[:, :, 0, 0]], 1)}


def test_pairs_are_rendered_and_read_in_order() -> None:
    world = World(size=32)
    made = pair_sample(Averages(), "visual.mean", world, 12, factors=("concept", "ground"), batch_pairs=5)  # type: ignore[arg-type]
    assert made.n_items == 48
    assert made.x.shape == (96, 3)
    assert made.factors[FACTOR].tolist() == [0] * 24 + [1] * 24
    assert torch.equal(made.match[::2], made.match[1::2])
    scenes = world.pair("score", 3, "ground")
    for member, scene in enumerate(scenes):
        image = torch.from_numpy(np.array(world.render(scene).image)).float() / 255
        item = 24 + 2 * 3 + member
        torch.testing.assert_close(made.x[2 * item], image.mean((0, 1)), atol=1e-6, rtol=0)
        torch.testing.assert_close(made.x[2 * item + 1], image[0, 0])
    assert len(pair_scores(Units("x", Identity(IdentityConfig(d_sae=3), 3), made))) == 2
