"""Work that is handed to other processes comes back in order, and so do errors."""

import gc
import os
from collections.abc import Iterator

import pytest

from sae.errors import CatalogError
from sae.features.building.workers import in_order, usable_cores, without_cycle_search

FACTOR = [3]


def tripled(number: int) -> tuple[int, int]:
    if number == 99:
        raise CatalogError("no 99")
    return number * FACTOR[0], os.getpid()


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(n_workers: int) -> None:
    FACTOR[0] = 4  # seen by workers without being sent
    found = list(in_order(tripled, range(40), n_workers))
    assert [value for value, _ in found] == [4 * number for number in range(40)]
    others = {pid for _, pid in found} - {os.getpid()}
    assert len(others) <= n_workers and bool(others) == (n_workers > 1)


def test_few_items_are_under_way_at_a_time() -> None:
    drawn = []

    def items() -> Iterator[int]:
        for number in range(50):
            drawn.append(number)
            yield number

    results = in_order(tripled, items(), 2)
    next(results)
    assert len(drawn) == 3
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("n_workers", [1, 2])
def test_an_error_of_the_task_comes_up(n_workers: int) -> None:
    with pytest.raises(CatalogError, match="no 99"):
        list(in_order(tripled, [1, 2, 99, 3], n_workers))


def test_the_search_for_cycles_goes_on_afterwards() -> None:
    with without_cycle_search():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert usable_cores() >= 1
