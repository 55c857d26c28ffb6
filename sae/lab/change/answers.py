"""What a subject answers, as a distribution: over next tokens, or over the classes of an image or of a text."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sae.errors import EvaluationError
from sae.features.removal import stacked
from sae.features.show import token_decoder
from sae.lab.workbench import Workbench
from sae.subjects.base import Edit, ImageTextSubject, Subject
from sae.tensors import Batch, Kind

STRIDE = 8
"""Tokens of a text from one answer that counts to the next, going back from its last."""
PROTOTYPE_IMAGES = 8
"""Images whose mean embedding stands for a class beside texts."""
Edits = Callable[[Batch], Mapping[str, Edit]]


class Answers(Protocol):
    """Answers of a subject.

    Attributes:
        what: what they are over, such as "next tokens".
    """

    what: str

    def name(self, thing: int) -> str:
        """Return the name of a thing by its number."""
        ...

    def log_probs(
        self, batch: Batch, edits: Mapping[str, Edit], every: int | None = STRIDE
    ) -> Float[Tensor, "items things"]:
        """Return log-probabilities in nats; of a text at every so many tokens, or at its last one alone."""
        ...


class NextTokens:
    """The distribution of the next token."""

    what = "next tokens"

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._decode = cache(token_decoder(subject))

    def name(self, thing: int) -> str:
        return self._decode(thing)

    def log_probs(
        self, batch: Batch, edits: Mapping[str, Edit], every: int | None = STRIDE
    ) -> Float[Tensor, "items things"]:
        assert batch.tokens is not None
        attended = torch.ones_like(batch.tokens, dtype=torch.bool) if batch.attended is None else batch.attended
        to_end = attended.flip(1).cumsum(1).flip(1) - 1
        at = attended & ((to_end == 0) if every is None else (to_end % every == 0))
        if batch.kind is not None and every is not None:
            at &= batch.kind != int(Kind.BOS)
        logits = self.subject.forward(batch, edits)
        return logits[at.to(logits.device)].float().log_softmax(-1).cpu()


class ImageClasses:
    """The zero-shot distribution of an image over the classes of its inputs."""

    what = "classes"

    def __init__(self, subject: ImageTextSubject, bench: Workbench) -> None:
        self.subject, classes = subject, _classes(bench)
        self._names = bench.inputs.label_names[classes.family]  # type: ignore[attr-defined]
        self.classifier = subject.zero_shot_classifier(classes.prompts)

    def name(self, thing: int) -> str:
        return self._names[thing]

    def log_probs(
        self, batch: Batch, edits: Mapping[str, Edit], every: int | None = STRIDE
    ) -> Float[Tensor, "items things"]:
        images = Batch(first_example=batch.first_example, images=batch.images)
        return self.subject.forward(images, edits).logits(self.classifier).float().log_softmax(-1).cpu()


class TextClasses:
    """The distribution of a text over the classes of images, each standing for its images of the half to match on."""

    what = "classes of images"

    def __init__(self, subject: Subject, bench: Workbench) -> None:
        self.subject: Any = subject
        classes, sample = _classes(bench), bench.sample
        self._names = bench.inputs.label_names[classes.family]  # type: ignore[attr-defined]
        answer = torch.from_numpy(sample.labels[classes.family]).long()
        prototypes = []
        for number in range(len(classes.prompts)):
            of_class = sample.example[sample.match & (answer == number)][:PROTOTYPE_IMAGES].tolist()
            if not of_class:
                raise EvaluationError(f"no image of {self.name(number)!r} in the half to match on; take more vectors.")
            images = torch.cat([bench.inputs.batch(one, one + 1).images for one in of_class])  # type: ignore[misc]
            prototypes.append(subject.forward(Batch(first_example=0, images=images)).image.mean(0))
        self.prototypes = F.normalize(torch.stack(prototypes), dim=1)

    def name(self, thing: int) -> str:
        return self._names[thing]

    def log_probs(
        self, batch: Batch, edits: Mapping[str, Edit], every: int | None = STRIDE
    ) -> Float[Tensor, "items things"]:
        texts = Batch(first_example=0, tokens=batch.tokens, attended=batch.attended, kind=batch.kind)
        out = self.subject.forward(texts, edits)
        return (out.logit_scale.exp() * out.text @ self.prototypes.T).float().log_softmax(-1).cpu()


def answers_of(bench: Workbench, hookpoint: str) -> Answers:
    """Return what comes out behind a hookpoint.

    Raises:
        EvaluationError: the subject does not predict the next token, or its inputs have no classes.
    """
    subject: Any = bench.subject
    if subject.kind == "clip":
        return ImageClasses(subject, bench) if hookpoint.startswith("visual.") else TextClasses(subject, bench)
    if not getattr(subject, "predicts_next_token", False):
        raise EvaluationError(f"{subject.id}: does not predict the next token, so it has no answers to steer.")
    return NextTokens(subject)


def examples(bench: Workbench, numbers: Sequence[int]) -> Batch:
    """Return examples by number, in one batch."""
    return stacked([bench.inputs.batch(one, one + 1) for one in numbers])


def generate(
    subject: Any, prompt: Batch, edits: Edits, n_tokens: int, temperature: float = 0.0, seed: int = 0
) -> list[int]:
    """Write on after a prompt, under an intervention, and return the new tokens.

    The whole text runs again for every token, so a change reaches each position exactly as it would in one run.

    Args:
        subject: predicts the next token.
        prompt: one text without padding.
        edits: gives the intervention on a text.
        n_tokens: how many to write; fewer where the subject takes no more.
        temperature: of sampling; 0 takes the likeliest token.
        seed: of sampling.
    """
    assert prompt.tokens is not None and len(prompt) == 1
    generator, tokens = torch.Generator().manual_seed(seed), prompt.tokens
    kind = torch.full_like(tokens, int(Kind.TOKEN), dtype=torch.uint8) if prompt.kind is None else prompt.kind
    room = getattr(getattr(getattr(subject, "model", None), "config", None), "max_position_embeddings", None)
    written: list[int] = []
    for _ in range(n_tokens if room is None else min(n_tokens, room - tokens.shape[1])):
        text = Batch(first_example=0, tokens=tokens, attended=torch.ones_like(tokens, dtype=torch.bool), kind=kind)
        with torch.no_grad():
            logits = subject.forward(text, edits(text))[0, -1].float().cpu()
        if temperature > 0:
            token = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
        else:
            token = logits.argmax(-1, keepdim=True)
        written.append(int(token))
        tokens = torch.cat([tokens, token[None].to(tokens)], dim=1)
        kind = torch.cat([kind, kind.new_full((1, 1), int(Kind.TOKEN))], dim=1)
    return written


def _classes(bench: Workbench) -> Any:
    classes = getattr(bench.inputs, "classes", None)
    if classes is None:
        raise EvaluationError(f"{bench.inputs.describe()}: these inputs have no classes to answer with.")
    return classes
