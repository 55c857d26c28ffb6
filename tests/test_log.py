import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from sae import log
from sae.errors import ConfigError


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Pretend that stderr is a terminal; what is drawn there is returned."""
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=160)
    monkeypatch.setattr(log, "console", lambda: console)
    return drawn


@pytest.fixture
def lines(tmp_path: Path):
    def read() -> list[dict[str, float]]:
        return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]

    return read


class TestProgress:
    def test_a_plain_line_names_what_is_done_and_left(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(log, "interactive", lambda: False)
        monkeypatch.setattr(log, "PLAIN_INTERVAL_SECONDS", 0.0)
        with caplog.at_level(logging.INFO, "sae"), log.progress("Train", total=4000, unit="vectors") as bar:
            bar.show(loss=0.5)
            bar.advance(1000)
        (record,) = caplog.records
        assert record.message.startswith("Train: 1,000/4,000 vectors (25%), ")
        assert "vectors/s" in record.message
        assert "left" in record.message
        assert record.message.endswith("loss 0.5")

    def test_plain_lines_are_rare(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setattr(log, "interactive", lambda: False)
        with caplog.at_level(logging.INFO, "sae"):
            assert list(log.track(range(50), "Read")) == list(range(50))
        assert not caplog.records

    def test_a_terminal_gets_a_bar(self, terminal: io.StringIO) -> None:
        with log.progress("Train", total=100, unit="vectors") as bar:
            bar.advance(60)
            bar.show(FVU=0.25)
        assert "60/100" in terminal.getvalue()
        assert "FVU 0.25" in terminal.getvalue()

    def test_vectors_of_an_earlier_run_do_not_count_for_the_rate(self) -> None:
        bar = log.Bar("Train", 100, "vectors")
        bar.skip(50)
        assert (bar.done, bar.rate) == (50, 0.0)


class TestTable:
    def test_plain_text_is_aligned(self, capsys: pytest.CaptureFixture[str]) -> None:
        log.table(["metric", "value"], [["fvu", 0.123456], ["n", 20000]], title="Report")
        assert capsys.readouterr().out.splitlines() == [
            "Report",
            "metric  value",
            "------  ------",
            "fvu     0.1235",
            "n       20,000",
        ]


class TestMetricLog:
    def test_one_line_per_write(self, tmp_path: Path, lines) -> None:
        with log.MetricLog(tmp_path) as metrics:
            metrics.write(1, {"loss": 0.5})
            metrics.write(2, {"loss": float("nan")})
        assert lines() == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}]

    def test_resuming_cuts_off_what_came_after_the_saved_state(self, tmp_path: Path, lines) -> None:
        with log.MetricLog(tmp_path) as metrics:
            metrics.write(1, {"loss": 3.0})
            state = json.loads(json.dumps(metrics.state_dict()))
            metrics.write(2, {"loss": 2.0})
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 3, "lo')
        with log.MetricLog(tmp_path, state=state) as metrics:
            metrics.write(2, {"loss": 1.0})
        assert lines() == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 1.0}]

    def test_a_new_run_starts_an_empty_file(self, tmp_path: Path, lines) -> None:
        for loss in (1.0, 2.0):
            with log.MetricLog(tmp_path) as metrics:
                metrics.write(1, {"loss": loss})
        assert lines() == [{"step": 1, "loss": 2.0}]

    def test_asking_for_wandb_without_having_it_names_the_extra(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "wandb", None)
        with pytest.raises(ConfigError, match=r"sae-dictionaries\[wandb\]"):
            log.MetricLog(tmp_path, wandb="offline")

    def test_an_unreachable_wandb_goes_on_offline(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lines
    ) -> None:
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr(log, "WANDB_TIMEOUT_SECONDS", 1.0)
        with log.MetricLog(tmp_path, wandb="online") as metrics:
            metrics.write(1, {"loss": 0.5})
        assert "could not start online" in caplog.text
        assert lines() == [{"step": 1, "loss": 0.5}]
        assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_importing_says_nothing_and_leaves_wandb_alone() -> None:
    script = "import sae.log, sys; sys.exit('wandb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_resumed_log_knows_its_length_before_it_is_written_to(tmp_path: Path) -> None:
    with log.MetricLog(tmp_path) as first:
        first.write(1, {"loss": 1.0})
        state = first.state_dict()
        first.write(2, {"loss": 2.0})
    with log.MetricLog(tmp_path, state=state) as second:
        assert second.state_dict() == state
