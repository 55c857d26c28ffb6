"""One decision in plain words: which latents spoke for it, which against, and what would flip it.

In the joint space the difference of two classes' logits is linear in the embedding, up to its length, so it is exactly
the sum of what each latent, the dictionary's bias and its error contribute. Without a latent it is less that latent's
part; only the length changes, which changes no sign.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.errors import EvaluationError, nearest
from sae.evaluation.sample import encoded
from sae.features.removal import strengths
from sae.subjects.base import ImageTextSubject
from sae.subjects.vision import ClipOutput

BIAS, ERROR = "constant", "unexplained"


@dataclass(frozen=True)
class Judge:
    """Zero-shot judgements of vectors in the joint space.

    Attributes:
        names: of the classes.
        classifier: one unit vector for each.
        logit_scale: the subject's, a logarithm.
        logit_bias: the subject's.
    """

    names: tuple[str, ...]
    classifier: Float[Tensor, "classes d_joint"]
    logit_scale: Float[Tensor, ""]
    logit_bias: Float[Tensor, ""]

    @classmethod
    def of(cls, subject: Any, names: Sequence[str], prompts: Sequence[Sequence[str]], batch: Any) -> "Judge":
        """Take the classifier of some prompts, and the scale from a pass over any batch.

        Raises:
            EvaluationError: the subject has no space that images and texts share.
        """
        if not isinstance(subject, ImageTextSubject):
            raise EvaluationError(f"{subject.id}: has no space that images and texts share; CLIP models have one.")
        output = subject.forward(batch)
        scale, bias = (value.detach().float().cpu() for value in (output.logit_scale, output.logit_bias))
        return cls(tuple(names), subject.zero_shot_classifier(prompts).detach().float().cpu(), scale, bias)

    def logits(self, x: Float[Tensor, "*n d_joint"]) -> Float[Tensor, "*n classes"]:
        unit = F.normalize(x.float().flatten(0, -2), dim=-1)
        out = ClipOutput(unit, None, self.logit_scale, self.logit_bias).logits(self.classifier)
        return out.unflatten(0, x.shape[:-1])

    def centred(self, x: Float[Tensor, "*n d_joint"]) -> Float[Tensor, "*n classes"]:
        """Return logits less their mean over classes, in nats."""
        logits = self.logits(x)
        return logits - logits.mean(-1, keepdim=True)

    def number(self, name: str) -> int:
        """Return the place of a class.

        Raises:
            EvaluationError: there is no such class.
        """
        if name not in self.names:
            raise EvaluationError(f"no judgement {name!r}.{nearest(name, self.names)}")
        return self.names.index(name)


def contributions(
    judge: Judge, dictionary: Dictionary, x: Float[Tensor, "items d_joint"], towards: Float[Tensor, " d_joint"]
) -> tuple[Float[Tensor, "items latents"], Float[Tensor, " items"], Float[Tensor, " items"]]:
    """Return what latents, the dictionary's bias and its error add to scale * <x / |x|, towards>; it is their sum.

    Args:
        judge: whose scale.
        dictionary: of the joint space.
        x: embeddings, of any length.
        towards: a class's vector, or a difference of two.
    """
    x = x.float().cpu()
    codes, scale = encoded(dictionary, x), judge.logit_scale.exp() / x.norm(dim=1)
    latents = scaled(judge, dictionary, x) * (dictionary.W_dec.detach().float().cpu() @ towards)
    with torch.no_grad():
        rebuilt = dictionary.decode(codes.to(dictionary.W_dec.device)).float().cpu()
    error = scale * ((x - rebuilt) @ towards)
    return latents, scale * (rebuilt @ towards) - latents.sum(1), error


def scaled(judge: Judge, dictionary: Dictionary, x: Float[Tensor, "items d_joint"]) -> Float[Tensor, "items latents"]:
    """Return by how much each latent's direction is held, in units in which its product with a class is in nats."""
    codes, scale = encoded(dictionary, x.float().cpu()), judge.logit_scale.exp() / x.float().cpu().norm(dim=1)
    worth = scale if codes.row_deviation is None else scale * codes.row_deviation[:, 0].float()
    return codes.dense().float() * worth[:, None]


@dataclass(frozen=True)
class Account:
    """Why one class and not another.

    Attributes:
        judged, rival: the first class and the next.
        probability: of the first.
        margin: the first's logit less the rival's, in nats.
        parts: of the margin by latent, largest first; the bias under -1 and the error under -2.
        flip: latents whose removal changes the judgement, the fewest by what they add to the margin; empty if removing
            all that speak for it does not.
        after: the judgement without them, found by taking them out and judging again.
        predicted: the margin without them by subtraction, at the old length.
    """

    judged: str
    rival: str
    probability: float
    margin: float
    parts: Mapping[int, float]
    flip: tuple[int, ...]
    after: str
    predicted: float

    def told(self, names: Mapping[int, str], n: int = 3) -> str:
        """Return it as sentences, with names for latents."""
        called = lambda latent: f"{latent} ({names[latent]})" if names.get(latent) else str(latent)  # noqa: E731
        latents = {latent: part for latent, part in self.parts.items() if latent >= 0}
        ranked = sorted(latents, key=latents.__getitem__, reverse=True)
        speak = ", ".join(f"{called(one)} {latents[one]:+.1f}" for one in ranked[:n] if latents[one] > 0)
        against = ", ".join(f"{called(one)} {latents[one]:+.1f}" for one in ranked[::-1][:n] if latents[one] < 0)
        text = (
            f"Judged {self.judged} ({self.probability:.0%}), ahead of {self.rival} by {self.margin:.1f} nats. For it "
            f"spoke latents {speak or 'none'}; against it {against or 'none'}; the constant gave {self.parts[-1]:+.1f} "
            f"and what no latent explains {self.parts[-2]:+.1f}. "
        )
        if not self.flip:
            return text + "Removing every latent that spoke for it does not change it."
        listed = " and ".join(called(one) for one in self.flip)
        return text + f"Without {listed} it is judged {self.after}: taken out and judged again."


def account(judge: Judge, dictionary: Dictionary, x: Float[Tensor, " d_joint"], rival: str | None = None) -> Account:
    """Take the first class's lead apart, and look for the fewest latents that decide it.

    Args:
        judge: of the classes.
        dictionary: of the joint space.
        x: the image's embedding.
        rival: another class; the one that comes second if not given.

    Raises:
        EvaluationError: no class is called that, or it is the judged one.
    """
    logits = judge.logits(x[None])[0]
    order = logits.argsort(descending=True)
    first = int(order[0])
    second = int(order[1]) if rival is None else judge.number(rival)
    if first == second:
        raise EvaluationError(f"rival: {judge.names[first]!r} is what the image was judged; name another class.")
    towards = judge.classifier[first] - judge.classifier[second]
    latents, bias, error = (part[0] for part in contributions(judge, dictionary, x[None], towards))
    active = latents.nonzero()[:, 0].tolist()
    parts = {latent: float(latents[latent]) for latent in sorted(active, key=lambda one: -float(latents[one].abs()))}
    flip, after = _flip(judge, dictionary, x, [one for one in parts if parts[one] > 0])
    margin = float(logits[first] - logits[second])
    return Account(
        judge.names[first], judge.names[second], float(logits.softmax(0)[first]), margin,
        parts | {-1: float(bias), -2: float(error)}, flip, judge.names[after], margin - sum(parts[one] for one in flip),
    )  # fmt: skip


def _flip(
    judge: Judge, dictionary: Dictionary, x: Float[Tensor, " d_joint"], spoke: Sequence[int]
) -> tuple[tuple[int, ...], int]:
    """Take latents out, the weightiest first, until another class comes first."""
    first = int(judge.logits(x[None])[0].argmax())
    for n in range(1, len(spoke) + 1):
        after = int(judge.logits(without(dictionary, x[None], spoke[:n]))[0].argmax())
        if after != first:
            return tuple(spoke[:n]), after
    return (), first


def without(
    dictionary: Dictionary, x: Float[Tensor, "items d_joint"], latents: Sequence[int] | Int[Tensor, " n"]
) -> Float[Tensor, "items d_joint"]:
    """Return vectors without what some latents write into them; the rest, the error too, stays."""
    x, codes = x.float(), encoded(dictionary, x.float())
    for latent in map(int, latents):
        x = x - strengths(codes, latent)[:, None] * dictionary.W_dec[latent].detach().float().cpu()
    return x
