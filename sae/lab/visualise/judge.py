"""What a visualisation shows, asked of subjects: the concept by their zero-shot answer, the facet by their probe.

A subject that the picture was optimised on says what it was made to say. Others, trained from another seed or of
another architecture, say what is to be seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sae.errors import EvaluationError
from sae.lab.visualise.facets import FRAMES_AT_ONCE, Probe, lower, means
from sae.lab.visualise.parametrise import Pictures
from sae.subjects.base import ImageTextSubject, Subject
from sae.tensors import Batch


@dataclass(frozen=True)
class Judge:
    """A subject asked what pictures show.

    Attributes:
        subject: that is asked.
        classifier: unit vectors of the classes.
        probe: of facets, if it was taught any.
        accuracy: share of real pictures, not learnt from, whose class it tells; and whose facet.
    """

    subject: Subject
    classifier: Float[Tensor, "classes d_joint"]
    probe: Probe | None
    accuracy: tuple[float, float]

    @classmethod
    def of(
        cls,
        subject: Subject,
        prompts: Sequence[Sequence[str]],
        frames: UInt8[Tensor, "n 3 height width"],
        answer: Int[Tensor, " n"],
        facet: Int[Tensor, " n"] | None,
        learnt: Bool[Tensor, " n"],
    ) -> "Judge":
        """Make a judge and try it on real pictures.

        Args:
            subject: with a joint space.
            prompts: of every class.
            frames: real pictures.
            answer: the class of each.
            facet: the facet of each.
            learnt: pictures to learn facets from; accuracies are those on the others.

        Raises:
            EvaluationError: the subject has no joint space, or takes pictures of another size.
        """
        if not isinstance(subject, ImageTextSubject):
            raise EvaluationError(f"{subject.id}: cannot judge pictures; it has no space that images and texts share.")
        classifier, probe, right = subject.zero_shot_classifier(prompts), None, float("nan")
        others = frames[~learnt]
        if facet is not None:
            (hookpoint,) = lower(subject, "visual.embedding", 1)
            probe = taught(subject, hookpoint, frames[learnt], facet[learnt])
            right = float((probe.answers(subject, others) == facet[~learnt]).double().mean())
        judge = cls(subject, classifier, probe, (float("nan"), right))
        told = float((judge.classes(others) == answer[~learnt]).double().mean())
        return cls(subject, classifier, probe, (told, right))

    @torch.no_grad()
    def classes(self, frames: UInt8[Tensor, "n 3 height width"]) -> Int[Tensor, " n"]:
        """Return the zero-shot answer for every frame."""
        parts = frames.split(FRAMES_AT_ONCE)
        answers = [self.subject.forward(Batch(first_example=0, images=part)).logits(self.classifier) for part in parts]
        return torch.cat(answers).argmax(1).cpu()

    def facets(self, frames: UInt8[Tensor, "n 3 height width"]) -> Int[Tensor, " n"]:
        """Return the facet that each frame is taken for."""
        assert self.probe is not None, "this judge was taught no facets"
        return self.probe.answers(self.subject, frames)


def taught(
    subject: Subject, hookpoint: str, frames: UInt8[Tensor, "n 3 height width"], label: Int[Tensor, " n"]
) -> Probe:
    """Return a probe of labels in a subject of its own."""
    found = means(subject, frames, [hookpoint])[hookpoint]
    return Probe.fit(hookpoint, found, label, int(label.max()) + 1)


def as_frames(pictures: Pictures) -> UInt8[Tensor, "n 3 height width"]:
    """Round pictures to what a PNG can hold; whatever is said of them is said of these."""
    return (pictures * 255).round().clamp(0, 255).to(torch.uint8)
