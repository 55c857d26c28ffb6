"""What a run says while it works: log lines, progress, tables, and metrics in a file and on Weights & Biases.

On a terminal these are rich bars and tables, elsewhere plain lines. Nothing is shown by importing the package.
`wandb` is imported here alone, and only by a run that asks for it.
"""

import json
import logging
import math
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sae.errors import ConfigError

logger = logging.getLogger(__name__)

WandbMode = Literal["off", "online", "offline"]
PLAIN_INTERVAL_SECONDS = 10.0
WANDB_TIMEOUT_SECONDS = 30.0
Item = TypeVar("Item")


@cache
def console() -> Console:
    """Return the console of progress and log lines, on stderr, so that stdout carries results only."""
    return Console(stderr=True)


def interactive() -> bool:
    """Say whether bars can be drawn: a terminal or a notebook."""
    return console().is_terminal or console().is_jupyter


def setup(level: str = "INFO") -> None:
    """Send the package's log lines to stderr; calling it again only changes the level."""
    package = logging.getLogger("sae")
    package.setLevel(level)
    if package.handlers:
        return
    if interactive():
        handler: logging.Handler = RichHandler(console=console(), show_path=False, log_time_format="%H:%M:%S")
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    package.addHandler(handler)
    package.propagate = False


class Bar:
    """Progress of one task: `advance` counts, `show` sets the figures beside the bar."""

    def __init__(self, description: str, total: int | None, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = 0
        self.initial = 0
        self.figures = ""
        self.started = time.monotonic()

    def advance(self, n: int = 1) -> None:
        self.done += n

    def skip(self, n: int) -> None:
        """Count `n` as done by an earlier run: they fill the bar but not the rate."""
        self.initial += n
        self.advance(n)

    def show(self, **figures: float) -> None:
        self.figures = ", ".join(f"{name} {format_number(value)}" for name, value in figures.items())

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return (self.done - self.initial) / max(time.monotonic() - self.started, 1e-9)

    def line(self) -> str:
        """One line: done, share, rate, time left, figures."""
        total = f"/{self.total:,} {self.unit} ({self.done / self.total:.0%})" if self.total else f" {self.unit}"
        left = ""
        if self.total and self.rate:
            left = f", {_duration((self.total - self.done) / self.rate)} left"
        figures = f", {self.figures}" if self.figures else ""
        return f"{self.description}: {self.done:,}{total}, {format_number(self.rate)} {self.unit}/s{left}{figures}"


class _PlainBar(Bar):
    """Logs a line every ten seconds."""

    def __init__(self, description: str, total: int | None, unit: str) -> None:
        super().__init__(description, total, unit)
        self.last_line = self.started

    def advance(self, n: int = 1) -> None:
        super().advance(n)
        now = time.monotonic()
        if now - self.last_line >= PLAIN_INTERVAL_SECONDS:
            self.last_line = now
            logger.info(self.line())


class _RichBar(Bar):
    """Draws the bar of a running `rich.progress.Progress`."""

    def __init__(self, description: str, total: int | None, unit: str, progress: Progress) -> None:
        super().__init__(description, total, unit)
        self.progress = progress
        self.task = progress.add_task(description, total=total, bar=self)

    def advance(self, n: int = 1) -> None:
        super().advance(n)
        self.progress.advance(self.task, n)


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        bar: Bar = task.fields["bar"]
        return Text(f"{format_number(bar.rate)} {bar.unit}/s  {bar.figures}", style="dim")


@contextmanager
def progress(description: str, total: int | None = None, unit: str = "steps") -> Iterator[Bar]:
    """Show the progress of a task that counts up to `total` units; `total=None` shows the rate alone."""
    if not interactive():
        yield _PlainBar(description, total, unit)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        _RateColumn(),
    )
    with Progress(*columns, console=console(), refresh_per_second=4, transient=True) as drawn:
        yield _RichBar(description, total, unit, drawn)


def track(items: Iterable[Item], description: str, total: int | None = None, unit: str = "steps") -> Iterator[Item]:
    """Iterate over items under a progress bar; the total is their length where they have one."""
    if total is None and isinstance(items, Sequence):
        total = len(items)
    with progress(description, total, unit) as bar:
        for item in items:
            yield item
            bar.advance()


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """Write a table to stdout: drawn on a terminal, aligned text elsewhere. Numbers get four significant digits."""
    cells = [[value if isinstance(value, str) else format_number(value) for value in row] for row in rows]
    out = Console()
    if out.is_terminal:
        drawn = Table(title=title, title_justify="left")
        for column in columns:
            drawn.add_column(column)
        for row in cells:
            drawn.add_row(*map(Text, row))
        out.print(drawn)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in [columns, ["-" * w for w in widths], *cells]]
    sys.stdout.write("\n".join(([title] if title else []) + lines) + "\n")


def format_number(value: Any) -> str:
    """Format whole numbers with thousands separators and other numbers with four significant digits."""
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class MetricLog:
    """Metrics of a run by step: one JSON line each in `metrics.jsonl`, and on Weights & Biases when asked.

    A run on W&B that cannot be reached goes on offline, and one that fails later goes on with the file alone.

    Args:
        folder: the run's folder; `metrics.jsonl` and `wandb/` are made in it.
        wandb: "online", "offline" (sent later by `wandb sync`) or "off".
        name: the run's name on W&B.
        config: the run's settings, as plain data.
        state: what `state_dict` returned when the run to continue was saved. Lines written after that are cut off,
            and the W&B run goes on under its id. Without it the file starts empty.

    Raises:
        ConfigError: W&B was asked for and is not installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        wandb: WandbMode = "off",
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(folder) / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = state or {"n_bytes": 0, "wandb_id": None}
        self._file = self.path.open("ab")
        self._file.seek(self._file.truncate(min(state["n_bytes"], self.path.stat().st_size)))
        self.wandb_id: str | None = state["wandb_id"]
        self._run = None if wandb == "off" else self._start_wandb(wandb, name, dict(config or {}))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line; numbers that are not finite are written as null."""
        line = {"step": step} | {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        self._on_wandb(lambda run, _: run.log({"step": step, **metrics}))

    def histogram(self, step: int, name: str, counts: Sequence[int], edges: Sequence[float]) -> None:
        """Show a histogram on W&B: `counts[i]` values lie between `edges[i]` and `edges[i + 1]`."""
        binned = (list(counts), list(edges))
        self._on_wandb(lambda run, wandb: run.log({"step": step, name: wandb.Histogram(np_histogram=binned)}))

    def artifact(self, folder: Path, name: str, type: str, metadata: Mapping[str, Any]) -> None:
        """Attach a folder's files to the W&B run."""

        def attach(run: Any, wandb: Any) -> None:
            artifact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", name), type=type, metadata=dict(metadata))
            artifact.add_dir(str(folder))
            run.log_artifact(artifact)

        self._on_wandb(attach)

    def state_dict(self) -> dict[str, Any]:
        """Return what continues this log: the file's length and the W&B run id."""
        return {"n_bytes": self._file.tell(), "wandb_id": self.wandb_id}

    def close(self, exit_code: int = 0) -> None:
        """Close the file and the W&B run; an exit code other than 0 marks the run as failed there."""
        self._file.close()
        self._on_wandb(lambda run, _: run.finish(exit_code=exit_code))
        self._run = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close(exit_code=0 if kind is None else 1)

    def _start_wandb(self, mode: str, name: str | None, config: dict[str, Any]) -> Any:
        wandb = _import_wandb()
        self.wandb_id = self.wandb_id or secrets.token_hex(4)
        settings = wandb.Settings(init_timeout=WANDB_TIMEOUT_SECONDS, console="off", silent=True)
        for attempt in dict.fromkeys((mode, "offline")):
            try:
                run = wandb.init(
                    project="sae", name=name, dir=str(self.path.parent), config=config, mode=attempt,
                    id=self.wandb_id, resume="allow" if attempt == "online" else None, settings=settings,
                )  # fmt: skip
            except (wandb.Error, OSError) as error:
                logger.warning("W&B could not start %s: %s", attempt, error)
                wandb.teardown()  # its service would hold on to the run id
                continue
            # Figures may arrive out of order, and again after resuming; W&B's own step would drop them.
            run.define_metric("*", step_metric="step")
            logger.info("W&B %s: %s", attempt, run.url if attempt == "online" else run.settings.sync_dir)
            return run
        return None

    def _on_wandb(self, action: Callable[[Any, Any], None]) -> None:
        """Call `action(run, wandb)`; a failure there ends the W&B run, not this one."""
        if self._run is None:
            return
        wandb = _import_wandb()
        try:
            action(self._run, wandb)
        except (wandb.Error, OSError) as error:
            logger.warning("W&B failed, the run goes on with %s alone: %s", self.path, error)
            self._run = None


def _import_wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            "wandb: Weights & Biases is not installed. `pip install 'sae-dictionaries[wandb]'` adds it; "
            "wandb=off runs without it."
        ) from error
    return wandb
