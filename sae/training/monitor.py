"""The figures of a run, read from the device without stopping it."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

DIVERGED_FVU = 1e3
"""A batch reconstructed this badly ends the run; predicting the mean scores 1."""


@dataclass(frozen=True)
class Reading:
    """Figures of an interval that ended when `step` steps were done; `bad_step` is the first step, counted from 0,
    whose figures are not finite or whose FVU is above `DIVERGED_FVU`.
    """

    step: int
    metrics: dict[str, float]
    bad_step: int | None


@dataclass(frozen=True)
class _Pending:
    step: int
    sizes: list[int]
    figures: Float[Tensor, "step figure"]
    dead_fraction: Float[Tensor, ""]
    known: dict[str, float]
    copied: torch.cuda.Event | None


class Monitor:
    """Keeps a row of figures per step on the device and copies an interval of them at a time, asynchronously.

    One kernel per step writes the row; everything else is worked out on the host, in float64, after the copy has
    arrived. At most one interval is under way.

    Args:
        capacity: the most steps of an interval.
        variance: summed variance of the inputs over all vectors trained on; FVU is the mean squared error over it.
        device: where the figures are.
        step: the number of steps done before.
    """

    def __init__(self, capacity: int, variance: float, device: torch.device, step: int = 0) -> None:
        self.capacity, self.variance, self.device, self.step = capacity, variance, device, step
        self._names: tuple[str, ...] = ()
        self._sizes: list[int] = []
        self._figures = torch.empty(0, device=device)
        self._pending: _Pending | None = None

    @torch.no_grad()
    def add(self, figures: dict[str, Float[Tensor, ""]], n_vectors: int) -> None:
        """Keep one step's figures; the names must be the same in every step.

        `squared_error` and `n_fired`, sums over the batch, become `fvu` and `l0`; the others are averaged over steps.
        """
        if not self._names:
            self._names = tuple(figures)
            self._figures = torch.empty(self.capacity, len(figures), device=self.device)
        row = [figures[name].detach().float() for name in self._names]
        torch.stack(row, out=self._figures[len(self._sizes)])
        self._sizes.append(n_vectors)
        self.step += 1

    def close_interval(self, dead_fraction: Float[Tensor, ""], known: dict[str, float]) -> None:
        """Start copying the interval to the host; the one before must have been read.

        Args:
            dead_fraction: share of dead latents at the interval's end, on the device.
            known: figures that the host knows already; they go into the reading as they are.
        """
        assert self._pending is None, "the interval before has not been read"
        figures = _to_host(self._figures[: len(self._sizes)])
        dead_fraction = _to_host(dead_fraction)
        copied = None
        if self.device.type == "cuda":
            copied = torch.cuda.Event()
            copied.record(torch.cuda.current_stream(self.device))
        self._pending = _Pending(self.step, self._sizes, figures, dead_fraction, known, copied)
        self._sizes = []

    @property
    def open_steps(self) -> int:
        """Steps since the interval began."""
        return len(self._sizes)

    def read(self, wait: bool) -> Reading | None:
        """Return the closed interval once it has arrived, or None; `wait` waits for it."""
        pending = self._pending
        if pending is None:
            return None
        if pending.copied is not None:
            if not wait and not pending.copied.query():
                return None
            pending.copied.synchronize()
        self._pending = None
        return self._reading(pending)

    def _reading(self, pending: _Pending) -> Reading:
        columns = dict(zip(self._names, pending.figures.numpy().astype(np.float64).T, strict=True))
        sizes = np.array(pending.sizes, dtype=np.float64)
        squared_error, n_fired = columns.pop("squared_error"), columns.pop("n_fired")
        fvu = squared_error / sizes / self.variance
        bad = ~np.isfinite(np.stack([*columns.values(), fvu])).all(0) | (fvu > DIVERGED_FVU)
        metrics = {name: float(column.mean()) for name, column in columns.items()}
        metrics["fvu"] = float(squared_error.sum() / sizes.sum() / self.variance)
        metrics["l0"] = float(n_fired.sum() / sizes.sum())
        metrics["dead_fraction"] = float(pending.dead_fraction)
        first = pending.step - len(sizes)
        bad_step = first + int(bad.argmax()) if bad.any() else None
        return Reading(pending.step, metrics | pending.known, bad_step)


def _to_host(values: Tensor) -> Tensor:
    if values.device.type != "cuda":
        return values.clone()
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
