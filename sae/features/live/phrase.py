"""A phrase as the latents see it: those that stand nearest to it in the space that images and texts share."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae.evaluation.joint_space import text_cosines
from sae.features.cards import rounded
from sae.features.live.given import Texts, field
from sae.features.live.loaded import Loaded
from sae.features.live.words import Words, words_and_templates
from sae.subjects.base import ImageTextSubject

JOINT = ("visual.embedding", "text.embedding")
"""Where a latent's own direction is its place in the joint space."""
MOST_LATENTS = 40
HIGH = 0.95
"""Of the other words, this share has a best latent that is no nearer than the control says."""


class PhraseAsk:
    """Answers {"text": ...} with the latents that stand for it.

    A latent's place in the joint space is the covariance of its activation with the images' embeddings, as the catalog
    keeps it, or for a dictionary of embeddings the direction that it writes. The phrase is embedded in every one of the
    templates that the inputs' classes have, and the mean of the inputs' words, embedded alike, is taken off, as image
    and text embeddings lie apart (see `evaluation.joint_space`). Whether a cosine means anything shows beside those of
    other words: `control` in the answer.

    >>> PhraseAsk(loaded).answer("a red kite")  # doctest: +SKIP

    Args:
        loaded: a catalog of a dictionary with places in the joint space; see `of`.
        places: of all latents.
    """

    def __init__(self, loaded: Loaded, places: Float[Tensor, "d_sae d_joint"]) -> None:
        # What never fires stands for nothing, wherever its direction points.
        fires = torch.tensor(loaded.strongest)[:, None] > 0
        self.loaded, self._places = loaded, places.double() * (fires if fires.any() else 1.0)
        self._texts = Texts(loaded.subject, loaded.inputs)
        self._words = Words(loaded.subject, loaded.inputs)
        self.words, self.templates = self._words.names, self._words.templates
        self.about = {"n_words": len(self.words), "words": self.words[:24], "templates": list(self.templates)}

    @classmethod
    def of(cls, loaded: Loaded) -> "PhraseAsk | None":
        """Return what answers; None without a joint space, known words, or places, which older catalogs lack."""
        if not isinstance(loaded.subject, ImageTextSubject) or len(words_and_templates(loaded.inputs)[0]) < 2:
            return None
        if loaded.hookpoints in [(name,) for name in JOINT]:
            return cls(loaded, loaded.dictionary.W_dec.detach().float().cpu())
        places = loaded.catalog.latents.places
        return None if places is None else cls(loaded, torch.from_numpy(places))

    def __call__(self, question: Mapping[str, Any]) -> dict[str, Any]:
        return self.answer(field(question, "text", str))

    def answer(self, text: str) -> dict[str, Any]:
        """Return the latents nearest to a phrase.

        Returns:
            `latents`: of each `index`, `title`, `cosine` with the phrase, and `above`, the share of other words that
            are less near to it, which is small for a latent that is near to everything.
            `control`: what the best cosine of other words is (`median`; one in twenty is below `low`, and one above
            `high`), how many words that is of (`n`), and the share whose best is below this phrase's (`above`).

        Raises:
            InputsError: the phrase is empty or longer than the text tower takes.
        """
        phrase = text.strip()
        self._texts.batch([one.replace("{}", phrase) for one in self.templates] if phrase else [text])
        cosine = self._cosines(self._words.embedded([phrase]))[:, 0]
        others = torch.tensor([word.casefold() != phrase.casefold() for word in self.words])
        word_cosine = self._word_cosines[:, others]
        best = word_cosine.amax(0)
        top = cosine.topk(min(MOST_LATENTS, len(cosine)))
        above = (word_cosine[top.indices] < top.values[:, None]).double().mean(1)
        found = zip(top.indices.tolist(), top.values.tolist(), above.tolist(), strict=True)
        return {
            "latents": [
                {"index": index, "title": self.loaded.title(index), "cosine": rounded(value), "above": rounded(share)}
                for index, value, share in found
            ],
            "control": {
                "low": rounded(float(best.quantile(1 - HIGH))),
                "median": rounded(float(best.median())),
                "high": rounded(float(best.quantile(HIGH))),
                "n": len(best),
                "above": rounded(float((best < cosine.max()).double().mean())),
            },
        }

    @cached_property
    def _word_cosines(self) -> Float[Tensor, "d_sae words"]:
        return text_cosines(self._places, self._words.embedding)

    def _cosines(self, texts: Float[Tensor, "texts d_joint"]) -> Float[Tensor, "d_sae texts"]:
        """Return cosines as `text_cosines` does, but after the mean of the words, not that of these texts."""
        texts = texts.double() - self._words.embedding.double().mean(0)
        return torch.nn.functional.normalize(self._places, dim=1) @ torch.nn.functional.normalize(texts, dim=1).T
