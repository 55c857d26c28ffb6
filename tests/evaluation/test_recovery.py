import pytest
import torch

from sae.dictionaries.codes import Codes
from sae.errors import ConfigError, EvaluationError
from sae.evaluation.recovery import Recovery, firing_f1
from sae.evaluation.toys import pentagon, superposition


def values(recovery: Recovery) -> dict[str, float]:
    return {score.name: score.value for score in recovery.scores()}


def test_the_truth_itself_scores_one_whatever_its_order_and_lengths() -> None:
    toy = superposition(n_features=12, d_in=8, l0=2)
    shuffled = toy.directions[torch.randperm(12)] * torch.rand(12, 1).add(0.1)
    assert values(Recovery.of(shuffled, toy.directions)) == pytest.approx(
        {"mean_max_cosine": 1, "mcc": 1, "recovered_fraction": 1}
    )


def test_one_latent_for_two_features_is_punished_by_the_matching_only() -> None:
    truth = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1, 0], [1, -0.1, 0], [0, 0, 1]]), dim=1)
    learned = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    found = values(Recovery.of(learned, truth))
    cosine = 1 / (1 + 0.01) ** 0.5
    assert found["mean_max_cosine"] == pytest.approx((2 * cosine + 1) / 3)
    assert found["mcc"] == pytest.approx((cosine + 0.1 * cosine + 1) / 3)
    assert found["recovered_fraction"] == 1


def test_opposite_directions_are_not_recovered() -> None:
    toy = pentagon()
    assert values(Recovery.of(-toy.directions, toy.directions))["recovered_fraction"] == 0


def test_firing_f1_against_a_count_by_hand() -> None:
    identity = Recovery.of(torch.eye(2), torch.eye(2))
    fired = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 0]]).bool()
    codes = Codes.from_dense(torch.tensor([[1.0, 0], [0, 1], [0, 2], [0, 0]]))
    # Feature 0: TP 1, FP 0, FN 1. Feature 1: TP 1, FP 1, FN 0.
    assert firing_f1(identity, codes, fired).value == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_widths_must_agree() -> None:
    with pytest.raises(EvaluationError, match="3 wide, the truth 2"):
        Recovery.of(torch.eye(3), torch.eye(2))


def test_toy_frequencies_and_sums() -> None:
    toy = superposition(n_features=20, d_in=8, l0=3)
    x, fired = toy.sample(20_000, torch.Generator().manual_seed(0))
    assert x.shape == (20_000, 8)
    torch.testing.assert_close(fired.float().mean(0), toy.probabilities, atol=0.02, rtol=0)
    assert toy.l0 == pytest.approx(3, abs=0.2)
    with pytest.raises(ConfigError, match="between 0 and n_features = 20"):
        superposition(n_features=20, d_in=8, l0=20)
