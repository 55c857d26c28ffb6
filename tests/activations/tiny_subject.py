"""A subject and inputs that cost nothing: vectors are a fixed function of token and position."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sae.activations.harvest_config import HarvestConfig
from sae.activations.writer import CONFIG_NAME
from sae.subjects.base import Hookpoint
from sae.tensors import Batch, Kind, Rows

RESID, MLP, POOLED = "blocks.0.hook_resid_post", "blocks.0.mlp.hook_post", "text.embedding"
N_TOKENS = 40


class TinySubject:
    id, kind = "tiny:one", "language"

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.tables = {
            name: torch.randn(N_TOKENS, d_in, generator=generator) + 3.0
            for name, d_in in ((RESID, 8), (MLP, 12), (POOLED, 6))
        }

    def hookpoints(self) -> dict[str, Hookpoint]:
        grids = {RESID: "tokens", MLP: "tokens", POOLED: "pooled"}
        return {name: Hookpoint(name, table.shape[1], grids[name]) for name, table in self.tables.items()}

    def run(self, batch: Batch, hookpoints: Any) -> dict[str, torch.Tensor]:
        place = torch.linspace(0.5, 1.5, batch.tokens.shape[1])[None, :, None]
        out = {name: self.tables[name][batch.tokens] * place for name in hookpoints}
        return {name: x[:, :1] if name == POOLED else x for name, x in out.items()}

    def rows(self, batch: Batch, grid: str) -> Rows:
        if grid == "pooled":
            kind = torch.full((len(batch), 1), Kind.POOLED, dtype=torch.uint8)
            return Rows(keep=torch.ones_like(kind, dtype=torch.bool), kind=kind)
        return Rows(keep=batch.attended, kind=batch.kind, token=batch.tokens)

    def provenance(self) -> dict[str, Any]:
        return {"weights_sha256": "0", "bos": True}


class TinyInputs:
    """Texts of 3 to 9 tokens behind a BOS, padded to the longest of the batch."""

    def __init__(self, n_examples: int = 22, seed: int = 0) -> None:
        self.n_examples, self.seed = n_examples, seed
        self.fingerprint = hashlib.sha256(f"{n_examples} {seed}".encode()).hexdigest()

    def __len__(self) -> int:
        return self.n_examples

    def tokens(self, example: int) -> np.ndarray:
        random = np.random.default_rng([self.seed, example])
        return np.concatenate([[0], random.integers(1, N_TOKENS, random.integers(3, 10))])

    def batch(self, start: int, stop: int) -> Batch:
        texts = [self.tokens(example) for example in range(start, stop)]
        shape = (len(texts), max(map(len, texts)))
        tokens, attended = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
        for row, text in enumerate(texts):
            tokens[row, : len(text)] = torch.from_numpy(text)
            attended[row, : len(text)] = True
        kind = torch.full(shape, Kind.TOKEN, dtype=torch.uint8)
        kind[:, 0] = Kind.BOS
        return Batch(first_example=start, tokens=tokens, attended=attended, kind=kind)

    def describe(self) -> dict[str, Any]:
        return {"kind": "tiny", "n_examples": self.n_examples}

    def references(self, start: int, stop: int) -> list[dict[str, Any]]:
        return [{"file": f"{example}.png"} for example in range(start, stop)]


def settings(out: Path, **changes: Any) -> HarvestConfig:
    given: dict[str, Any] = {
        "subject": "tiny:one",
        "hookpoints": (RESID, POOLED, MLP),
        "out": out,
        "batch_examples": 2,
        "shard_examples": 6,
    }
    return HarvestConfig(**(given | changes))


def expected(inputs: TinyInputs, subject: TinySubject, hookpoint: str, batch_examples: int = 2) -> torch.Tensor:
    """All rows of a token hookpoint in float32, one batch after another."""
    parts = []
    for start in range(0, len(inputs), batch_examples):
        batch = inputs.batch(start, min(start + batch_examples, len(inputs)))
        parts.append(subject.run(batch, [hookpoint])[hookpoint][batch.attended])
    return torch.cat(parts)


def tree(store: Path) -> dict[str, str]:
    """Hash of every file of a store but its settings, which say where it lies."""
    files = sorted(path for path in store.rglob("*") if path.is_file() and path.name != CONFIG_NAME)
    return {str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
