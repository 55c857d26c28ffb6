"""What a metric is: a definition, and either additive sums over rows or one value per item.

A *row metric* (a class) is additive sums over rows and a value of those sums: because sums add up it streams in bounded
memory, does not depend on the batch size, and has a bootstrap interval over blocks of rows. An *item metric* (a
function) gives one value per item, a label or a latent, say, and is their mean; its interval resamples items, and two
dictionaries that are scored on the same items are compared item by item.

Either way the docstring is the definition, and `METRICS` lists every one by name.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, ParamSpec

import torch
from jaxtyping import Float
from torch import Tensor

from sae.errors import ConfigError, EvaluationError, nearest

Sums = Float[Tensor, " sums"]
Better = Literal["lower", "higher", "neither"]
Parameters = ParamSpec("Parameters")

_MAX_WEIGHTS = 4_000_000
"""Bootstrap weights kept at a time; beyond it fewer draws are made."""
N_DRAWS = 1000
"""Bootstrap draws behind an interval, at most."""
MIN_ITEMS = 10
"""Items, or blocks of rows, below which no interval is given."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What a name in a report means.

    `bounds` are the least and greatest possible values; `chance` is what an answer without information scores on
    average, None where that depends on the data. `unit` says what the value is a mean over. `paired` says that the
    items are the same for every dictionary scored on the same data (labels are, latents are not). `module` is where it
    is defined.
    """

    name: str
    version: int
    better: Better
    unit: str
    bounds: tuple[float, float]
    chance: float | None
    paired: bool
    text: str
    module: str = ""


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


METRICS: dict[str, Definition] = {}


def find_metric(name: str) -> Definition:
    """Look a definition up by name.

    Raises:
        ConfigError: no such metric.
    """
    if name not in METRICS:
        raise ConfigError(f"metrics: unknown metric {name!r}.{nearest(name, METRICS)}")
    return METRICS[name]


def _define(definition: Definition) -> Definition:
    assert definition.name not in METRICS, definition.name
    assert definition.text, definition.name
    METRICS[definition.name] = definition
    return definition


class Metric:
    """Base of the row metrics: a subclass sets class variables, `sums` and `value`; its docstring is the definition.

    `sums` maps a chunk of data to float64 sums whose first entry is the number of rows. `value` maps sums, added over
    any number of chunks, to the metric.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    better: ClassVar[Better]
    unit: ClassVar[str] = "vectors"
    bounds: ClassVar[tuple[float, float]] = (-float("inf"), float("inf"))

    @staticmethod
    def sums(chunk: Any) -> Sums:
        raise NotImplementedError

    @staticmethod
    def value(total: Float[Tensor, "*draws sums"]) -> Float[Tensor, "*draws"]:
        raise NotImplementedError


def register(metric: type[Metric]) -> type[Metric]:
    """Make a row metric findable by its name."""
    _define(
        Definition(
            name=metric.name,
            version=metric.version,
            better=metric.better,
            unit=metric.unit,
            bounds=metric.bounds,
            chance=None,
            paired=True,
            text=inspect.cleandoc(metric.__doc__ or ""),
            module=metric.__module__,
        )
    )
    return metric


@dataclass(frozen=True)
class Measured:
    """One value per item of an item metric; nan leaves an item out of the mean."""

    definition: Definition
    values: Float[Tensor, " items"]

    def score(self, seed: int = 0) -> Score:
        """Return the mean with its 95 % bootstrap interval over items.

        Raises:
            EvaluationError: no item has a value.
        """
        known = self.values[~self.values.isnan()]
        name = self.definition.name
        if not len(known):
            raise EvaluationError(f"{name}: none of {len(self.values)} {self.definition.unit} could be scored.")
        return Score(
            name=name,
            version=self.definition.version,
            value=float(known.mean()),
            n=len(known),
            unit=self.definition.unit,
            better=self.definition.better,
            interval=_interval(mean_draws(known, seed)) if len(known) >= MIN_ITEMS else None,
        )

    def minus(self, other: "Measured", seed: int = 0) -> tuple[float, tuple[float, float] | None]:
        """Return the difference of the means with its 95 % interval: of item-wise differences where items are shared.

        Items that either lacks are left out of a paired difference. Where the numbers of items differ (another subject
        mixes other concepts in its neurons), the two are resampled apart.
        """
        assert self.definition == other.definition, (self.definition.name, other.definition.name)
        if self.definition.paired and len(self.values) == len(other.values):
            gain = self.values - other.values
            gain = gain[~gain.isnan()]
            return float(gain.mean()), _interval(mean_draws(gain, seed)) if len(gain) >= MIN_ITEMS else None
        one, two = (measured.values[~measured.values.isnan()] for measured in (self, other))
        value = float(one.mean() - two.mean())
        if min(len(one), len(two)) < MIN_ITEMS:
            return value, None
        n_draws = _n_draws(max(len(one), len(two)))
        return value, _interval(mean_draws(one, seed, n_draws) - mean_draws(two, seed + 1, n_draws))


def item_metric(
    name: str,
    *,
    better: Better,
    unit: str,
    bounds: tuple[float, float],
    chance: float | None,
    paired: bool,
    version: int = 1,
) -> Callable[[Callable[Parameters, Float[Tensor, " items"]]], Callable[Parameters, Measured]]:
    """Register a function that returns one value per item as a metric; its docstring is the definition."""

    def decorate(function: Callable[Parameters, Float[Tensor, " items"]]) -> Callable[Parameters, Measured]:
        definition = _define(
            Definition(
                name=name,
                version=version,
                better=better,
                unit=unit,
                bounds=bounds,
                chance=chance,
                paired=paired,
                text=inspect.getdoc(function) or "",
                module=function.__module__,
            )
        )

        @functools.wraps(function)
        def measure(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Measured:
            return Measured(definition, function(*args, **kwargs).double().cpu())

        return measure

    return decorate


class Accumulator:
    """Adds chunks up for several row metrics at once, block by block.

    A block is one call of `update`; callers pass chunks that are independent of one another (whole examples), so that
    the bootstrap over blocks respects the correlation of neighbouring tokens or patches. Memory is bounded: beyond
    `max_blocks` blocks are merged in pairs.
    """

    def __init__(self, metrics: Sequence[type[Metric]], max_blocks: int = 512) -> None:
        self.metrics = list(metrics)
        self.max_blocks = max_blocks
        self.n_blocks = 0
        # One tensor per metric: small ones made between large temporary ones would keep these from being freed.
        self._blocks: list[Float[Tensor, "blocks sums"]] = []

    def update(self, chunk: Any) -> None:
        """Add one chunk."""
        found = [metric.sums(chunk) for metric in self.metrics]
        if not self._blocks:
            self._blocks = [torch.zeros(self.max_blocks + 1, len(sums), dtype=torch.float64) for sums in found]
        for blocks, sums in zip(self._blocks, found, strict=True):
            blocks[self.n_blocks] = sums
        self.n_blocks += 1
        if self.n_blocks > self.max_blocks:
            self._merge()

    def scores(self, seed: int = 0, n_draws: int = N_DRAWS) -> list[Score]:
        """Return every metric with its 95 % bootstrap interval over blocks.

        Raises:
            EvaluationError: nothing was added.
        """
        if not self.n_blocks:
            raise EvaluationError(f"{', '.join(metric.name for metric in self.metrics)}: no data to score.")
        return [
            self._score(metric, blocks[: self.n_blocks], seed, n_draws)
            for metric, blocks in zip(self.metrics, self._blocks, strict=True)
        ]

    def _merge(self) -> None:
        """Add blocks up in pairs; striding pairs distant ones, so merged blocks stay about equal in size."""
        half = (self.n_blocks + 1) // 2
        for blocks in self._blocks:
            blocks[: self.n_blocks - half] += blocks[half : self.n_blocks]
        self.n_blocks = half

    def _score(self, metric: type[Metric], blocks: Float[Tensor, "blocks sums"], seed: int, n_draws: int) -> Score:
        total = blocks.sum(0)
        drawn = metric.value(resampled(len(blocks), seed, n_draws) @ blocks) if len(blocks) >= MIN_ITEMS else None
        return Score(
            name=metric.name,
            version=metric.version,
            value=float(metric.value(total)),
            n=int(total[0]),
            unit=metric.unit,
            better=metric.better,
            interval=None if drawn is None else _interval(drawn),
        )


@functools.lru_cache(maxsize=2)
def resampled(n_items: int, seed: int, n_draws: int = N_DRAWS) -> Float[Tensor, "draws items"]:
    """Return how often each item occurs in each bootstrap draw: the same weights for the same seed and number."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(n_items, (n_draws, n_items), generator=generator)
    weights = torch.zeros(n_draws, n_items, dtype=torch.float64)
    return weights.scatter_add_(1, draws, torch.ones((), dtype=torch.float64).expand_as(draws))


def mean_draws(values: Float[Tensor, " items"], seed: int, n_draws: int | None = None) -> Float[Tensor, " draws"]:
    """Return the means of bootstrap resamples of values, as many as memory allows unless their number is given."""
    weights = resampled(len(values), seed, n_draws or _n_draws(len(values)))
    return weights @ values.double() / len(values)


def _n_draws(n_items: int) -> int:
    return min(N_DRAWS, max(200, _MAX_WEIGHTS // n_items))


def _interval(draws: Float[Tensor, " draws"]) -> tuple[float, float]:
    """Return the 95 % percentile interval of bootstrap draws."""
    low, high = torch.nanquantile(draws, torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()
    return low, high
