"""What a reconstruction does to the subject: its answers with the activation replaced, against ablations."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sae.activations.store import TRAINING_KINDS
from sae.dictionaries.base import Dictionary
from sae.evaluation.metric import Metric, Sums, register
from sae.inputs.base import Labelled
from sae.subjects.base import Activation, Edit, ImageTextSubject, Subject
from sae.subjects.splice import ablate, predictions, put, record
from sae.tensors import Batch


@dataclass(frozen=True)
class NextTokenLosses:
    """Per predicted token of one example: cross-entropies in nats in four conditions, and the divergence from clean."""

    clean: Float[Tensor, " tokens"]
    spliced: Float[Tensor, " tokens"]
    zero: Float[Tensor, " tokens"]
    mean: Float[Tensor, " tokens"]
    kl: Float[Tensor, " tokens"]


@dataclass(frozen=True)
class ZeroShot:
    """Per image: zero-shot loss in nats, hit and caption cosine in the four conditions, in the order of CONDITIONS."""

    losses: Float[Tensor, "conditions images"]
    hits: Bool[Tensor, "conditions images"]
    caption_cosine: Float[Tensor, "conditions images"] | None


CONDITIONS = ("clean", "spliced", "zero", "mean")


@dataclass(frozen=True)
class Splice:
    """A dictionary in the place of activations: where it reads, and what it writes over.

    Everything is read in the untouched subject: of several sites, or where input and output are apart, each output is
    what the dictionary makes of activations that nothing has replaced yet.

    Attributes:
        reads: hookpoints whose vectors it takes, side by side.
        means: mean vectors of the hookpoints that it writes, in their order.
    """

    dictionary: Dictionary
    reads: tuple[str, ...]
    means: Mapping[str, Float[Tensor, " _"]]

    def conditions(self, subject: Subject, batch: Batch) -> Iterator[tuple[str, dict[str, Edit]]]:
        """Yield the edits of each of CONDITIONS; "clean" must have been run before the next is asked for.

        Clean only records what is read. Then come the reconstruction without its error, zeros, and the mean vector.
        """
        keep = {name: trained_rows(subject, batch, name) for name in {**dict.fromkeys(self.reads), **self.means}}
        found: dict[str, Activation] = {}
        yield "clean", {name: record(found, name) for name in self.reads}
        x = torch.cat([_rows(found[name], keep[name]) for name in self.reads], dim=1)
        parts = self.dictionary(x).split([len(mean) for mean in self.means.values()], dim=1)
        yield "spliced", {name: put(part, keep[name]) for name, part in zip(self.means, parts, strict=True)}
        yield "zero", {name: ablate("zero", keep=keep[name]) for name in self.means}
        yield "mean", {name: ablate("mean", mean, keep[name]) for name, mean in self.means.items()}


def _rows(x: Activation, keep: Bool[Tensor, "example pos"]) -> Float[Tensor, "n d_in"]:
    return x[keep.to(x.device)].float()


def trained_rows(subject: Subject, batch: Batch, hookpoint: str) -> Bool[Tensor, "example pos"]:
    """Mark the positions whose activation is replaced: rows of the kinds that dictionaries are trained on.

    The others (BOS, special) keep their activation in every condition, so that all compare alike.
    """
    return subject.rows(batch, subject.hookpoints()[hookpoint].grid).of_kinds(TRAINING_KINDS)


def next_token_losses(splice: Splice, subject: Subject, batches: Iterable[Batch]) -> Iterator[NextTokenLosses]:
    """Run every batch in the four conditions and yield the losses of each example.

    Predictions made at a BOS position are left out, since nothing is replaced there; so are targets that are padding
    or special.
    """
    for batch in batches:
        assert batch.tokens is not None
        scored = predictions(batch, trained_rows(subject, batch, splice.reads[0]))
        log_probs = {}
        with torch.no_grad():
            for name, edits in splice.conditions(subject, batch):
                log_probs[name] = subject.forward(batch, edits)[:, :-1].float().log_softmax(-1)
        targets = batch.tokens[:, 1:].long().to(log_probs["clean"].device)
        losses = {name: -p.gather(-1, targets[..., None]).squeeze(-1) for name, p in log_probs.items()}
        kl = F.kl_div(log_probs["spliced"], log_probs["clean"], log_target=True, reduction="none").sum(-1)
        for i in range(len(batch)):
            row = scored[i].to(kl.device)
            yield NextTokenLosses(
                clean=losses["clean"][i][row],
                spliced=losses["spliced"][i][row],
                zero=losses["zero"][i][row],
                mean=losses["mean"][i][row],
                kl=kl[i][row],
            )


def zero_shot_answers(
    splice: Splice, subject: ImageTextSubject, batches: Iterable[Batch], inputs: Labelled
) -> Iterator[ZeroShot]:
    """Classify every image over the classes of its inputs in the four conditions.

    Images without an answer (-1) are left out. Logits are the subject's own, logit_scale applied; where a batch has
    captions, their cosine with the image is kept too. The classifier is made once by the untouched subject, so a
    hookpoint of the text tower acts on captions only.
    """
    assert inputs.classes is not None
    classifier = subject.zero_shot_classifier(inputs.classes.prompts)
    for batch in batches:
        answers = inputs.labels(batch.first_example, batch.first_example + len(batch))[inputs.classes.family]
        target = torch.from_numpy(answers).long()
        known = target >= 0
        losses, hits, cosines = [], [], []
        with torch.no_grad():
            for _, edits in splice.conditions(subject, batch):
                out = subject.forward(batch, edits)
                logits = out.logits(classifier).float()
                logits, right = logits.cpu()[known], target[known]
                losses.append(F.cross_entropy(logits, right, reduction="none"))
                hits.append(logits.argmax(-1) == right)
                if out.text is not None:
                    cosines.append((out.image * out.text).sum(-1).float().cpu()[known])
        yield ZeroShot(torch.stack(losses), torch.stack(hits), torch.stack(cosines) if cosines else None)


def _language_sums(chunk: NextTokenLosses) -> Sums:
    parts = (chunk.clean, chunk.spliced, chunk.zero, chunk.mean, chunk.kl)
    return torch.stack([torch.ones_like(chunk.kl).double().sum(), *(part.double().sum() for part in parts)])


def _share(total: Float[Tensor, "*draws sums"], ablated: int) -> Float[Tensor, "*draws"]:
    clean, spliced = total[..., 1], total[..., 2]
    return (total[..., ablated] - spliced) / (total[..., ablated] - clean)


class _LanguageMetric(Metric):
    unit = "tokens"
    sums = staticmethod(_language_sums)


@register
class CeRecovered(_LanguageMetric):
    """Recovered share of cross-entropy, zero ablation: (CE_zero - CE_spliced) / (CE_zero - CE_clean).

    Next-token cross-entropies in nats, averaged over the same tokens with the hookpoint's activation zeroed, replaced
    by its reconstruction, or left alone. 1 is a perfect reconstruction, 0 no better than zeros; higher is better;
    unbounded below. Excluded: predictions at BOS, padding and special targets (Bricken et al. 2023).
    """

    name, better = "ce_recovered", "higher"

    @staticmethod
    def value(total: Float[Tensor, "*draws sums"]) -> Float[Tensor, "*draws"]:
        return _share(total, 3)


@register
class CeRecoveredMean(_LanguageMetric):
    """Recovered share of cross-entropy against mean ablation: as `ce_recovered`, the mean vector instead of zeros."""

    name, better = "ce_recovered_mean", "higher"

    @staticmethod
    def value(total: Float[Tensor, "*draws sums"]) -> Float[Tensor, "*draws"]:
        return _share(total, 4)


@register
class CeIncrease(_LanguageMetric):
    """Mean increase of next-token cross-entropy, in nats, when the reconstruction is spliced in; lower is better."""

    name, better = "ce_increase", "lower"

    @staticmethod
    def value(total: Float[Tensor, "*draws sums"]) -> Float[Tensor, "*draws"]:
        return (total[..., 2] - total[..., 1]) / total[..., 0]


@register
class Kl(_LanguageMetric):
    """Mean over tokens of KL(clean || spliced) of the next-token distributions, in nats; 0 is perfect."""

    name, better, bounds = "kl", "lower", (0.0, math.inf)

    @staticmethod
    def value(total: Float[Tensor, "*draws sums"]) -> Float[Tensor, "*draws"]:
        return total[..., 5] / total[..., 0]


def _clip_sums(chunk: ZeroShot) -> Sums:
    n = chunk.losses.new_tensor([chunk.losses.shape[1]])
    cosine = chunk.caption_cosine if chunk.caption_cosine is not None else torch.full_like(chunk.losses, torch.nan)
    return torch.cat([n, chunk.losses.sum(1), chunk.hits.to(n.dtype).sum(1), cosine.sum(1)]).double()


class _ClipMetric(Metric):
    unit = "images"
    sums = staticmethod(_clip_sums)


@register
class ZeroShotAccuracy(_ClipMetric):
    """Zero-shot top-1 accuracy over all classes with the reconstruction spliced in; in [0, 1], higher is better."""

    name, better, bounds = "zero_shot_accuracy", "higher", (0.0, 1.0)

    @staticmethod
    def value(total: Float[Tensor, "*draws sums"]) -> Float[Tensor, "*draws"]:
        return total[..., 6] / total[..., 0]


@register
class ZeroShotAccuracyClean(_ClipMetric):
    """Zero-shot top-1 accuracy of the untouched subject, for comparison; in [0, 1]."""

    name, better, bounds = "zero_shot_accuracy_clean", "neither", (0.0, 1.0)

    @staticmethod
    def value(total: Float[Tensor, "*draws sums"]) -> Float[Tensor, "*draws"]:
        return total[..., 5] / total[..., 0]


@register
class ZeroShotCeRecovered(_ClipMetric):
    """Recovered share of the zero-shot loss, zero ablation: as `ce_recovered`, over classes, with logit_scale."""

    name, better = "zero_shot_ce_recovered", "higher"

    @staticmethod
    def value(total: Float[Tensor, "*draws sums"]) -> Float[Tensor, "*draws"]:
        return _share(total, 3)


@register
class ZeroShotCeRecoveredMean(_ClipMetric):
    """Recovered share of the zero-shot classification loss against mean ablation."""

    name, better = "zero_shot_ce_recovered_mean", "higher"

    @staticmethod
    def value(total: Float[Tensor, "*draws sums"]) -> Float[Tensor, "*draws"]:
        return _share(total, 4)


@register
class CaptionCosineChange(_ClipMetric):
    """Mean change of the image-caption cosine with the reconstruction spliced in; 0 is best, nan without captions."""

    name, better, bounds = "caption_cosine_change", "neither", (-2.0, 2.0)

    @staticmethod
    def value(total: Float[Tensor, "*draws sums"]) -> Float[Tensor, "*draws"]:
        return (total[..., 10] - total[..., 9]) / total[..., 0]


LANGUAGE_METRICS = (CeRecovered, CeRecoveredMean, CeIncrease, Kl)
CLIP_METRICS = (
    ZeroShotAccuracy,
    ZeroShotAccuracyClean,
    ZeroShotCeRecovered,
    ZeroShotCeRecoveredMean,
    CaptionCosineChange,
)
