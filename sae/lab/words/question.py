"""What is to be taken apart, over what, and what the answer is where it is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from sae.errors import ConfigError
from sae.features.live.words import Words, words_and_templates
from sae.inputs.base import Composed
from sae.lab.words.sums import Sum


@dataclass(frozen=True)
class Question:
    """Words or phrases to take apart.

    Attributes:
        words: to take apart.
        over: the simpler words.
        templates: prompts around them.
        parts: of each word, places in `over`; None where the inputs do not know them.
        no_classes: those of the words and the simpler ones that are no classes of the inputs; there are no pictures of
            them, so only their text is known.
    """

    words: tuple[str, ...]
    over: tuple[str, ...]
    templates: tuple[str, ...]
    parts: tuple[set[int] | None, ...]
    no_classes: tuple[str, ...] = ()

    @property
    def answered(self) -> bool:
        """Whether the parts of any word are known."""
        return any(parts is not None for parts in self.parts)

    @classmethod
    def of(
        cls,
        words: Words,
        inputs: Any,
        chosen: Sequence[str] = (),
        over: Sequence[str] = (),
        templates: Sequence[str] = (),
    ) -> "Question":
        """Complete what is named by what the inputs know, and check every phrase.

        Raises:
            ConfigError: neither says what to take apart, or over what.
            InputsError: a phrase is empty, or holds a word that the subject was never trained on.
        """
        known = inputs.parts() if isinstance(inputs, Composed) else {}
        chosen = tuple(chosen or known)
        over = tuple(over or dict.fromkeys(part for parts in known.values() for part in parts))
        if not chosen or len(over) < 2:
            raise ConfigError("words, over: these inputs know no mixtures; name what to take apart, and over what.")
        asked = dict.fromkeys((*chosen, *over))
        others = tuple(word for word in asked if word not in words.names)
        for word in others:
            words.check(word)
        for template in templates:
            if "{}" not in template:
                raise ConfigError(f"templates: {template!r} has no place for the word; write {{}} there.")
        if not templates:
            classes = {word for word in asked if word not in others}
            templates = words_and_templates(inputs, classes)[1] if classes else words.templates
        whole = [word in known and set(known[word]) <= set(over) for word in chosen]
        parts = tuple(
            {over.index(part) for part in known[word]} if ok else None for word, ok in zip(chosen, whole, strict=True)
        )
        return cls(chosen, over, tuple(templates), parts, others)

    def share(self, spoken_of: Sequence[Float[Tensor, " simple"]]) -> float:
        """Return the share of the words with known parts that both are found of."""
        known = [both_parts(one, parts) for one, parts in zip(spoken_of, self.parts, strict=True) if parts is not None]
        return sum(known) / len(known)

    def shuffled_share(self, spoken_of: Sequence[Float[Tensor, " simple"]]) -> float:
        """Return the same with the parts of other words, the mean over all words with other parts."""
        pairs = [
            both_parts(one, parts)
            for one, own in zip(spoken_of, self.parts, strict=True)
            for parts in self.parts
            if own is not None and parts is not None and parts != own
        ]
        return sum(pairs) / len(pairs) if pairs else 0.0


def spoken(found: Sum, known: Float[Tensor, "units simple"]) -> Float[Tensor, " simple"]:
    """Return how much a sum speaks of each simple concept: the sum of its weights times what their units know of it."""
    total = known.new_zeros(known.shape[1])
    for term, weight in zip(found.terms, found.weights, strict=True):
        total += weight * known[term]
    return total


def both_parts(spoken_of: Float[Tensor, " simple"], parts: set[int]) -> bool:
    """Whether the parts are what is spoken of most; what is not spoken of at all is not found."""
    top = spoken_of.topk(len(parts))
    return bool((top.values > 0).all()) and set(top.indices.tolist()) == parts
