"""Phrases in the space that images and texts share, in the prompts of the inputs' classes and less the mean word."""

import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sae import builtin
from sae.errors import EvaluationError, InputsError, nearest
from sae.subjects.base import ImageTextSubject

PLAIN = ("{}",)
MOST_WORDS, MOST_TEMPLATES = 2000, 24


class Words:
    """The words of some inputs, and any phrase, as directions of the joint space.

    A phrase is embedded in every template, and the mean of the words, embedded alike, is taken off: image and text
    embeddings lie apart, and all texts share what makes them texts.

    Args:
        subject: with a joint space.
        inputs: whose classes name the words.
        most: so many of them, the first ones, so that an answer does not take long; None takes all.

    Attributes:
        names: what the classes are called.
        templates: prompts around a phrase, at most `MOST_TEMPLATES`.
        vocabulary: the words that the subject was trained on, for a built-in one; None where any word may mean
            something.

    Raises:
        EvaluationError: the subject has no joint space, or the inputs name fewer than two classes.
    """

    def __init__(self, subject: Any, inputs: Any, most: int | None = MOST_WORDS) -> None:
        if not isinstance(subject, ImageTextSubject):
            raise EvaluationError(f"{subject.id}: has no space that images and texts share; CLIP models have one.")
        self.names, self.templates = words_and_templates(inputs, most=most)
        if len(self.names) < 2:
            raise EvaluationError(f"{inputs.describe()}: these inputs name {len(self.names)} classes; 2 are needed.")
        self._subject, self._means = subject, {}
        self.vocabulary = trained_vocabulary(subject.id)

    @cached_property
    def embedding(self) -> Float[Tensor, "words d_joint"]:
        """Of the names, of unit length, their mean not taken off."""
        return self.embedded(self.names)

    @cached_property
    def directions(self) -> Float[Tensor, "words d_joint"]:
        """Of the names, less their mean, of unit length."""
        return F.normalize(self.embedding - self.embedding.mean(0), dim=1)

    def embedded(
        self, phrases: Sequence[str], templates: Sequence[str] | None = None
    ) -> Float[Tensor, "phrases d_joint"]:
        """Return the mean of a phrase's prompts, of unit length; all templates if none are given."""
        prompts = [[one.replace("{}", phrase) for one in templates or self.templates] for phrase in phrases]
        return self._subject.zero_shot_classifier(prompts).float().cpu()

    def towards(self, phrases: Sequence[str], templates: Sequence[str] | None = None) -> Float[Tensor, "phrases d"]:
        """Return phrases less the mean of the names in the same templates, of unit length.

        Raises:
            InputsError: a phrase is empty, or holds a word that the subject was never trained on.
        """
        for phrase in phrases:
            self.check(phrase)
        return F.normalize(self.embedded(phrases, templates) - self._mean(templates), dim=1)

    def _mean(self, templates: Sequence[str] | None) -> Float[Tensor, " d_joint"]:
        key = self.templates if templates is None else tuple(templates)
        if key not in self._means:
            self._means[key] = self.embedded(self.names, key).mean(0)
        return self._means[key]

    def number(self, name: str) -> int:
        """Return the place of a name among the names.

        Raises:
            InputsError: no class is called that.
        """
        if name not in self.names:
            raise InputsError(f"no class is called {name!r}.{nearest(name, self.names)}")
        return self.names.index(name)

    def check(self, phrase: str) -> None:
        """Refuse a phrase that is empty, or that holds words which mean nothing to the subject."""
        if not phrase.strip():
            raise InputsError("the phrase is empty.")
        known = self.vocabulary
        for word in () if known is None else phrase.split():
            if known is not None and word not in known:
                raise InputsError(
                    f"{phrase!r}: {self._subject.id} was never trained on the word {word!r}.{nearest(word, known)}"
                )


def trained_vocabulary(subject_id: str) -> tuple[str, ...] | None:
    """Return the words that a built-in subject was trained on; None for other subjects, and where it has no list."""
    if not subject_id.startswith(builtin.PREFIX):
        return None
    path = builtin.subject_folder(subject_id) / "vocabulary.json"
    return tuple(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def words_and_templates(
    inputs: Any, of: Collection[str] | None = None, most: int | None = None
) -> tuple[list[str], tuple[str, ...]]:
    """Return what the inputs' classes are called, and the prompts around these names, or around a few `of` them.

    Names are the first ones, if only so many are wanted, and prompts the commonest. A prompt that does not hold its
    class's name gives none; where no prompt does, phrases stand alone. Inputs without classes have no words.
    """
    classes = getattr(inputs, "classes", None)
    if classes is None:
        return [], PLAIN
    words = [name.replace("_", " ") for name in inputs.label_names[classes.family]][:most]
    found = Counter(
        re.sub(rf"\b{re.escape(word)}\b", "{}", prompt)
        for word, prompts in zip(words, classes.prompts, strict=False)
        for prompt in prompts
        if of is None or word in of
    )
    return words, tuple(one for one, _ in found.most_common() if "{}" in one)[:MOST_TEMPLATES] or PLAIN
