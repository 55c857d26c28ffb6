from typing import Any

import pytest
import torch

from sae.errors import StoreError
from sae.training.prefetch import Prefetcher

CPU = torch.device("cpu")


class Counter:
    """Hands out 0, 1, 2, ... and fails at `fail_at`."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.next, self.fail_at = 0, fail_at

    def __next__(self) -> tuple[torch.Tensor, ...]:
        if self.next == self.fail_at:
            raise StoreError("shard 3 is damaged")
        self.next += 1
        return (torch.full((2, 1), float(self.next - 1)), torch.full((2, 3), -float(self.next - 1)))

    def state_dict(self) -> dict[str, Any]:
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.next = state["next"]


def test_order_is_the_readers() -> None:
    with Prefetcher(Counter(), CPU) as batches:
        assert [(int(x[0, 0]), -int(y[0, 0])) for _, (x, y) in zip(range(20), batches, strict=False)] == [
            (i, i) for i in range(20)
        ]


def test_state_is_that_of_the_batch_handed_out_not_of_what_was_read_ahead() -> None:
    with Prefetcher(Counter(), CPU) as batches:
        assert batches.state == {"next": 0}
        for _ in range(5):
            next(batches)
        state = batches.state
    reader = Counter()
    reader.load_state_dict(state)
    with Prefetcher(reader, CPU) as batches:
        assert next(batches)[0][0, 0] == 5


def test_the_readers_error_comes_out_at_its_batch() -> None:
    with Prefetcher(Counter(fail_at=3), CPU) as batches:
        for _ in range(3):
            next(batches)
        with pytest.raises(StoreError, match="shard 3"):
            next(batches)
