"""A subject whose way from one hookpoint to the next is a known linear map, and a catalog of a dictionary there."""

from types import SimpleNamespace
from typing import Any

import torch

from sae.dictionaries.base import Dictionary
from sae.dictionaries.topk import TopK, TopKConfig
from sae.features.cards import Card
from sae.features.live.loaded import Loaded
from sae.subjects.base import Hookpoint
from sae.tensors import Batch, Kind, Rows

A, B, C = "blocks.0.hook_resid_pre", "blocks.0.hook_resid_mid", "blocks.0.hook_resid_post"
WIDTH, N_VOCAB, N_TEXTS, LENGTH = 6, 11, 20, 7


class Tokenizer:
    def decode(self, tokens: torch.Tensor) -> str:
        return f"t{int(tokens[0])}"


class ChainSubject:
    """x_A looks tokens up; x_B = x_A M + (x_A one position earlier) S; x_C = x_B N; logits = x_C U."""

    id, kind, predicts_next_token = "chain:one", "language", True
    tokenizer = Tokenizer()

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        draw = lambda *shape: torch.randn(*shape, generator=generator) / shape[0] ** 0.5  # noqa: E731
        self.table, self.M, self.S, self.N = draw(N_VOCAB, WIDTH) * 4, *(draw(WIDTH, WIDTH) for _ in range(3))
        self.U = draw(WIDTH, N_VOCAB)

    def hookpoints(self) -> dict[str, Hookpoint]:
        return {name: Hookpoint(name, WIDTH, "tokens") for name in (A, B, C)}

    def rows(self, batch: Batch, grid: str) -> Rows:
        assert batch.attended is not None and batch.kind is not None
        return Rows(keep=batch.attended, kind=batch.kind, token=batch.tokens)

    def run(self, batch: Batch, hookpoints: Any) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        self.forward(batch, {name: lambda x, name=name: found.setdefault(name, x) for name in hookpoints})
        return found

    def forward(self, batch: Batch, edits: Any = None, grad: bool = False) -> torch.Tensor:
        edits = edits or {}
        with torch.set_grad_enabled(grad):
            a = edits.get(A, torch.Tensor.clone)(self.table[batch.tokens])
            earlier = torch.cat([torch.zeros_like(a[:, :1]), a[:, :-1]], dim=1)
            b = edits.get(B, torch.Tensor.clone)(a @ self.M + earlier @ self.S)
            return edits.get(C, torch.Tensor.clone)(b @ self.N) @ self.U

    def direct_logits(self, directions: torch.Tensor) -> torch.Tensor:
        logits = directions @ self.U
        return logits - logits.mean(1, keepdim=True)


class Texts:
    """Random texts behind a BOS."""

    fingerprint = "texts"

    def __init__(self, n_vocab: int = N_VOCAB) -> None:
        self.tokens = torch.randint(1, n_vocab, (N_TEXTS, LENGTH), generator=torch.Generator().manual_seed(2))
        self.tokens[:, 0] = 0

    def __len__(self) -> int:
        return N_TEXTS

    def batch(self, start: int, stop: int) -> Batch:
        tokens = self.tokens[start:stop]
        kind = torch.full(tokens.shape, int(Kind.TOKEN), dtype=torch.uint8)
        kind[:, 0] = int(Kind.BOS)
        return Batch(first_example=start, tokens=tokens, attended=torch.ones_like(tokens, dtype=torch.bool), kind=kind)


class OneCatalog:
    """Cards that show every example, weak to strong as they come."""

    path = "catalog"

    def __init__(self, dictionary: Dictionary, n_examples: int) -> None:
        self.about = SimpleNamespace(dictionary={"source": "own", "sha256": dictionary.hash})
        self.shown = [{"low": 0.0, "high": 1.0, "examples": [{"example": i} for i in range(n_examples)]}]

    def __getitem__(self, latent: int) -> Card:
        return Card(
            kind="latent", index=latent, title=f"card {latent}", sections={"examples": {"quantiles": self.shown}}
        )


def drawn_dictionary(subject: Any, reads: str, seed: int, writes: str | None = None, **settings: Any) -> Dictionary:
    """Draw a dictionary with a bias and directions of several lengths; a transcoder if it writes elsewhere."""
    points = subject.hookpoints()
    d_in, d_out = points[reads].d_in, None if writes is None else points[writes].d_in
    dictionary = TopK(TopKConfig(**({"d_sae": 24, "k": 5} | settings)), d_in, d_out).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name in ("W_enc_rows", "W_dec", "b_enc", "b_dec"):
        weight = getattr(dictionary, name)
        weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)
    site = {"subject": subject.id, "hookpoint": reads, "width": d_in}
    dictionary.provenance = {"subject": subject.id, "hookpoint": reads, "sites": [site]}
    if writes is not None:
        dictionary.provenance["target_sites"] = [site | {"hookpoint": writes, "width": d_out}]
    return dictionary.eval()


def loaded_with(subject: Any, inputs: Any, own: Dictionary, others: dict[str, Dictionary]) -> Loaded:
    """Return a catalog of `own` with its subject."""
    catalog: Any = OneCatalog(own, len(inputs))
    return Loaded(catalog, own, subject, inputs, others)
