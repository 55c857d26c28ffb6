import pytest
import torch

from sae.dictionaries.codes import Codes
from sae.errors import EvaluationError
from sae.evaluation.metric import Measured
from sae.evaluation.recovery import (
    Firing,
    Recovery,
    firing_f1,
    firing_precision,
    firing_recall,
    recovery_scores,
    unique_latents,
)
from sae.evaluation.responses import SparseResponses
from sae.evaluation.sample import Units
from sae.evaluation.toys import orthogonal, pentagon, superposition, toy_sample, true_dictionary


def values(measured: list[Measured]) -> dict[str, float]:
    return {one.definition.name: one.score().value for one in measured}


def firing(codes: torch.Tensor, fired: torch.Tensor) -> Firing:
    items = torch.arange(len(codes))
    return Firing.of(SparseResponses.of_codes(Codes.from_dense(codes), items, len(codes)), fired)


def test_the_truth_itself_scores_one_whatever_its_order_and_lengths() -> None:
    toy = superposition(n_features=12, d_in=8, l0=2)
    shuffled = toy.directions[torch.randperm(12)] * torch.rand(12, 1).add(0.1)
    assert values(recovery_scores(Recovery.of(shuffled, toy.directions))) == pytest.approx(
        {"mean_max_cosine": 1, "mcc": 1, "recovered_fraction": 1, "unique_latents": 1}
    )


def test_the_true_dictionary_scores_one_on_everything() -> None:
    toy = orthogonal(n_features=12, d_in=16, l0=2)
    dictionary, sample = true_dictionary(toy), toy_sample(toy, 4000)
    fired = torch.stack([torch.from_numpy(column) == 0 for column in sample.labels.values()], 1)
    counted = Firing.of(Units("latents", dictionary, sample).responses, fired)
    found = values(recovery_scores(Recovery.of(dictionary.W_dec, toy.directions), counted))
    assert found == pytest.approx(dict.fromkeys(found, 1.0))
    assert len(found) == 7


def test_one_latent_for_two_features_is_punished_by_the_matching_only() -> None:
    truth = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1, 0], [1, -0.1, 0], [0, 0, 1]]), dim=1)
    learned = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    found = values(recovery_scores(Recovery.of(learned, truth)))
    cosine = 1 / (1 + 0.01) ** 0.5
    assert found["mean_max_cosine"] == pytest.approx((2 * cosine + 1) / 3)
    assert found["mcc"] == pytest.approx((cosine + 0.1 * cosine + 1) / 3)
    assert found["recovered_fraction"] == 1


def test_the_closest_of_the_latents_that_share_a_feature_is_the_unique_one() -> None:
    learned = torch.tensor([[1.0, 0.5], [1, 0.1], [0, 1], [1, 0.3]])
    assert unique_latents(Recovery.of(learned, torch.eye(2))).values.tolist() == [0, 1, 1, 0]
    generator = torch.Generator().manual_seed(0)
    recovery = Recovery.of(torch.randn(30, 8, generator=generator), torch.randn(20, 8, generator=generator))
    distinct = len(set(recovery.cosine.argmax(0).tolist()))
    assert unique_latents(recovery).score().value == pytest.approx(distinct / 30)


def test_opposite_directions_are_not_recovered() -> None:
    toy = pentagon()
    assert values(recovery_scores(Recovery.of(-toy.directions, toy.directions)))["recovered_fraction"] == 0


def test_firing_against_a_count_by_hand() -> None:
    identity = Recovery.of(torch.eye(2), torch.eye(2))
    fired = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 0]]).bool()
    counted = firing(torch.tensor([[1.0, 0], [0, 1], [0, 2], [0, 0]]), fired)
    # Feature 0: TP 1, FP 0, FN 1. Feature 1: TP 1, FP 1, FN 0.
    assert firing_f1(identity, counted).values.tolist() == pytest.approx([2 / 3, 2 / 3])
    assert firing_precision(identity, counted).values.tolist() == [1, 0.5]
    assert firing_recall(identity, counted).values.tolist() == [0.5, 1]


def test_silent_latents_count_zero_and_absent_features_are_left_out() -> None:
    identity = Recovery.of(torch.eye(3), torch.eye(3))
    fired = torch.tensor([[1, 0, 0], [1, 1, 0]]).bool()
    counted = firing(torch.tensor([[0.0, 0, 1], [0, 2, 0]]), fired)
    assert firing_f1(identity, counted).values.nan_to_num(-1).tolist() == [0, 1, -1]
    assert firing_precision(identity, counted).values.tolist() == [0, 1, 0]
    assert firing_recall(identity, counted).values.nan_to_num(-1).tolist() == [0, 1, -1]


def test_widths_must_agree() -> None:
    with pytest.raises(EvaluationError, match="3 wide, the truth 2"):
        Recovery.of(torch.eye(3), torch.eye(2))
