"""How long a page of a large catalog takes in Chromium on the loopback address, and how heavy it is.

The catalog is synthetic: 131,072 cards with every section, in their real format. Usage: python -m scripts.bench_page
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import uvicorn
from playwright.sync_api import Page, sync_playwright

from sae.features.catalog import CARDS_PER_SHARD, About, Catalog, shard_path, write_columns, write_json, write_shard
from sae.server.app import create_app
from sae.server.run import HOST, open_port

sys.path.append(str(Path(__file__).parents[1] / "tests" / "server"))
from toy_catalog import toy_card, toy_columns, toy_overview

N_CARDS = 131_072
N_DISTINCT = 32
REPEATS = 7
PAINTED = """() => new Promise((resolve) => new PerformanceObserver((list) => resolve(list.getEntries()[0].renderTime))
  .observe({ type: "element", buffered: true }))"""
WEIGHT = "performance.getEntriesByType('resource').reduce((sum, one) => sum + one.encodedBodySize, 0)"
SHOWN = 'main[data-shown="{}"]:not([aria-busy])'


def write_large(folder: Path) -> Path:
    """Write one shard and copy it: what a page reads does not depend on what the other shards hold."""
    cards = [toy_card("latent", 1 + i, "text", N_CARDS) for i in range(N_DISTINCT)]
    shelf = folder / "latents"
    write_shard(shelf, 0, [card.packed() for card in cards] * (CARDS_PER_SHARD // N_DISTINCT))
    for number in range(1, N_CARDS // CARDS_PER_SHARD):
        shutil.copyfile(shard_path(shelf, 0), shard_path(shelf, number))
    write_columns(shelf, toy_columns(N_CARDS))
    write_json(
        shelf / "words.json", [(cards[i % N_DISTINCT].title, f"{i} " + "some tokens " * 20) for i in range(N_CARDS)]
    )
    write_json(folder / "overview.json", toy_overview("text"))
    names = {"dictionary": {}, "subject": "synthetic", "hookpoint": "", "store": "", "modality": "text"}
    About(**names, n_vectors=10**7, n_examples=10**5, counts={"latents": N_CARDS}, complete=True).save(folder)
    return folder


def measure(page: Page, address: str) -> list[dict[str, object]]:
    """Open a card anew, again and again, until its title is painted; then overview, a sort and a search, once each."""
    paints = []
    for number in range(REPEATS):
        hash = f"#/latent/{1 + number * 1013}"
        page.goto("about:blank")
        page.goto(address + hash)
        page.wait_for_selector(SHOWN.format(hash))
        paints.append(page.evaluate(PAINTED) / 1000)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(800)
    weight = page.evaluate(WEIGHT) / 1000
    start = time.perf_counter()
    page.keyboard.press("j")
    page.wait_for_selector(SHOWN.format(f"#/latent/{2 + (REPEATS - 1) * 1013}"))
    following = time.perf_counter() - start
    page.goto("about:blank")
    start = time.perf_counter()
    page.goto(address)
    page.wait_for_selector(".rows .row")
    overview = time.perf_counter() - start
    start = time.perf_counter()
    page.click('[role=columnheader] button:text-is("strongest")')
    page.wait_for_selector('[aria-sort="descending"]:has-text("strongest")')
    sort = time.perf_counter() - start
    start = time.perf_counter()
    page.goto(f"{address}#/search?q=131000")
    page.wait_for_selector(".hits a")
    search = time.perf_counter() - start
    values = {
        "card: painted after navigation, median": (statistics.median(paints), "s", 0.3),
        "card: all that is loaded, pages and two prefetched cards included": (weight, "kB", 150),
        "next card by key": (following, "s", None),
        "overview with table": (overview, "s", None),
        "sort": (sort, "s", None),
        "search, words read first": (search, "s", None),
    }
    return [{"name": k, "value": v, "unit": u, "better": "lower", "target": t} for k, (v, u, t) in values.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    out = parser.parse_args().json
    with tempfile.TemporaryDirectory() as folder, open_port(0) as listening, sync_playwright() as playwright:
        catalog = Catalog.open(write_large(Path(folder)))
        server = uvicorn.Server(uvicorn.Config(create_app(catalog), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        figures = measure(browser.new_page(), f"http://{HOST}:{listening.getsockname()[1]}/")
        browser.close()
        server.should_exit = True
        thread.join(timeout=20)
    for figure in figures:
        print(f"{figure['name']:<66} {figure['value']:8.3g} {figure['unit']}")
    if out is not None:
        out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
