"""A sentence as the latents see it: every token with those that fire on it most."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from sae.features.cards import rounded
from sae.features.live.given import MOST_CHARACTERS, Texts, field
from sae.features.live.loaded import Loaded
from sae.features.live.reading import Read, read
from sae.features.show import token_decoder
from sae.tensors import Kind

MOST_PER_TOKEN = 16
"""Latents named at each token: as many by activation, and as many by their share of what they reach."""


class SentenceAsk:
    """Answers {"text": ...} with its tokens and the latents that fire on them.

    >>> SentenceAsk(loaded).answer("import os")  # doctest: +SKIP

    Args:
        loaded: a catalog of a dictionary that reads text.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self._texts = Texts(loaded.subject, loaded.inputs)
        self._decode = token_decoder(loaded.subject)
        self.about = {"pooled": loaded.pooled, "most_characters": MOST_CHARACTERS}

    @classmethod
    def of(cls, loaded: Loaded) -> "SentenceAsk | None":
        """Return what answers; None where the dictionary reads images."""
        return None if loaded.reads_images else cls(loaded)

    def __call__(self, question: Mapping[str, Any]) -> dict[str, Any]:
        return self.answer(field(question, "text", str))

    def answer(self, text: str) -> dict[str, Any]:
        """Return tokens and latents of a text.

        Returns:
            `tokens`: of each its `text`, its `kind` as stores call it ("token", "bos", "special", "eot"), whether
            there is a vector (`read`; catalogs leave BOS and special tokens out), and the sum of all activations
            (`total`). Where one vector stands for the whole text, that is the only token.
            `latents`: those among the strongest of any token: `index`, `title`, `max` in the catalog, and `at`, the
            position, activation and share of `max` (null where that is not known) wherever they fire.

        Raises:
            InputsError: the text is empty or too long.
            SubjectError: it is longer than the subject takes.
        """
        batch = self._texts.batch([text])
        found = read(self.loaded, [batch])
        if self.loaded.pooled:
            tokens = [{"text": text, "kind": Kind.POOLED.name.lower()}]
        else:
            assert batch.tokens is not None
            rows = self.loaded.subject.rows(batch, self.loaded.grid)
            shown = zip(batch.tokens[0].tolist(), rows.kind[0].tolist(), rows.keep[0].tolist(), strict=True)
            tokens = [
                {"text": self._decode(token), "kind": Kind(kind).name.lower()} for token, kind, keep in shown if keep
            ]
        totals = torch.zeros(len(found.x)).index_add_(0, found.codes.rows, found.codes.values.float())
        total_at = dict(zip(found.position.tolist(), totals.tolist(), strict=True))
        for position, token in enumerate(tokens):
            token |= {"read": position in total_at, "total": rounded(total_at.get(position, 0.0))}
        return {"tokens": tokens, "latents": self._latents(found)}

    def _latents(self, found: Read) -> list[dict[str, Any]]:
        loaded, codes = self.loaded, found.codes
        at: dict[int, list[tuple[int, float, float | None]]] = defaultdict(list)
        by_token: dict[int, list[tuple[float, float, int]]] = defaultdict(list)
        entries = zip(found.position[codes.rows].tolist(), codes.indices.tolist(), codes.values.tolist(), strict=True)
        for position, latent, value in entries:
            if value > 0:
                share = loaded.share(latent, value)
                at[latent].append((position, value, share))
                by_token[position].append((value, share or 0.0, latent))
        named: dict[int, None] = {}
        for fired in by_token.values():
            for way in (0, 1):
                strongest = sorted(fired, key=lambda one: one[way], reverse=True)[:MOST_PER_TOKEN]
                named |= dict.fromkeys(latent for _, _, latent in strongest)
        return [
            {
                "index": latent,
                "title": loaded.title(latent),
                "max": rounded(loaded.strongest[latent]),
                "at": [
                    [position, rounded(value), None if share is None else rounded(share)]
                    for position, value, share in at[latent]
                ],
            }
            for latent in sorted(named)
        ]
