"""Reading ahead: the next batches are read and on their way to the device while this one is worked on."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor

READ_AHEAD_BATCHES = 2


class Reader(Protocol):
    """An endless source of batches that can be stopped and continued; a batch is one or more tensors."""

    def __next__(self) -> tuple[Tensor, ...]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class _Ready(NamedTuple):
    batch: tuple[Tensor, ...]
    state: dict[str, Any]
    copied: torch.cuda.Event | None


class Prefetcher(Iterator[tuple[Tensor, ...]]):
    """Hands out a reader's batches in the reader's order, read by one background thread.

    On CUDA a batch is pinned and copied on a stream of its own. `state` is the reader's state after the last batch
    handed out, whatever has been read ahead; continuing a reader from it hands out the next batch.
    """

    def __init__(self, reader: Reader, device: torch.device) -> None:
        self.reader, self.device = reader, device
        self.state = reader.state_dict()
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._ahead: deque[Future[_Ready]] = deque()
        for _ in range(READ_AHEAD_BATCHES):
            self._ahead.append(self._thread.submit(self._read))

    def __next__(self) -> tuple[Tensor, ...]:
        ready = self._ahead.popleft().result()
        self._ahead.append(self._thread.submit(self._read))
        self.state = ready.state
        if ready.copied is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(ready.copied)
            for part in ready.batch:
                part.record_stream(current)
        return ready.batch

    def close(self) -> None:
        """Drop what was read ahead and end the thread."""
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self) -> _Ready:
        batch = next(self.reader)
        state = self.reader.state_dict()
        if self._stream is None:
            return _Ready(tuple(part.to(self.device) for part in batch), state, None)
        with torch.cuda.stream(self._stream):
            batch = tuple(part.pin_memory().to(self.device, non_blocking=True) for part in batch)
            copied = torch.cuda.Event()
            copied.record(self._stream)
        return _Ready(batch, state, copied)
