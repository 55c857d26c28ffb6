"""Catalogs to look at, a server for each, and one Chromium for all tests of pages."""

import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import uvicorn
from toy_catalog import write_toy_catalog

from sae.features.catalog import Catalog
from sae.server.app import create_app
from sae.server.export import export
from sae.server.live import Ask
from sae.server.run import HOST, open_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="session")
def text_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_catalog(tmp_path_factory.mktemp("catalogs") / "text", n_directions=3)


@pytest.fixture(scope="session")
def image_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_catalog(tmp_path_factory.mktemp("catalogs") / "image", "image", n_latents=40)


@pytest.fixture(scope="session")
def text_page(text_catalog: Path) -> Iterator[str]:
    yield from served(text_catalog)


@pytest.fixture(scope="session")
def image_page(image_catalog: Path) -> Iterator[str]:
    yield from served(image_catalog)


def served(catalog: Path, asks: Mapping[str, Ask] | None = None) -> Iterator[str]:
    listening = open_port(0)
    server = uvicorn.Server(uvicorn.Config(create_app(Catalog.open(catalog), asks), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started
    yield f"http://{HOST}:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join(timeout=20)
    listening.close()


def filed(catalog: Path, folder: Path) -> str:
    """Export a catalog into a folder, and return the address of its pages there."""
    export(Catalog.open(catalog), folder / "site")
    return (folder / "site" / "index.html").as_uri()


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        reason = "no Chromium on this machine: apt-get install chromium"
        if os.environ.get("SAE_TEST_BROWSER") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser):
    """A tab with storage of its own; at the end nothing may have been written to its console, nor any script failed."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
    opened, complaints = context.new_page(), []
    opened.set_default_timeout(10_000)
    opened.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.complaints = complaints
    yield opened
    context.close()
    assert not complaints
