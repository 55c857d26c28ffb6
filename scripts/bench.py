"""What benchmarks share: the clock, and figures as a table and as JSON.

A script measures, puts its figures together and hands them to `publish`:

    options = bench.parser(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    bench.publish([Figure("store/read", gigabytes / bench.timed(read).clock, "GB/s", "higher")], options.json)
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple


@dataclass(frozen=True)
class Figure:
    """One measured number; `target` is the bar that it has to reach, where there is one."""

    name: str
    value: float
    unit: str
    better: Literal["lower", "higher", "neither"] = "lower"
    target: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None or self.better == "neither":
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target


class Seconds(NamedTuple):
    """How long something took: on the clock, and of processor time over all threads."""

    clock: float
    processor: float


def timed(run: Callable[[], Any]) -> Seconds:
    """Run something once and say how long it took."""
    started, worked = time.perf_counter(), time.process_time()
    run()
    return Seconds(time.perf_counter() - started, time.process_time() - worked)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has; its help begins with the script's own docstring."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", type=Path, help="also write the figures there")
    options.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch; all cores by default")
    return options


def publish(figures: Sequence[Figure], path: Path | None = None) -> None:
    """Print figures as a table; where a path is given, also write them as a JSON list of their fields."""
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        verdict = {None: "", True: "reached", False: "MISSED"}[figure.reached]
        goal = f"  (target {figure.target:g}: {verdict})" if figure.target is not None else ""
        print(f"{figure.name:<{width}} {figure.value:14.4g} {figure.unit}{goal}")
    if path is not None:
        write(figures, path)


def write(figures: Sequence[Figure], path: Path) -> None:
    """Write figures as a JSON list of their fields, in place of what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
