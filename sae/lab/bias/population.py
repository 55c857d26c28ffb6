"""Who is judged: labelled items with judgements, and their pictures again with other looks."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.activations.store import Provenance
from sae.errors import EvaluationError, nearest
from sae.evaluation.sample import Sample
from sae.inputs.base import Varied
from sae.lab.bias.decision import Judge
from sae.lab.bias.leaning import Effects
from sae.lab.change.interventions import places
from sae.lab.words.joint import BATCH_IMAGES, EXACT
from sae.lab.workbench import Workbench
from sae.tensors import Batch


@dataclass(frozen=True)
class Population:
    """Items and their judgements.

    Attributes:
        sample: the items alone.
        judge: between the classes that any of them is.
        truth: class of each.
        values: sensitive values, `family=value`, that some of them have and some have not.
        has: which each has.
        shown: of which it can be told.
    """

    sample: Sample
    judge: Judge
    truth: Int[Tensor, " items"]
    values: tuple[str, ...]
    has: Bool[Tensor, "items values"]
    shown: Bool[Tensor, "items values"]

    @cached_property
    def x(self) -> Float[Tensor, "items d_joint"]:
        return self.sample.x.float()

    @cached_property
    def probability(self) -> Float[Tensor, "items judgements"]:
        return self.judge.logits(self.x).softmax(-1)

    @cached_property
    def judged(self) -> Int[Tensor, " items"]:
        return self.probability.argmax(-1)


def population(bench: Workbench, among: str | None, sensitive: Sequence[str]) -> Population:
    """Take the items of a label and the classes that these are.

    Args:
        bench: with a dictionary of the joint space.
        among: `family=value`; all items that have a class if None.
        sensitive: families of labels that should not matter; none where these are known as words alone.

    Raises:
        EvaluationError: the dictionary is not of the image's place in the joint space, inputs have no classes or no
            such labels, or a family is the same for all.
    """
    reads, writes = places(bench.dictionary)
    if (reads, writes) != (EXACT, EXACT):
        raise EvaluationError(
            f"{bench.dictionary!r}: reads {reads} and writes {writes}; judgements are taken apart "
            f"in the joint space, so the audit needs a dictionary of {EXACT}."
        )
    classes, sample = getattr(bench.inputs, "classes", None), bench.sample
    if classes is None:
        raise EvaluationError(f"{bench.inputs.describe()}: these inputs have no classes to judge between.")
    answer = np.asarray(sample.labels[classes.family])
    keep = torch.from_numpy(answer >= 0) & _having(sample, among)
    numbers, truth = np.unique(answer[keep.numpy()], return_inverse=True)
    names = [str(sample.label_names[classes.family][number]) for number in numbers]
    prompts = [classes.prompts[number] for number in numbers]
    judge = Judge.of(bench.subject, names, prompts, _batch(bench, int(sample.example[0])))
    kept = _only(sample, keep)
    values, columns = [], []
    for family in sensitive:
        labels, called = _family(kept, family)
        for number in np.unique(labels[labels >= 0]):
            has, shown = torch.from_numpy(labels == number), torch.from_numpy(labels >= 0)
            if has.any() and (shown & ~has).any():
                values.append(f"{family}={called[number]}")
                columns.append(torch.stack([has, shown]))
    if sensitive and not values:
        raise EvaluationError(f"sensitive: no two of the {int(keep.sum())} items differ in {', '.join(sensitive)}.")
    has, shown = torch.stack(columns, -1) if columns else torch.zeros(2, kept.n_items, 0, dtype=torch.bool)
    return Population(kept, judge, torch.from_numpy(truth), tuple(values), has, shown)


@dataclass(frozen=True)
class Pairs:
    """Pictures with every value of one family, all else alike, in the joint space.

    Attributes:
        family: of the values.
        x: their embeddings.
        effects: what the values do to judgements.
        match: which pictures latents are chosen on.
    """

    family: str
    x: Float[Tensor, "pictures values d_joint"]
    effects: Effects
    match: Bool[Tensor, " pictures"]

    def on(self, chosen: Bool[Tensor, " pictures"], judge: Judge, x: Tensor | None = None) -> Effects:
        """Return the effects over some of the pictures, by default of the embeddings as they are."""
        return Effects(judge.centred(self.x if x is None else x)[chosen], self.effects.values)


def pairs(bench: Workbench, judged: Population, sensitive: Sequence[str], per_class: int) -> dict[str, Pairs]:
    """Show items again with other looks: of each class as many as `per_class`, by family; none of inputs that cannot.

    Families that a picture shows with other values than most do not vary in it; those pictures are left out.
    """
    inputs, found = bench.inputs, {}
    if not isinstance(inputs, Varied):
        return found
    for family in sensitive:
        shown, match, values = [], [], ()
        for number in range(len(judged.judge.names)):
            n = 0
            for item in (judged.truth == number).nonzero()[:, 0].tolist():
                example = int(judged.sample.example[item])
                varied = inputs.varied(example, family) if n < per_class else {}
                values = values or tuple(varied)
                if varied and tuple(varied) == values:
                    n += 1
                    shown.append(torch.cat([one.images for one in varied.values()]))  # type: ignore[misc]
                    match.append(bool(judged.sample.match[item]))
        if len(values) > 1 and 1 < sum(match) < len(match) - 1:
            x = _embedded(bench, torch.cat(shown)).unflatten(0, (len(shown), len(values)))
            found[family] = Pairs(family, x, Effects(judged.judge.centred(x), values), torch.tensor(match))
    return found


def _embedded(bench: Workbench, images: Tensor) -> Float[Tensor, "images d_joint"]:
    parts = [Batch(first_example=0, images=part) for part in images.split(BATCH_IMAGES)]
    return torch.cat([bench.subject.run(part, [EXACT])[EXACT][:, 0].float().cpu() for part in parts])


def _batch(bench: Workbench, example: int) -> Batch:
    return Batch(first_example=example, images=bench.inputs.batch(example, example + 1).images)


def _having(sample: Sample, label: str | None) -> Bool[Tensor, " items"]:
    """Return the items with a label."""
    if label is None:
        return torch.ones(sample.n_items, dtype=torch.bool)
    family, _, value = label.partition("=")
    labels, called = _family(sample, family)
    if value not in called:
        raise EvaluationError(f"among: no value {value!r} of {family}.{nearest(value, called)}")
    return torch.from_numpy(labels == list(called).index(value))


def _family(sample: Sample, family: str) -> tuple[np.ndarray, Sequence[str]]:
    if family not in sample.label_names or family not in sample.labels:
        raise EvaluationError(f"no label family {family!r}.{nearest(family, sample.label_names)}")
    return np.asarray(sample.labels[family]), sample.label_names[family]


def _only(sample: Sample, keep: Bool[Tensor, " items"]) -> Sample:
    """Return some items of a sample; those of the joint space have one row each."""
    chosen = keep.numpy()
    return dataclasses.replace(
        sample,
        x=sample.x[keep],
        rows=Provenance(sample.rows.example[keep], sample.rows.position[keep], sample.rows.kind[keep]),
        labels={family: values[chosen] for family, values in sample.labels.items()},
        factors={family: values[chosen] for family, values in sample.factors.items()},
        match=sample.match[keep],
    )
