"""What a visualisation shows, asked of subjects: the concept by their zero-shot answer, the facet by their probe.

A subject that the picture was optimised on says what it was made to say. Others, trained from another seed or of
another architecture, say what is to be seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sae.errors import EvaluationError
from sae.lab.visualise.facets import FRAMES_AT_ONCE, Labelled, Probe, lower, means
from sae.lab.visualise.parametrise import Pictures
from sae.subjects.base import ImageTextSubject, SeesPictures, Subject
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
        concepts: Labelled,
        facets: Labelled | None,
    ) -> "Judge":
        """Make a judge and try it on real pictures.

        Args:
            subject: with a joint space.
            prompts: of every class.
            concepts: pictures to try it on.
            facets: pictures to learn facets from and to try them on.

        Raises:
            EvaluationError: the subject has no joint space.
        """
        if not isinstance(subject, ImageTextSubject):
            raise EvaluationError(f"{subject.id}: cannot judge pictures; it has no space that images and texts share.")
        judge = cls(subject, subject.zero_shot_classifier(prompts), None, (0.0, float("nan")))
        tried = concepts.on(~concepts.learnt)
        told, right, probe = _share(judge.classes(tried.frames) == tried.label), float("nan"), None
        if facets is not None:
            learnt, tried = facets.on(facets.learnt), facets.on(~facets.learnt)
            (hookpoint,) = lower(subject, "visual.embedding", 1)
            found = means(subject, fitted(subject, learnt.frames), [hookpoint])[hookpoint]
            probe = Probe.fit(hookpoint, found, learnt.label, len(facets.names))
            right = _share(probe.answers(subject, fitted(subject, tried.frames)) == tried.label)
        return cls(subject, judge.classifier, probe, (told, right))

    @torch.no_grad()
    def classes(self, frames: UInt8[Tensor, "n 3 height width"]) -> Int[Tensor, " n"]:
        """Return the zero-shot answer for every frame."""
        parts = fitted(self.subject, frames).split(FRAMES_AT_ONCE)
        answers = [self.subject.forward(Batch(first_example=0, images=part)).logits(self.classifier) for part in parts]
        return torch.cat(answers).argmax(1).cpu()

    def facets(self, frames: UInt8[Tensor, "n 3 height width"]) -> Int[Tensor, " n"]:
        """Return the facet that each frame is taken for."""
        assert self.probe is not None, "this judge was taught no facets"
        return self.probe.answers(self.subject, fitted(self.subject, frames))


def fitted(subject: Subject, frames: UInt8[Tensor, "n 3 height width"]) -> UInt8[Tensor, "n 3 tall wide"]:
    """Resize frames to what a subject takes, if it says so."""
    size = subject.frame_size if isinstance(subject, SeesPictures) else tuple(frames.shape[2:])
    if size == tuple(frames.shape[2:]):
        return frames
    return as_frames(F.interpolate(frames.float() / 255, size, mode="bicubic", antialias=True))


def _share(right: Bool[Tensor, " n"]) -> float:
    return float(right.double().mean())


def as_frames(pictures: Pictures) -> UInt8[Tensor, "n 3 height width"]:
    """Round pictures to what a PNG can hold; whatever is said of them is said of these."""
    return (pictures * 255).round().clamp(0, 255).to(torch.uint8)
