"""What a few answers say: the area is what it counts, and intervals hold the truth as often as they should."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae.features.judging.agreement import Agreement, wilson


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.booleans()), min_size=2, max_size=30))
def test_of_yes_and_no_the_area_is_the_balanced_accuracy(pairs: list[tuple[float, bool]]) -> None:
    answers, fires = [answer for answer, _ in pairs], [fired for _, fired in pairs]
    if all(fires) or not any(fires):
        with pytest.raises(ValueError, match="that do not"):
            Agreement.of(answers, fires)
        return
    found = Agreement.of(answers, fires)
    shares = [[(answer == 1) == side for answer, fired in pairs if fired == side] for side in (True, False)]
    assert found.value == pytest.approx(sum(sum(share) / len(share) for share in shares) / 2)
    assert found.n == len(pairs) and 0 <= found.interval[0] <= found.value <= found.interval[1] <= 1


@given(st.lists(st.tuples(st.floats(-3, 3), st.booleans()), min_size=2, max_size=20))
def test_the_area_is_the_share_of_pairs_in_order(pairs: list[tuple[float, bool]]) -> None:
    firing, silent = ([answer for answer, fired in pairs if fired == side] for side in (True, False))
    if firing and silent:
        found = Agreement.of([answer for answer, _ in pairs], [fired for _, fired in pairs])
        naive = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a in firing for b in silent])
        assert found.value == pytest.approx(naive)
        assert 0 <= found.interval[0] <= found.value + 1e-9 and found.value - 1e-9 <= found.interval[1] <= 1


def test_wilson_intervals_are_those_of_the_book() -> None:
    # Newcombe 1998, table I: 81 of 263, and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_all_answers_right_are_not_certain() -> None:
    yes_and_no = Agreement.of([1.0] * 10 + [0.0] * 10, [True] * 10 + [False] * 10)
    graded = Agreement.of([2.0 + i for i in range(10)] + [-float(i) for i in range(10)], [True] * 10 + [False] * 10)
    for found in (yes_and_no, graded):
        assert found.value == 1 and 0.7 < found.interval[0] < 0.9 and found.interval[1] == pytest.approx(1)


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_intervals_hold_the_truth_in_about_95_of_100_tests(graded: bool, shift: float) -> None:
    random, held, n_tests = np.random.default_rng(0), 0, 1000
    true = 0.5 * (1 + math.erf(shift / 2))
    for _ in range(n_tests):
        answers = np.concatenate([random.normal(shift, 1, 10), random.normal(0, 1, 10)])
        if not graded:
            answers = (answers > shift / 2).astype(float)
        low, high = Agreement.of(answers.tolist(), [True] * 10 + [False] * 10).interval
        held += low <= (true if graded else 0.5 * (1 + math.erf(shift / 2 / math.sqrt(2)))) <= high
    assert held / n_tests > 0.91
