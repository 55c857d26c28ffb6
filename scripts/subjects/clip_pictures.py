"""Pictures to train the CLIP subjects on: rendered once into shards on disk, then read many times with small jitter."""

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sae.inputs.concepts import ConceptInputs, World

log = logging.getLogger(__name__)

FACETS = ("photo", "sketch", "word", "symbol")
DRAWN_FACETS = {"uniform": (0.32, 0.16, 0.42, 0.10), "written": (0.65, 0.25, 0.0, 0.10)}
"""Shares of the facets where concepts are drawn with equal chances; reading is the hard part, so words lead."""
SHARD = 10_000
STARTS = {"uniform": 0, "natural": 50_000_000, "written": 70_000_000}
"""First scene number of every kind: equal chances, by Zipf, and equal chances with a word written across."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Pictures [n, size, size, 3] uint8 with concept and facet numbers [n] and captions.

    Where the caption is about a word across the picture, so are concept and facet.
    """

    images: np.ndarray
    concepts: np.ndarray
    facets: np.ndarray
    captions: list[str]


def _render(folder: Path, seed: int, size: int, kind: str, number: int) -> Path:
    """Render one shard, unless it is there already."""
    stem = folder / f"{kind}-{number:03d}"
    if stem.with_suffix(".json").exists():
        return stem
    world = World(seed=seed, size=size)
    inputs = ConceptInputs(world, "subject", 1, written=1.0 if kind == "written" else 0.0)
    images = np.empty((SHARD, size, size, 3), np.uint8)
    concepts, facets, captions = [], [], []
    dice = np.random.default_rng([seed, number]).random(SHARD)
    for row in range(SHARD):
        index = STARTS[kind] + number * SHARD + row
        facet = (
            FACETS[int(np.searchsorted(np.cumsum(DRAWN_FACETS[kind])[:-1], dice[row]))]
            if kind in DRAWN_FACETS
            else None
        )
        scene = world.scene("subject", index, facet=facet, uniform=kind != "natural")
        across = inputs.across(scene)
        read = across is not None and across.named
        images[row] = inputs.picture(scene)
        concepts.append(world.concept(across.writing.word if read else scene.concept).number)
        facets.append(FACETS.index("word" if read else scene.facet))
        captions.append(inputs.caption(scene))
    np.save(stem.with_suffix(".npy"), images)
    labels = {"concepts": concepts, "facets": facets, "captions": captions}
    stem.with_suffix(".json").write_text(json.dumps(labels))
    log.info("rendered %s", stem.name)
    return stem


def render_shards(work: Path, seed: int, size: int, kind: str, n_shards: int, n_workers: int) -> list[Path]:
    """Render the missing shards of a kind ("uniform", "natural" or "written") and return all of them, in order."""
    folder = work / f"pictures-{seed}-{size}"
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(n_workers) as pool:
        jobs = [pool.submit(_render, folder, seed, size, kind, number) for number in range(n_shards)]
        return [job.result() for job in jobs]


def load_shard(stem: Path) -> Shard:
    """Map a shard into memory."""
    labels = json.loads(stem.with_suffix(".json").read_text())
    images = np.load(stem.with_suffix(".npy"), mmap_mode="r")
    concepts, facets = np.array(labels["concepts"]), np.array(labels["facets"])
    return Shard(images=images, concepts=concepts, facets=facets, captions=labels["captions"])


class Pictures:
    """All shards of one kind as one sequence, drawn from with replacement."""

    def __init__(self, stems: list[Path]):
        self.shards = [load_shard(stem) for stem in stems]
        self.concepts = torch.from_numpy(np.concatenate([shard.concepts for shard in self.shards]))
        self.facets = torch.from_numpy(np.concatenate([shard.facets for shard in self.shards]))

    def __len__(self) -> int:
        return len(self.concepts)

    def captions(self) -> list[str]:
        return [text for shard in self.shards for text in shard.captions]

    def images(self, rows: list[int]) -> Tensor:
        """Return the pictures [n, 3, size, size] uint8 of some rows."""
        places = [divmod(row, SHARD) for row in rows]
        images = np.stack([self.shards[shard].images[row] for shard, row in places])
        return torch.from_numpy(images).permute(0, 3, 1, 2)


def jittered(images: Tensor, generator: torch.Generator, reach: int = 3) -> Tensor:
    """Return pictures moved by up to `reach` pixels each way and with brightness and contrast changed a little."""
    n, _, side, _ = images.shape
    padded = torch.nn.functional.pad(images.float(), (reach,) * 4, mode="replicate")
    moves = torch.randint(0, 2 * reach + 1, (2, n), generator=generator)
    line = torch.arange(side)
    rows, columns = moves[0][:, None] + line, moves[1][:, None] + line
    moved = padded.permute(0, 2, 3, 1)[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    gain = 1 + 0.2 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    offset = 30 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    return (moved * gain + offset).clamp(0, 255).permute(0, 3, 1, 2)


def draws(n: int, weights: Tensor, generator: torch.Generator) -> Iterator[list[int]]:
    """Yield lists of `n` rows for ever, drawn with the given weight per row."""
    while True:
        chosen = torch.multinomial(weights, 200 * n, replacement=True, generator=generator)
        for start in range(0, len(chosen), n):
            yield chosen[start : start + n].tolist()
