"""Rounding many numbers at once gives what rounding each of them gives."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sae.features.cards import rounded
from sae.features.rounding import array_rounded

NUMBERS = st.floats(-(2.0**40), 2.0**40, width=32).filter(lambda value: value == 0 or abs(value) > 1e-18)


@given(st.lists(NUMBERS, max_size=50))
def test_arrays_are_rounded_as_single_numbers_are(values: list[float]) -> None:
    found = array_rounded(np.array(values, dtype=np.float32))
    wanted = [rounded(float(value)) for value in values]
    # Where a number lies halfway the two may go to either side: one unit of the last digit.
    np.testing.assert_allclose(found, np.array(wanted, dtype=np.float64), rtol=1.1e-3, atol=0)
    same = [repr(one) for one in found.tolist()]
    assert all(len(text.strip("-0.").replace(".", "").split("e")[0].strip("0")) <= 4 for text in same), same


def test_ordinary_numbers_come_out_exactly_alike() -> None:
    values = np.exp(np.random.default_rng(0).normal(0, 4, 20_000)).astype(np.float32)
    assert array_rounded(values).tolist() == [rounded(value) for value in values.tolist()]
