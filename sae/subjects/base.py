"""What every frozen model under study can do: name its hookpoints, read activations, replace them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from sae.errors import HookpointError, nearest
from sae.tensors import Batch, Rows

Activation = Float[Tensor, "example pos d_in"]
Edit = Callable[[Activation], Activation]
"""Receives the activation at a hookpoint and returns what the subject goes on with, of any precision on any device."""


@dataclass(frozen=True)
class Hookpoint:
    """A place where vectors are read: its name, their width, and the grid of rows they lie on."""

    name: str
    d_in: int
    grid: str


class Subject(Protocol):
    """A frozen model: `run` reads, `forward` goes to the end and may replace; no gradients unless asked.

    `kind` is "language" or "clip"; `id` is the string it was loaded by, with paths and defaults resolved.
    """

    id: str
    kind: str

    def hookpoints(self) -> Mapping[str, Hookpoint]:
        """Return every hookpoint by name, in the order in which the subject reaches them."""
        ...

    def run(self, batch: Batch, hookpoints: Sequence[str]) -> dict[str, Activation]:
        """Read activations, stopping after the last hookpoint needed; pooled ones have one position."""
        ...

    def rows(self, batch: Batch, grid: str) -> Rows:
        """Say which positions of the batch are rows of the grid."""
        ...

    def forward(self, batch: Batch, edits: Mapping[str, Edit] | None = None, grad: bool = False) -> Any:
        """Run to the end with activations replaced by `edits`.

        Returns:
            Language: logits [example pos vocab]. CLIP: `ClipOutput(image, text, logit_scale)`, embeddings normalised,
            None for a tower the batch has no input for.
        """
        ...

    def provenance(self) -> dict[str, Any]:
        """Return what a manifest records: weights hash, library versions, folding, dtype, token policy."""
        ...


@runtime_checkable
class TextSubject(Subject, Protocol):
    """A subject that reads text; its logits are those of the next token, or of masked tokens, or it has none."""

    @property
    def predicts_next_token(self) -> bool:
        """Whether `forward` gives logits of the next token."""
        ...


@runtime_checkable
class WritesLogits(Protocol):
    """A language subject in which the direct path from the residual stream to the logits is known."""

    def direct_logits(self, directions: Float[Tensor, "n d_model"]) -> Float[Tensor, "n vocab"]:
        """Return what directions add to the logits, less their mean over the vocabulary."""
        ...


@runtime_checkable
class ImageTextSubject(Subject, Protocol):
    """A subject that embeds images and texts in one space."""

    def zero_shot_classifier(self, prompts: Sequence[Sequence[str]]) -> Float[Tensor, "n_classes d_joint"]:
        """Return one unit vector per class: the mean of its prompts' embeddings."""
        ...


@runtime_checkable
class SeesPictures(Subject, Protocol):
    """A subject that can be differentiated with respect to what it sees."""

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the pictures that it takes."""
        ...

    def see(
        self, pictures: Float[Tensor, "example 3 height width"], hookpoints: Sequence[str]
    ) -> dict[str, Activation]:
        """Read activations for pictures in 0..1, with gradients to them, and to each activation from later ones."""
        ...


def find_hookpoint(hookpoints: Mapping[str, Hookpoint], name: str, subject_id: str) -> Hookpoint:
    """Look a hookpoint up by name.

    Raises:
        HookpointError: the subject has no such hookpoint; names the nearest ones.
    """
    if name not in hookpoints:
        raise HookpointError(f"{subject_id}: no hookpoint {name!r}.{nearest(name, hookpoints)}")
    return hookpoints[name]
