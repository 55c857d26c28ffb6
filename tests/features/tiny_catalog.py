"""Subjects and inputs that cost nothing, for catalogs: texts with hostile tokens, and images with patches."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sae.activations.harvest import harvest
from sae.activations.harvest_config import HarvestConfig
from sae.activations.store import ActivationStore
from sae.dictionaries.base import Dictionary
from sae.dictionaries.topk import TopK, TopKConfig
from sae.subjects.base import Hookpoint
from sae.tensors import Batch, Kind, Rows

TEXT, IMAGE, POOLED = "blocks.0.hook_resid_post", "visual.blocks.0.hook_resid_post", "visual.embedding"
WIDTH, N_TOKENS, GRID = 6, 12, (2, 3)
SPELLED = [
    "<bos>",
    "<script>alert(1)</script>",
    " \u202ertl",
    "🦆",
    "x" * 10_000,
    "\n",
    " def",
    "self",
    "(",
    ")",
    '"',
    "'",
]


class Tokenizer:
    def decode(self, tokens: torch.Tensor) -> str:
        return SPELLED[int(tokens[0])]


class TinySubject:
    """Vectors are a fixed function of token, or of the pixel of a patch, and position."""

    def __init__(self, kind: str) -> None:
        self.kind, self.id = kind, f"tiny:{kind}"
        self.table = torch.randn(256, WIDTH, generator=torch.Generator().manual_seed(0))
        if kind == "language":
            self.tokenizer = Tokenizer()

    def hookpoints(self) -> dict[str, Hookpoint]:
        grids = {TEXT: "tokens"} if self.kind == "language" else {IMAGE: "visual.tokens", POOLED: "visual.pooled"}
        return {name: Hookpoint(name, WIDTH, grid) for name, grid in grids.items()}

    def run(self, batch: Batch, hookpoints: Any) -> dict[str, torch.Tensor]:
        ids = batch.tokens if batch.images is None else batch.images[:, 0, 0, : GRID[0] * GRID[1] + 1].long()
        assert ids is not None
        x = self.table[ids] * torch.linspace(0.5, 1.5, ids.shape[1])[None, :, None]
        return {name: x[:, :1] if name == POOLED else x for name in hookpoints}

    def rows(self, batch: Batch, grid: str) -> Rows:
        if batch.images is None:
            assert batch.attended is not None and batch.kind is not None
            return Rows(keep=batch.attended, kind=batch.kind, token=batch.tokens)
        n = 1 if grid == "visual.pooled" else GRID[0] * GRID[1] + 1
        kind = torch.full((len(batch), n), Kind.PATCH, dtype=torch.uint8)
        kind[:, 0] = Kind.POOLED if n == 1 else Kind.CLASS
        return Rows(keep=torch.ones_like(kind, dtype=torch.bool), kind=kind)

    def forward(self, batch: Batch, edits: Any = None, grad: bool = False) -> Any:
        raise NotImplementedError("a catalog reads; it does not run to the end")

    def patch_grid(self, grid: str) -> tuple[int, int]:
        return GRID

    def provenance(self) -> dict[str, Any]:
        return {"weights_sha256": "0"}


class TinyInputs:
    """Texts of 3 to 9 tokens behind a BOS, or images of eight by eight pixels with a caption."""

    def __init__(self, kind: str, n_examples: int = 40) -> None:
        self.kind, self.n_examples = kind, n_examples
        self.fingerprint = hashlib.sha256(f"{kind} {n_examples}".encode()).hexdigest()
        if kind == "clip":
            self.references = self._references

    def __len__(self) -> int:
        return self.n_examples

    def batch(self, start: int, stop: int) -> Batch:
        if self.kind == "clip":
            return Batch(first_example=start, images=torch.stack([self.image(one) for one in range(start, stop)]))
        texts = [self.tokens(example) for example in range(start, stop)]
        shape = (len(texts), max(map(len, texts)))
        tokens, attended = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
        for row, text in enumerate(texts):
            tokens[row, : len(text)] = torch.from_numpy(text)
            attended[row, : len(text)] = True
        kind = torch.full(shape, Kind.TOKEN, dtype=torch.uint8)
        kind[:, 0] = Kind.BOS
        return Batch(first_example=start, tokens=tokens, attended=attended, kind=kind)

    def tokens(self, example: int) -> np.ndarray:
        random = np.random.default_rng(example)
        return np.concatenate([[0], random.integers(1, N_TOKENS, random.integers(3, 10))])

    def image(self, example: int) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng(example).integers(0, 256, (3, 8, 8), dtype=np.uint8))

    def describe(self) -> dict[str, Any]:
        return {"kind": "tiny", "n_examples": self.n_examples}

    def _references(self, start: int, stop: int) -> list[dict[str, Any]]:
        return [
            {"index": one, "caption": f"a photo of thing {one % 4}", "box": [0, 0, 8, 8]} for one in range(start, stop)
        ]


def tiny_store(folder: Path, kind: str) -> tuple[ActivationStore, TinySubject, TinyInputs]:
    """Harvest a store of a kind of subject, "language" or "clip"."""
    subject, inputs = TinySubject(kind), TinyInputs(kind)
    settings = HarvestConfig(
        subject=subject.id, hookpoints=tuple(subject.hookpoints()), out=folder, batch_examples=4, shard_examples=16
    )
    return harvest(subject, inputs, settings), subject, inputs


def tiny_dictionary(store: ActivationStore, hookpoint: str, d_sae: int = 20) -> Dictionary:
    """Draw a dictionary; its last latent never fires."""
    dictionary = TopK(TopKConfig(d_sae=d_sae, k=3), WIDTH)
    vectors = store.vectors(hookpoint)
    x = vectors.read(0, min(100, len(vectors)))
    dictionary.initialise(x, torch.Generator().manual_seed(0))
    with torch.no_grad():
        dictionary.b_enc[-1] = -1e6
    dictionary.provenance = {"subject": store.subject_id, "hookpoint": hookpoint}
    return dictionary
