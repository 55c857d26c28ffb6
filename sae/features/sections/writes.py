"""What latents do to the output of their subject: logits and losses of text, captions and words near them in CLIP."""

import logging
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.dictionaries.sites import output_sites, site_decoders
from sae.errors import CatalogError
from sae.evaluation.joint_space import joint_places, text_cosines
from sae.evaluation.responses import Responses
from sae.features.cards import rounded
from sae.features.rounding import all_rounded, pairs
from sae.features.show import token_decoder
from sae.subjects.base import ImageTextSubject, Subject, WritesLogits
from sae.subjects.residual import stream_map

Section = dict[str, Any]

logger = logging.getLogger(__name__)

_LOGITS_AT_ONCE = 1 << 22
"""Logits held at a time."""


class Losses(Protocol):
    """What gives the ablation losses of latents (see `ablation.AblationLosses`)."""

    def of(self, latents: range) -> list[Section | None]: ...


class LogitWrites:
    """The tokens that latents make more and less probable, by their direct path to the logits.

    A latent's direction, mapped to the residual stream where it lies before a linear layer, is multiplied with the
    unembedding; the final norm's centring and weights count, its scale does not, and the mean over the vocabulary is
    taken off (see `LanguageSubject.direct_logits`). So the values are logits per unit of activation, up to a factor
    that depends on the text and is the same for all tokens. Of several sites that are written the last one counts.

    Args:
        dictionary: whose latents.
        subject: which they were learned from.
        losses: adds what ablating a latent does to the loss.
        n_tokens: tokens in either direction.
        n_bins: of the histogram over the vocabulary.
        decode: the text of a token; by the subject's tokenizer if not given.

    Raises:
        CatalogError: what the dictionary writes has no direct path to logits; ask `has_logits` first.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        subject: Subject,
        losses: Losses | None = None,
        n_tokens: int = 10,
        n_bins: int = 40,
        decode: Any = None,
    ) -> None:
        to_stream = _to_stream(dictionary, subject)
        if to_stream is None or not isinstance(subject, WritesLogits):
            raise CatalogError(f"{subject.id}: {dictionary!r} writes nothing that reaches logits by a linear path.")
        self.subject, self.losses, self.n_tokens, self.n_bins = subject, losses, n_tokens, n_bins
        self._directions, self._to_stream = site_decoders(dictionary)[-1], to_stream
        self._decode = cache(decode or token_decoder(subject))

    @staticmethod
    def has_logits(dictionary: Dictionary, subject: Subject) -> bool:
        """Whether what the dictionary writes has a direct path to logits of the next token."""
        predicts = getattr(subject, "predicts_next_token", False)
        return predicts and isinstance(subject, WritesLogits) and _to_stream(dictionary, subject) is not None

    def of(self, latents: range) -> list[Section | None]:
        """Return the section "writes"; None for latents that write nothing."""
        losses = self.losses.of(latents) if self.losses else [None] * len(latents)
        sections = [section for block in self._blocks(latents) for section in self._described(block)]
        return [
            None if section is None else section | ({"loss": loss} if loss else {})
            for section, loss in zip(sections, losses, strict=True)
        ]

    def _blocks(self, latents: range) -> Iterator[Float[Tensor, "block vocab"]]:
        n_vocab = self.subject.direct_logits(self._to_stream[:1]).shape[1]
        size = max(1, _LOGITS_AT_ONCE // n_vocab)
        for rows in self._directions[latents.start : latents.stop].split(size):
            yield self.subject.direct_logits(rows.float().cpu() @ self._to_stream)

    def _described(self, logits: Float[Tensor, "block vocab"]) -> Iterator[Section | None]:
        up, down = (logits.topk(min(self.n_tokens, logits.shape[1]), largest=largest) for largest in (True, False))
        shapes = histograms(logits, self.n_bins)
        for row, shape in enumerate(shapes):
            if not logits[row].any():
                yield None
                continue
            yield {
                "up": self._named(up.indices[row], up.values[row]),
                "down": self._named(down.indices[row], down.values[row]),
                "histogram": shape,
            }

    def _named(self, tokens: Tensor, values: Tensor) -> list[list[Any]]:
        return pairs(map(self._decode, tokens.tolist()), values.tolist())


class CaptionWrites:
    """The captions and words that stand nearest to latents in the joint space of images and texts.

    A latent's place there is the covariance of its activation with the embeddings of the items, and it is compared
    with texts after their mean is taken off, as in `evaluation.joint_space.text_agreement`. `alignment` is the largest
    cosine with any word, or any caption where there are no words.

    Args:
        responses: of the latents on items, such as images.
        embedding: of these items in the joint space, of unit length.
        captions: texts, each with its embedding.
        words: likewise.
        n: how many of each to name.

    Attributes:
        places: of all latents in the joint space, [d_sae d_joint]; lengths mean nothing, a silent latent has none.
    """

    def __init__(
        self,
        responses: Responses,
        embedding: Float[Tensor, "items d_joint"],
        captions: tuple[Sequence[str], Float[Tensor, "captions d_joint"]],
        words: tuple[Sequence[str], Float[Tensor, "words d_joint"]],
        n: int = 8,
    ) -> None:
        self.n = n
        self._texts = {"captions": captions, "words": words}
        self.places = torch.cat([joint_places(part, embedding).float() for part in responses.parts()])

    @classmethod
    def embedded(
        cls,
        responses: Responses,
        embedding: Float[Tensor, "items d_joint"],
        subject: ImageTextSubject,
        captions: Sequence[str],
        words: Sequence[str],
        n: int = 8,
    ) -> "CaptionWrites":
        """Embed distinct captions, and words, with the subject's text tower first."""
        distinct = list(dict.fromkeys(captions))

        def with_embedding(texts: Sequence[str]) -> tuple[Sequence[str], Tensor]:
            if not texts:
                return texts, torch.zeros(0, embedding.shape[1])
            return texts, subject.zero_shot_classifier([[text] for text in texts]).float().cpu()

        return cls(responses, embedding, with_embedding(distinct), with_embedding(words), n)

    def of(self, latents: range) -> list[Section | None]:
        """Return the section "writes"; None for latents that never vary on the items."""
        places = self.places[latents.start : latents.stop].double()
        sections: list[Section] = [{} for _ in latents]
        for kind, (texts, embedding) in self._texts.items():
            if not len(texts):
                continue
            nearest = text_cosines(places, embedding).topk(min(self.n, len(texts)))
            for section, found, cosines in zip(sections, nearest.indices, nearest.values, strict=True):
                section[kind] = pairs((texts[i] for i in found.tolist()), cosines.tolist())
                section["alignment"] = rounded(float(cosines[0]))
        return [section if place.any() else None for section, place in zip(sections, places, strict=True)]


def histograms(values: Float[Tensor, "rows entries"], n_bins: int) -> list[Section]:
    """Count the entries of every row in bins of equal width from its smallest entry to its largest.

    A row whose entries are all the same has them in its first bin.
    """
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    width = torch.where(high > low, (high - low) / n_bins, 1.0)
    bins = ((values - low) / width).long().clamp(max=n_bins - 1)
    counts = torch.zeros(len(values), n_bins, dtype=torch.int64)
    counts.scatter_add_(1, bins, torch.ones_like(bins))
    edges = low + width * torch.arange(n_bins + 1)
    return [
        {"edges": all_rounded(edge), "counts": count}
        for edge, count in zip(edges.tolist(), counts.tolist(), strict=True)
    ]


def _to_stream(dictionary: Dictionary, subject: Subject) -> Float[Tensor, "d_out d_model"] | None:
    hookpoint = output_sites(dictionary)[-1].hookpoint
    return stream_map(subject, hookpoint) if hookpoint in subject.hookpoints() else None
