"""`sae serve` and `sae export`."""

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from sae import cli
from sae.server.run import open_port


def test_the_socket_listens_on_the_loopback_address_alone() -> None:
    with open_port(0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


def test_a_served_catalog_answers_until_it_is_interrupted(text_catalog: Path) -> None:
    command = [sys.executable, "-m", "sae.cli", "serve", str(text_catalog), "--port", "0"]
    served = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert served.stdout is not None
        told = served.stdout.readline() + served.stdout.readline()
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+/", told)
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert b'data-source="server"' in answer.read()
        served.send_signal(signal.SIGINT)
        assert served.wait(timeout=20) in (0, 130)
    finally:
        served.kill()
        served.wait()
        served.stdout.close()


def test_one_card_is_written_as_one_file(text_catalog: Path, tmp_path: Path) -> None:
    out = tmp_path / "card.html"
    assert cli.main(["export", str(text_catalog), "--card", "latent/5", "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_an_export_replaces_an_earlier_one_and_nothing_else(image_catalog: Path, tmp_path: Path) -> None:
    assert cli.main(["export", str(image_catalog), "--out", str(tmp_path / "site")]) == 0
    (tmp_path / "site" / "images" / "left-over.png").write_bytes(b"")
    assert cli.main(["export", str(image_catalog), "--out", str(tmp_path / "site")]) == 0
    assert not (tmp_path / "site" / "images" / "left-over.png").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert cli.main(["export", str(image_catalog), "--out", str(tmp_path / "mine")]) == 2
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "{catalog}", "--port", "web"], "must be a number"),
        (["serve", "{catalog}", "--port", "99999"], "cannot be opened"),
        (["serve", "/nowhere"], "is this the folder of a catalog"),
        (["export", "{catalog}"], "--out: name the folder"),
        (["export", "{catalog}", "--out", "x.html", "--card", "123"], "must be KIND/NUMBER"),
        (["export", "{catalog}", "--out", "x.html", "--card", "latnt/3"], "Did you mean 'latent'"),
        (["export", "{catalog}", "--out", "x.html", "--card", "latent/9999"], "numbered 0 to 699"),
    ],
)
def test_errors_say_what_is_wrong(text_catalog: Path, arguments: list[str], message: str, capsys) -> None:
    assert cli.main([word.format(catalog=text_catalog) for word in arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_taken_port_is_said_so(text_catalog: Path, capsys) -> None:
    with open_port(0) as taken:
        taken.listen()
        assert isinstance(taken, socket.socket)
        assert cli.main(["serve", str(text_catalog), "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot be opened" in capsys.readouterr().err
