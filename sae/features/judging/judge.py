"""Scoring explanations without people: a judge is shown a text and held-out examples, and says how well each fits."""

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sae.errors import CatalogError
from sae.features.catalog import Catalog
from sae.features.explanations import Explanation, Explanations
from sae.features.judging.agreement import Agreement
from sae.inputs.base import Inputs
from sae.subjects.base import ImageTextSubject, Subject
from sae.tensors import Batch

logger = logging.getLogger(__name__)

Context = Mapping[str, Any]
SEEN = ("example", "position", "start", "tokens", "whole", "image")
"""What a judge sees of a held-out example."""
EMBEDDING = "visual.embedding"


class Judge(Protocol):
    """Says how well an explanation fits each of some contexts; larger is better, and only the order counts.

    Attributes:
        name: stands in the log as who rated.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, text: str, contexts: Sequence[Context], /) -> Sequence[float]:
        """Return a score for each context.

        Raises:
            CatalogError: it cannot judge such contexts.
        """
        ...


@dataclass(frozen=True)
class Judged:
    """An explanation, and how well its text tells what fires."""

    explanation: Explanation
    agreement: Agreement


def score(
    catalog: Catalog, judge: Judge, kind: str = "latent", indices: Sequence[int] | None = None, seed: int = 0
) -> Iterator[Judged]:
    """Judge the explanations of some cards, or of all that have any, and write the scores to their log.

    Whatever this judge has scored is passed over until its text is changed; so are cards without held-out examples. A
    score is in the log once it is yielded.

    Args:
        catalog: whose explanations.
        judge: who rates; sees the examples of a card in random order, and nothing of where it fires.
        kind: of the cards.
        indices: numbers of the cards; all that have explanations by default.
        seed: of the order.

    Raises:
        CatalogError: there is no such card, or the judge cannot do its work.
    """
    said = Explanations(catalog.path)
    by_card = said.by_card(kind)
    for index in sorted(by_card) if indices is None else indices:
        examples = catalog.shelf(kind)[index].sections.get("held_out")
        waiting = [one for one in by_card.get(index, ()) if not _is_scored(one, judge.name)]
        if waiting and examples is None:
            logger.warning("%s %d: has no held-out examples, so its explanations are not scored.", kind, index)
            continue
        for explanation in waiting:
            agreement = judged(judge, explanation.text, examples or [], seed)
            measured = (agreement.value, agreement.n, agreement.interval)
            yield Judged(
                said.score(explanation.id, judge.name, explanation.revision, *measured, method="judge"), agreement
            )


def judged(judge: Judge, text: str, examples: Sequence[Mapping[str, Any]], seed: int = 0) -> Agreement:
    """Let a judge tell held-out examples apart by a text."""
    shuffled = random.Random(seed).sample(list(examples), len(examples))
    contexts = [{name: example[name] for name in SEEN if name in example} for example in shuffled]
    answers = judge(text, contexts)
    if len(answers) != len(contexts):
        raise CatalogError(f"judge {judge.name}: gave {len(answers)} scores for {len(contexts)} contexts.")
    return Agreement.of(answers, [example["fires"] for example in shuffled])


def _is_scored(explanation: Explanation, rater: str) -> bool:
    return any(one.rater == rater and one.revision == explanation.revision for one in explanation.scores)


class JointSpaceJudge:
    """Compares a text with images in the joint space of a CLIP model: the cosine of their embeddings.

    Args:
        subject: embeds both.
        inputs: the images that the catalog's cards show, by the same numbers.

    Raises:
        CatalogError: the subject has no joint space.
    """

    def __init__(self, subject: Subject, inputs: Inputs) -> None:
        if not isinstance(subject, ImageTextSubject):
            raise CatalogError(f"{subject.id}: does not embed texts and images in one space; name a chat endpoint.")
        self._subject, self._inputs = subject, inputs
        self._places: dict[int, Float[Tensor, " d_joint"]] = {}
        self.name = f"joint space of {subject.id}"

    @torch.no_grad()
    def __call__(self, text: str, contexts: Sequence[Context]) -> list[float]:
        """Return the cosine of the text with each image."""
        examples = [context["example"] for context in contexts]
        self._embed([example for example in dict.fromkeys(examples) if example not in self._places])
        place = self._subject.zero_shot_classifier([[text]])[0].float().cpu()
        return (torch.stack([self._places[example] for example in examples]) @ place).tolist()

    def _embed(self, examples: list[int]) -> None:
        if not examples:
            return
        frames = [self._inputs.batch(example, example + 1).images for example in examples]
        if any(frame is None for frame in frames):
            raise CatalogError(f"{self._subject.id}: example {examples[0]} is no image.")
        batch = Batch(first_example=0, images=torch.cat(frames))  # type: ignore[arg-type]
        embedded = self._subject.run(batch, [EMBEDDING])[EMBEDDING].flatten(1).float().cpu()
        self._places |= dict(zip(examples, F.normalize(embedded, dim=1), strict=True))
