"""What comes out of a subject as scores of things with names: next tokens, or words beside an image."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae.features.show import token_decoder
from sae.inputs.base import Inputs
from sae.subjects.base import ImageTextSubject, Subject


@runtime_checkable
class Outputs(Protocol):
    """Scores of things with names.

    Attributes:
        what: what they are, such as "next tokens".
    """

    what: str

    def places(self, fires: Bool[Tensor, "example pos"]) -> Bool[Tensor, "example pos_or_1"]:
        """Return where the output is looked at, given where a latent fires."""
        ...

    def scores(self, output: Any, at: Bool[Tensor, "example pos"]) -> Float[Tensor, "example things"]:
        """Return the scores of all things, added up over the places of each example."""
        ...

    def name(self, thing: int) -> str: ...


class NextTokens:
    """Logits of the next token where the latent fires, less their mean over the vocabulary, which no odds depend on."""

    what = "next tokens"

    def __init__(self, subject: Subject) -> None:
        self.name = cache(token_decoder(subject))

    def places(self, fires: Bool[Tensor, "example pos"]) -> Bool[Tensor, "example pos"]:
        return fires

    def scores(
        self, output: Float[Tensor, "example pos vocab"], at: Bool[Tensor, "example pos"]
    ) -> Float[Tensor, "example vocab"]:
        example, position = at.to(output.device).nonzero(as_tuple=True)
        logits = output[example, position].float()
        centred = logits - logits.mean(-1, keepdim=True)
        return centred.new_zeros(len(output), output.shape[-1]).index_add(0, example, centred)


class NearWords:
    """Cosines of an image's embedding with words, the words' own mean taken off, as in `joint_space.text_cosines`."""

    what = "words beside the image"

    def __init__(self, subject: ImageTextSubject, words: Sequence[str]) -> None:
        texts = subject.zero_shot_classifier([[word] for word in words]).float()
        self.words = words
        self.directions = torch.nn.functional.normalize(texts - texts.mean(0), dim=1)

    def places(self, fires: Bool[Tensor, "example pos"]) -> Bool[Tensor, "example 1"]:
        return fires.any(1, keepdim=True)

    def scores(self, output: Any, at: Bool[Tensor, "example 1"]) -> Float[Tensor, "example words"]:
        return output.image.float() @ self.directions.T * at.to(self.directions.device)

    def name(self, thing: int) -> str:
        return self.words[thing]


def outputs_of(subject: Subject, inputs: Inputs, hookpoint: str) -> Outputs | None:
    """Return what comes out behind a hookpoint; None where it has no names: no next token, or no words to compare."""
    if getattr(subject, "predicts_next_token", False):
        return NextTokens(subject)
    if isinstance(subject, ImageTextSubject) and hookpoint.startswith("visual."):
        words = words_of(inputs)
        return NearWords(subject, words) if words else None
    return None


def words_of(inputs: Any) -> Sequence[str]:
    """Return the names of the classes that inputs know; none otherwise."""
    classes = getattr(inputs, "classes", None)
    return () if classes is None else tuple(inputs.label_names[classes.family])
