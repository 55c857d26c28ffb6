"""A metric is additive sums over rows and a value of those sums.

Because sums add up, a metric streams in bounded memory, does not depend on the batch size, and has a bootstrap
interval for free: blocks of rows are resampled and the value is taken again.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sae.errors import ConfigError, EvaluationError, nearest

Sums = Float[Tensor, " sums"]
Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number about a dictionary.

    `n` counts what was averaged over (`unit` says what: vectors, tokens, examples, labels, latents). `interval` is a
    95 % interval, None where none is defined.
    """

    name: str
    version: int
    value: float
    n: int
    unit: str
    better: Better
    interval: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Metric:
    """Base of the metrics: a subclass sets the class variables, `sums` and `value`; its docstring is the definition.

    `sums` maps a chunk of data to float64 sums whose first entry is the number of rows. `value` maps sums, added over
    any number of chunks, to the metric.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    better: ClassVar[Better]
    unit: ClassVar[str] = "vectors"

    @staticmethod
    def sums(chunk: Any) -> Sums:
        raise NotImplementedError

    @staticmethod
    def value(total: Float[Tensor, "*draws sums"]) -> Float[Tensor, "*draws"]:
        raise NotImplementedError


METRICS: dict[str, type[Metric]] = {}


def register(metric: type[Metric]) -> type[Metric]:
    """Make a metric findable by its name."""
    assert metric.name not in METRICS, metric.name
    METRICS[metric.name] = metric
    return metric


def find_metric(name: str) -> type[Metric]:
    """Look a metric up by name.

    Raises:
        ConfigError: no such metric.
    """
    if name not in METRICS:
        raise ConfigError(f"metrics: unknown metric {name!r}.{nearest(name, METRICS)}")
    return METRICS[name]


class Accumulator:
    """Adds chunks up for several metrics at once, block by block.

    A block is one call of `update`; callers pass chunks that are independent of one another (whole examples), so that
    the bootstrap over blocks respects the correlation of neighbouring tokens or patches. Memory is bounded: beyond
    `max_blocks` blocks are merged in pairs.
    """

    def __init__(self, metrics: Sequence[type[Metric]], max_blocks: int = 512) -> None:
        self.metrics = list(metrics)
        self.max_blocks = max_blocks
        self.blocks: list[list[Sums]] = [[] for _ in self.metrics]

    def update(self, chunk: Any) -> None:
        """Add one chunk."""
        for metric, blocks in zip(self.metrics, self.blocks, strict=True):
            blocks.append(metric.sums(chunk).double().cpu())
            if len(blocks) > self.max_blocks:
                # Striding pairs distant blocks, so merged blocks stay about equal in size.
                half = (len(blocks) + 1) // 2
                blocks[:] = [sum(blocks[i::half][1:], blocks[i]) for i in range(half)]

    def scores(self, seed: int = 0, n_draws: int = 1000) -> list[Score]:
        """Return every metric with its 95 % bootstrap interval over blocks.

        Raises:
            EvaluationError: nothing was added.
        """
        return [
            self._score(metric, blocks, seed, n_draws) for metric, blocks in zip(self.metrics, self.blocks, strict=True)
        ]

    def _score(self, metric: type[Metric], blocks: list[Sums], seed: int, n_draws: int) -> Score:
        if not blocks:
            raise EvaluationError(f"{metric.name}: no data to score.")
        stacked = torch.stack(blocks)
        total = stacked.sum(0)
        return Score(
            name=metric.name,
            version=metric.version,
            value=float(metric.value(total)),
            n=int(total[0]),
            unit=metric.unit,
            better=metric.better,
            interval=bootstrap(lambda weights: metric.value(weights @ stacked), len(blocks), seed, n_draws),
        )


def bootstrap(
    statistic: Callable[[Float[Tensor, "draws items"]], Float[Tensor, " draws"]], n_items: int, seed: int, n_draws: int
) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of a statistic of resampled item weights; None for fewer than ten items."""
    if n_items < 10:
        return None
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(n_items, (n_draws, n_items), generator=generator)
    weights = torch.zeros(n_draws, n_items, dtype=torch.float64).scatter_add_(
        1, draws, torch.ones_like(draws, dtype=torch.float64)
    )
    values = statistic(weights)
    low, high = torch.nanquantile(values, torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return low, high
