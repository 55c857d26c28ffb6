"""What a catalog costs: building it beside encoding the store once, memory for many latents, and the weight of a card.

python -m scripts.bench_catalog [--json FILE] [--threads 2] [--latents 131072] [--vectors 10000000]

Times are those of the shipped dictionary of builtin:stdlib-1l on the store of configs/harvest-stdlib-1l-score.yaml,
which is harvested first if need be; the map, and ablations in the subject, are timed apart. Memory is that of a
dictionary whose codes are drawn at random, in a process of its own: the rows cost nothing to encode, so what is
measured is the catalog. Smaller --latents and --vectors make it quick.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae import config
from sae.activations.harvest_config import HarvestConfig
from sae.activations.reopen import open_harvested
from sae.activations.store import TRAINING_KINDS, ActivationStore, Provenance
from sae.dictionaries.codes import Codes
from sae.dictionaries.io import load_dictionary
from sae.dictionaries.topk import TopK, TopKConfig
from sae.features.building.build import Ground, Maker, build
from sae.features.building.catalog_config import CatalogConfig
from sae.features.building.firings import record
from sae.features.building.map import draw_map
from sae.features.building.workers import usable_cores
from sae.features.catalog import CARDS_PER_SHARD, Catalog, Shelf
from sae.features.sections.ablation import AblationLosses
from sae.subjects.base import Hookpoint
from scripts import bench
from scripts.bench import Figure, timed

STORE, RECIPE = Path("runs/stdlib-1l/store-score"), "configs/harvest-stdlib-1l-score.yaml"
DICTIONARY, HOOKPOINT = "builtin:stdlib-1l/blocks.0.mlp.hook_post", "blocks.0.mlp.hook_post"
CHUNK, L0, WIDTH, CONTEXT = 1024, 32, 16, 128
OVER_ENCODING, PEAK_GB, CARD_KB = 2.5, 4.0, 150.0
N_ABLATED, N_ABLATION_EXAMPLES = 64, 4


def bench_build(folder: Path) -> tuple[list[Figure], Catalog]:
    """Build the catalog of a shipped dictionary; encode the same vectors before and after."""
    if not (STORE / "config.yaml").is_file():
        subprocess.run([sys.executable, "-m", "sae.cli", "harvest", RECIPE], check=True)
    dictionary, store = load_dictionary(DICTIONARY), ActivationStore(STORE)
    subject, inputs = open_harvested(config.load(HarvestConfig, STORE / "config.yaml"))
    vectors = store.vectors(HOOKPOINT, TRAINING_KINDS)

    def encode() -> None:
        for start in range(0, len(vectors), CHUNK):
            with torch.no_grad():
                dictionary.encode(vectors.read(start, min(start + CHUNK, len(vectors))))

    before = timed(encode).clock
    settings = CatalogConfig(dictionary=DICTIONARY, store=STORE, out=folder, map=False)
    seconds = timed(lambda: build(dictionary, store, settings, subject, inputs)).clock
    encoding = (before + timed(encode).clock) / 2
    catalog = Catalog.open(folder)
    titles, rates = [title for title, _ in catalog.latents.words], catalog.latents.column("rate")
    layout = timed(lambda: draw_map(dictionary.W_dec, titles, rates > 0)).clock
    ablation = timed(lambda: ablate(AblationLosses(dictionary, subject, inputs, shown(catalog)))).clock
    figures = [
        Figure("catalog/vectors", len(vectors), "vectors", "neither"),
        Figure("catalog/encoding", encoding, "s"),
        Figure("catalog/build", seconds, "s"),
        Figure("catalog/over_encoding", seconds / encoding, "x", target=OVER_ENCODING),
        Figure("catalog/map", layout, "s"),
        Figure("catalog/ablation", ablation / N_ABLATED * 1e3, "ms/latent"),
    ]
    return figures, catalog


def shown(catalog: Catalog) -> np.ndarray:
    """Return the numbers of a few examples of every latent, -1 where there are fewer."""
    found = np.full((len(catalog), N_ABLATION_EXAMPLES), -1, dtype=np.int64)
    for index in range(N_ABLATED):
        own = sorted({ref["example"] for ref in catalog[index].sections.get("examples", {}).get("random", [])})
        found[index, : len(own)] = own[:N_ABLATION_EXAMPLES]
    return found


def ablate(losses: AblationLosses) -> None:
    """Take a few latents out of the subject, each on a few examples."""
    losses.of(range(N_ABLATED))


def bench_weight(catalog: Catalog) -> list[Figure]:
    """Weigh cards as a page receives them, images apart."""
    packed = [catalog.latents.packed(i) for i in range(len(catalog))]
    plain = [len(zlib.decompress(one)) for one in packed]
    return [
        Figure("catalog/card", float(np.mean(plain)) / 1e3, "kB"),
        Figure("catalog/card_heaviest", max(plain) / 1e3, "kB", target=CARD_KB),
        Figure("catalog/card_compressed", float(np.mean([len(one) for one in packed])) / 1e3, "kB"),
    ]


class DrawnCodes(TopK):
    """A dictionary whose every code is drawn at random; a few latents fire far more often than the rest."""

    def select(self, x: Tensor) -> Codes:
        generator = torch.Generator().manual_seed(int(x[0, 0]))
        # The square root of a uniform number would favour high ones; its square favours low ones.
        step = self.d_sae // L0
        drawn = torch.rand(len(x), L0, generator=generator).square().mul(step).long().clamp(max=step - 1)
        values = torch.rand(len(x), L0, generator=generator) + 0.01
        return Codes.from_topk(drawn + torch.arange(L0) * step, values, self.d_sae)


class DrawnRows:
    """As many rows as wanted, in texts of a fixed length, holding nothing but their number."""

    hookpoint = Hookpoint("drawn", WIDTH, "tokens")

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows
        self.store = SimpleNamespace(inputs=self)

    def __len__(self) -> int:
        return self.n_rows

    def read(self, start: int, stop: int) -> Tensor:
        return torch.arange(start, stop)[:, None].expand(-1, WIDTH).float()

    def take(self, rows: Tensor) -> Tensor:
        return rows[:, None].expand(-1, WIDTH).float()

    def provenance(self, start: int, stop: int) -> Provenance:
        rows = torch.arange(start, stop)
        return Provenance(rows // CONTEXT, (rows % CONTEXT).int(), torch.zeros(stop - start, dtype=torch.uint8))

    def tokens(self, example: int) -> Tensor:
        return torch.arange(CONTEXT) + example % 1000


class PeakMemory:
    """The most memory that this process and its children held together, sampled; shared pages count once."""

    def __init__(self) -> None:
        self.peak_gb, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]
            self.peak_gb = max(self.peak_gb, sum(map(_held_gb, processes)))


def _held_gb(process: int) -> float:
    """Return the proportional set size of a process; none for one that has just ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e6


def build_alone(n_latents: int, n_vectors: int) -> None:
    """Make cards of drawn codes; print seconds of recording and of the cards, gigabytes kept and the memory's peak."""
    rows: Any = DrawnRows(n_vectors)
    dictionary = DrawnCodes(TopKConfig(d_sae=n_latents, k=L0), WIDTH)
    spoken: Any = SimpleNamespace(tokenizer=SimpleNamespace(decode=lambda ids: f" w{int(ids[0])}"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = CatalogConfig(dictionary="drawn", store=folder, out=folder)
        recording = timed(lambda: record(dictionary, rows, folder / "firings")).clock
        kept = record(dictionary, rows, folder / "firings")
        size = sum(path.stat().st_size for path in (folder / "firings").iterdir())
        ground = Ground(dictionary, spoken, spoken, rows, settings, "text", "latent", kept)
        shelf = Shelf(folder, "latent", n_latents)
        with PeakMemory() as memory:
            making = timed(lambda: sum(1 for _ in Maker(ground, {}).fill(shelf, usable_cores()))).clock
        shutil.rmtree(folder / "firings")
        cards = sum(path.stat().st_size for path in (folder / "latents").iterdir())
    peak = max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, memory.peak_gb)
    print(json.dumps([recording, making, size / 1e9, cards / 1e9, peak]))


def bench_memory(n_latents: int, n_vectors: int, threads: int) -> list[Figure]:
    """Make the cards of drawn codes in a process of its own."""
    words = ["-m", "scripts.bench_catalog", "--alone", "--latents", str(n_latents), "--vectors", str(n_vectors)]
    command = [sys.executable, *words, "--threads", str(threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    recording, making, firings, cards, peak = json.loads(done.stdout)
    name = f"catalog/{n_latents}_latents_{n_vectors}_vectors"
    return [
        Figure(f"{name}/recording", recording, "s"),
        Figure(f"{name}/cards", making, "s"),
        Figure(f"{name}/disk_while_building", firings, "GB"),
        Figure(f"{name}/disk", cards, "GB"),
        Figure(f"{name}/peak_memory", peak, "GB", target=PEAK_GB),
    ]


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--latents", type=int, default=131_072, help="of the dictionary whose codes are drawn")
    parser.add_argument("--vectors", type=int, default=10_000_000, help="to draw codes for")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.latents < CARDS_PER_SHARD or options.latents % L0:
        parser.error(f"--latents: at least {CARDS_PER_SHARD} and a multiple of {L0}, got {options.latents}")
    torch.set_num_threads(options.threads)
    if options.alone:
        build_alone(options.latents, options.vectors)
        return
    with tempfile.TemporaryDirectory() as folder:
        figures, catalog = bench_build(Path(folder) / "catalog")
        figures += bench_weight(catalog)
    bench.publish(figures + bench_memory(options.latents, options.vectors, options.threads), options.json)


if __name__ == "__main__":
    main()
