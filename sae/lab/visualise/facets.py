"""Facets: ways in which pictures can show a thing, learnt from labelled pictures, to steer a visualisation towards.

Goh et al. 2021 (*Multimodal Neurons in Artificial Neural Networks*) add to what a unit f makes of lower layers g(x) the
term w . (g(x) * df/dg), w being a linear probe of the facet in these layers: of all that would drive the unit, what
also looks like the facet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sae.errors import EvaluationError, nearest
from sae.inputs.configs import ImageInputsConfig
from sae.inputs.images import ImageInputs
from sae.subjects.base import Activation, Subject
from sae.tensors import Batch

FRAMES_AT_ONCE = 256
PROBE_STEPS, PROBE_DECAY = 100, 1e-3
BLOCK_ENDS = (".hook_resid_post", ".hook_post")
MLP = ".mlp.hook_post"
CLASS = "class"
"""Family of the labels that subfolders are."""
N_LOWER = 2
"""Block ends below a unit in which its facets are looked for."""


@dataclass(frozen=True)
class Labelled:
    """Real pictures, what each of them is, and which may be learnt from.

    Attributes:
        frames: preprocessed pictures.
        label: of each, its place in `names`.
        learnt: the others are there to try on what was learnt.
        names: of the labels.
    """

    frames: UInt8[Tensor, "n 3 height width"]
    label: Int[Tensor, " n"]
    learnt: Bool[Tensor, " n"]
    names: tuple[str, ...]

    def on(self, keep: Bool[Tensor, " n"]) -> "Labelled":
        """Return some of the pictures."""
        return Labelled(self.frames[keep], self.label[keep], self.learnt[keep], self.names)

    @classmethod
    def folder(cls, path: Path, subject: Any, seed: int) -> "Labelled":
        """Read a folder with one subfolder of pictures for each label; half of them, drawn at random, are learnt from.

        Raises:
            InputsError: there is no such folder, or a file in it is no image that can be decoded.
        """
        inputs = ImageInputs(ImageInputsConfig(path=path), subject.preprocess)
        frames, labels = inputs.batch(0, len(inputs)).images, inputs.labels(0, len(inputs))
        if frames is None or CLASS not in labels:
            raise EvaluationError(f"{path}: facets are learnt from pictures in one subfolder for each facet.")
        drawn = torch.rand(len(frames), generator=torch.Generator().manual_seed(seed)) < 0.5
        label = torch.from_numpy(labels[CLASS])
        return cls(frames, label, drawn, tuple(inputs.label_names[CLASS])).on(label >= 0)


@dataclass(frozen=True)
class Probe:
    """A softmax regression of labels on the mean vector of a picture's positions at one hookpoint.

    Attributes:
        hookpoint: where it reads.
        weight, bias: logits are mean(x) @ weight.T + bias.
    """

    hookpoint: str
    weight: Float[Tensor, "labels d_in"]
    bias: Float[Tensor, " labels"]

    @classmethod
    def fit(cls, hookpoint: str, means: Float[Tensor, "n d_in"], label: Int[Tensor, " n"], n_labels: int) -> "Probe":
        """Fit by L-BFGS on standardised coordinates, weights decaying."""
        deviation, mean = means.std(0).clamp_min(1e-6), means.mean(0)
        z = (means - mean) / deviation
        weight = torch.zeros(n_labels, z.shape[1], requires_grad=True)
        bias = torch.zeros(n_labels, requires_grad=True)
        optimiser = torch.optim.LBFGS([weight, bias], max_iter=PROBE_STEPS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = F.cross_entropy(z @ weight.T + bias, label) + PROBE_DECAY / 2 * weight.square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        own = weight.detach() / deviation
        return cls(hookpoint, own, bias.detach() - own @ mean)

    def logits(self, x: Activation) -> Float[Tensor, "n labels"]:
        """Return the logits of pictures from their activations; gradients flow."""
        return x.float().mean(1) @ self.weight.to(x.device).T + self.bias.to(x.device)

    def answers(self, subject: Subject, frames: UInt8[Tensor, "n 3 height width"]) -> Int[Tensor, " n"]:
        """Return the likeliest label of each frame."""
        found = means(subject, frames, [self.hookpoint])[self.hookpoint]
        return (found @ self.weight.T + self.bias).argmax(1)


@dataclass(frozen=True)
class Facets:
    """Probes of one family of labels in layers below a unit.

    Attributes:
        names: of the facets, in the probes' order.
        probes: one for each hookpoint.
    """

    names: tuple[str, ...]
    probes: tuple[Probe, ...]

    @classmethod
    def learn(
        cls,
        subject: Subject,
        hookpoints: Sequence[str],
        pictures: Labelled,
    ) -> "Facets":
        """Fit probes on labelled frames that may be learnt from.

        Args:
            subject: that sees them.
            hookpoints: of the image tower, below the units to visualise (see `lower`).
            pictures: of every facet.

        Raises:
            EvaluationError: fewer than two facets have pictures, or there is no lower layer.
        """
        if not hookpoints:
            raise EvaluationError(f"{subject.id}: facets need a layer below the unit's; there is none.")
        learnt, names = pictures.on(pictures.learnt), pictures.names
        n_shown = len(learnt.label.unique())
        if n_shown < 2:
            raise EvaluationError(f"facets: there are pictures of {n_shown} of {', '.join(names)}; two need some.")
        found = means(subject, learnt.frames, hookpoints)
        return cls(names, tuple(Probe.fit(one, found[one], learnt.label, len(names)) for one in hookpoints))

    def number(self, name: str) -> int:
        """Return the place of a facet.

        Raises:
            EvaluationError: there is no such facet.
        """
        if name not in self.names:
            raise EvaluationError(f"no facet {name!r} among the labels.{nearest(name, self.names)}")
        return self.names.index(name)

    def towards(self, facet: Int[Tensor, " n"], strength: Float[Tensor, " n"]) -> "Towards":
        """Return the term that steers each picture towards a facet."""
        styles = {probe.hookpoint: probe.weight[facet] for probe in self.probes}
        return Towards(styles, strength)


@dataclass(frozen=True)
class Towards:
    """The facet term: at every lower layer g, strength * sum(g * relu(df/dg) * style), the gradient held fixed.

    This is the article's code, with the probe's direction of the facet at all positions as the style. The product
    relu(df/dg) * style is scaled to the norm of the gradient, so at strength 1 a facet pulls at the lower layers as
    hard as the unit itself.

    Attributes:
        styles: of every picture, by hookpoint.
        strength: of every picture.
    """

    styles: Mapping[str, Float[Tensor, "n d_in"]]
    strength: Float[Tensor, " n"]

    @property
    def reads(self) -> list[str]:
        """The lower layers."""
        return list(self.styles)

    def add(self, values: Float[Tensor, " n"], found: Mapping[str, Activation]) -> Float[Tensor, " n"]:
        """Return what is added; gradients flow through the activations alone.

        In float32 also of a subject in half precision, in which norms overflow and small ones cannot be divided by.
        """
        layers = [found[name] for name in self.styles]
        grads = torch.autograd.grad(values.sum(), layers, retain_graph=True)
        total = torch.zeros_like(values)
        for style, x, grad in zip(self.styles.values(), layers, grads, strict=True):
            wanted = grad.float().relu() * style.to(x.device)[:, None]
            pull = wanted * (_norm(grad.float()) / _norm(wanted).clamp_min(1e-12))
            total = total + (x.float() * pull).sum((1, 2)).to(total) / len(layers)
        return self.strength.to(total) * total


def lower(subject: Subject, hookpoint: str, n: int = N_LOWER) -> list[str]:
    """Return the last n ends of blocks of the image tower that stand before a hookpoint."""
    names = [name for name in subject.hookpoints() if name.startswith("visual.")]
    before = names[: names.index(hookpoint)]
    ends = [name for name in before if name.endswith(BLOCK_ENDS) and not name.endswith(MLP)]
    # The block in which the hookpoint stands is not below it.
    return ends[-n:]


@torch.no_grad()
def means(
    subject: Subject, frames: UInt8[Tensor, "n 3 height width"], hookpoints: Sequence[str]
) -> dict[str, Float[Tensor, "n d_in"]]:
    """Return the mean vector of every frame's positions at hookpoints."""
    parts: dict[str, list[Tensor]] = {name: [] for name in hookpoints}
    for images in frames.split(FRAMES_AT_ONCE):
        for name, x in subject.run(Batch(first_example=0, images=images), hookpoints).items():
            parts[name].append(x.float().mean(1).cpu())
    return {name: torch.cat(part) for name, part in parts.items()}


def _norm(x: Float[Tensor, "n pos d_in"]) -> Float[Tensor, "n 1 1"]:
    return x.flatten(1).norm(dim=1)[:, None, None]
