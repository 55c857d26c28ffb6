"""Held-out answers of a subject by concept, ready to be asked again and again with vectors changed.

Activations at one hookpoint are read once. Every change starts from there: only examples that it touches run on, and
where the subject can (`resume`), only through what lies behind the hookpoint.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.dictionaries.codes import Codes
from sae.errors import ConfigError, EvaluationError, nearest
from sae.evaluation.sample import encoded
from sae.evaluation.splicing import trained_rows
from sae.features.removal import copied, stacked
from sae.kernels import interface as kernels
from sae.lab.change.interventions import Change, Parts, changed, check_latents, places
from sae.lab.workbench import Workbench
from sae.subjects.base import Activation
from sae.subjects.splice import predictions
from sae.tensors import Batch

BATCH = {"clip": 256, "language": 16}
MEASURES = ("score", "accuracy")
Score = Callable[[Activation, Int[Tensor, " chosen"]], Float[Tensor, "chosen answers measures"]]


@dataclass(frozen=True)
class Panel:
    """Items (images, or predictions of a next token), the concepts that each has, and how the subject answers them.

    Attributes:
        names: of the concepts.
        member: the concepts of each item.
        x: activations of the untouched subject.
        keep: the positions that may change.
        counted: the places of the answers that are items, in their order.
        score: answers of some examples, given their activations: the score of what is right, which is its probability
            among the classes of an image or its log-probability in nats among tokens, and whether it comes first.
        batch_examples: how many examples run at a time.
        logarithmic: whether scores are log-probabilities.
    """

    names: tuple[str, ...]
    member: Bool[Tensor, "items concepts"]
    x: Activation
    keep: Bool[Tensor, "example pos"]
    counted: Bool[Tensor, "example answers"]
    score: Score = field(repr=False)
    batch_examples: int
    logarithmic: bool = False

    @cached_property
    def rows(self) -> Float[Tensor, "rows d_in"]:
        """The vectors that may change."""
        return self.x[self.keep].float()

    @cached_property
    def clean(self) -> Float[Tensor, "items measures"]:
        """Answers of the untouched subject."""
        return self._clean_grid[self.counted]

    @cached_property
    def _clean_grid(self) -> Float[Tensor, "example answers measures"]:
        return self._answers(self.x, torch.arange(len(self.x)))

    def of(self, concept: int) -> "Panel":
        """Return the panel of a concept's own items: the examples that have any, and that concept alone."""
        grid = torch.zeros(self.counted.shape, dtype=torch.bool)
        grid[self.counted] = self.member[:, concept]
        chosen = grid.any(1).nonzero()[:, 0]
        return replace(
            self,
            names=(self.names[concept],),
            member=torch.ones(int(grid.sum()), 1, dtype=torch.bool),
            x=self.x[chosen],
            keep=self.keep[chosen],
            counted=grid[chosen],
            score=lambda x, examples: self.score(x, chosen[examples]),
        )

    def of_families(self, families: Sequence[str]) -> "Panel":
        """Return the panel of labels of some families alone; of all of them if none is named.

        Raises:
            ConfigError: a family has no labels.
        """
        known = [name.partition("=")[0] for name in self.names]
        for family in families:
            if family not in known:
                raise ConfigError(f"families: no label of {family!r} is frequent enough.{nearest(family, set(known))}")
        chosen = [number for number, family in enumerate(known) if not families or family in families]
        return replace(self, names=tuple(self.names[n] for n in chosen), member=self.member[:, chosen])

    def halved(self, clean: Float[Tensor, "*n"], now: Float[Tensor, "*n"]) -> Bool[Tensor, "*n"]:
        """Return which scores are at most half of what they were: of probabilities, or of their geometric means."""
        return now <= (clean - math.log(2) if self.logarithmic else clean / 2)

    def moved(self, delta: Float[Tensor, "rows d_in"]) -> Float[Tensor, "items measures"]:
        """Return answers with something added to every vector; examples to which nothing is added keep theirs."""
        example = self.keep.nonzero()[:, 0]
        touched = torch.zeros(len(self.x), dtype=torch.bool)
        touched[example[(delta != 0).any(1)]] = True
        grid, chosen = self._clean_grid.clone(), touched.nonzero()[:, 0]
        if len(chosen):
            x, mine = self.x[chosen].clone(), touched[example]
            x[self.keep[chosen]] = (x[self.keep[chosen]].float() + delta[mine]).to(x.dtype)
            grid[chosen] = self._answers(x, chosen)
        return grid[self.counted]

    def changed(self, parts: Parts, change: Change) -> Float[Tensor, "items measures"]:
        """Return answers with parts changed wherever they may."""
        return self.moved(changed(self.rows, parts, change))

    def without(self, dictionary: Dictionary, codes: Codes, latents: Sequence[int]) -> Float[Tensor, "items measures"]:
        """Return answers with latents removed wherever they fire, in memory that does not grow with their number.

        Args:
            dictionary: whose latents.
            codes: of the panel's rows (see `panel_codes`).
            latents: their numbers.

        Raises:
            DictionaryError: there is no such latent, a latent is named twice, or none is.
        """
        check_latents(dictionary, latents)
        return self.moved(-summed(codes.of_latents(latents), dictionary.W_dec))

    def by_concept(
        self, values: Float[Tensor, "items measures"], without: int | None = None
    ) -> Float[Tensor, "concepts measures"]:
        """Return means over each concept's items, of others than `without` those that do not have it; nan over none."""
        member = self.member
        if without is not None:
            own = member[:, without]
            member = member & ~own[:, None]
            member[:, without] = own
        weights = member.double()
        return weights.T @ values.double() / weights.sum(0)[:, None]

    def _answers(self, x: Activation, examples: Int[Tensor, " chosen"]) -> Float[Tensor, "chosen answers measures"]:
        pieces = zip(x.split(self.batch_examples), examples.split(self.batch_examples), strict=True)
        with torch.no_grad():
            return torch.cat([self.score(part, these) for part, these in pieces])


@torch.no_grad()
def summed(codes: Codes, directions: Float[Tensor, "d_sae d_out"]) -> Float[Tensor, "rows d_out"]:
    """Return what codes add to each row along directions, exactly zero where a row has none."""
    added = kernels.decode(codes.offsets, codes.indices, codes.values.float(), directions.float().cpu())
    return added if codes.row_deviation is None else added * codes.row_deviation.float()


def coded_parts(dictionary: Dictionary, codes: Codes, latents: list[int]) -> Parts:
    """Return latents as parts of rows whose codes are known, so that nothing is encoded again (see `latent_parts`)."""
    check_latents(dictionary, latents)
    amounts = torch.stack([codes.column(latent).float() for latent in latents], dim=1)
    worth = amounts.new_ones(len(amounts), 1) if codes.row_deviation is None else codes.row_deviation.float()
    return Parts(dictionary.W_dec.detach()[latents].float().cpu(), lambda _: (amounts, worth))


def panel_codes(panel: Panel, dictionary: Dictionary) -> Codes:
    """Return the codes of a panel's rows."""
    return encoded(dictionary, panel.rows)


def open_panel(bench: Workbench, per_concept: int, n_examples: int, match: bool = False) -> Panel:
    """Take a panel from the half of the sample to score on, or from the half to choose on.

    Args:
        bench: with a dictionary of one hookpoint.
        per_concept: images of each concept, the first ones.
        n_examples: texts, the first ones.
        match: which half.

    Raises:
        EvaluationError: images without classes, an image dictionary of the text tower, or a subject that does not
            predict the next token.
        DictionaryError: a transcoder or a dictionary of several hookpoints.
    """
    reads, writes = places(bench.dictionary)
    if reads != writes:
        raise EvaluationError(
            f"{bench.dictionary!r}: a transcoder; a panel takes dictionaries that write what they read."
        )
    if bench.subject.kind == "clip":
        return _of_images(bench, reads, per_concept, match)
    if not getattr(bench.subject, "predicts_next_token", False):
        raise EvaluationError(f"{bench.subject.id}: does not predict the next token, so it has no answers to lose.")
    return _of_texts(bench, reads, n_examples, match)


def _of_images(bench: Workbench, hookpoint: str, per_concept: int, match: bool) -> Panel:
    classes, subject = getattr(bench.inputs, "classes", None), bench.subject
    if classes is None or not hookpoint.startswith("visual."):
        raise EvaluationError(
            f"{subject.id} {hookpoint}: needs images with classes, and a hookpoint of the image tower."
        )
    sample = bench.sample
    answers = torch.from_numpy(np.asarray(sample.labels[classes.family])).long()
    half = sample.match if match else ~sample.match
    chosen = [(half & (answers == one)).nonzero()[:per_concept, 0] for one in range(len(classes.prompts))]
    items = torch.cat(chosen).sort().values
    batch = stacked([bench.inputs.batch(one, one + 1) for one in sample.example[items].tolist()])
    batch = Batch(first_example=0, images=batch.images)
    x = torch.cat([subject.run(part, [hookpoint])[hookpoint] for part in _cut(batch, BATCH["clip"])]).cpu()
    classifier = subject.zero_shot_classifier(classes.prompts)  # type: ignore[attr-defined]
    target, resume = answers[items], getattr(subject, "resume", lambda *_: None)

    def score(x: Activation, examples: Int[Tensor, " chosen"]) -> Float[Tensor, "chosen answers measures"]:
        out = resume(hookpoint, x) or subject.forward(copied(batch, examples), {hookpoint: lambda _: x})
        logits, right = out.logits(classifier).float().cpu(), target[examples]
        probability = logits.softmax(-1).gather(1, right[:, None])
        return torch.stack([probability, (logits.argmax(-1) == right)[:, None].float()], dim=-1)

    member = target[:, None] == torch.arange(len(classes.prompts))
    names = tuple(bench.inputs.label_names[classes.family])  # type: ignore[attr-defined]
    keep = torch.cat([trained_rows(subject, part, hookpoint) for part in _cut(batch, BATCH["clip"])])
    return Panel(names, member, x, keep.cpu(), torch.ones(len(items), 1, dtype=torch.bool), score, BATCH["clip"])


def _of_texts(bench: Workbench, hookpoint: str, n_examples: int, match: bool) -> Panel:
    sample, subject = bench.sample, bench.subject
    half = sample.match if match else ~sample.match
    examples = sample.rows.example[half].unique()[:n_examples]
    batch = stacked([bench.inputs.batch(one, one + 1) for one in examples.tolist()])
    assert batch.tokens is not None
    keep = trained_rows(subject, batch, hookpoint).cpu()
    x = torch.cat([subject.run(part, [hookpoint])[hookpoint] for part in _cut(batch, BATCH["language"])]).cpu()
    row_of = torch.full(keep.shape, -1)
    mine = torch.isin(sample.rows.example, examples)
    place = torch.searchsorted(examples, sample.rows.example[mine])
    row_of[place, sample.rows.position[mine].long()] = mine.nonzero()[:, 0]
    counted = predictions(batch, keep).cpu() & (row_of[:, :-1] >= 0)
    right = batch.tokens[:, 1:].long()

    def score(x: Activation, chosen: Int[Tensor, " chosen"]) -> Float[Tensor, "chosen answers measures"]:
        logits = subject.forward(copied(batch, chosen), {hookpoint: lambda _: x})[:, :-1].float().cpu()
        target = right[chosen][..., None]
        log_p = logits.gather(-1, target).squeeze(-1) - logits.logsumexp(-1)
        return torch.stack([log_p, (logits.argmax(-1) == target.squeeze(-1)).float()], dim=-1)

    member = sample.table.columns[row_of[:, :-1][counted]]
    return Panel(sample.table.names, member, x, keep, counted, score, BATCH["language"], logarithmic=True)


def _cut(batch: Batch, size: int) -> list[Batch]:
    return [copied(batch, part) for part in torch.arange(len(batch)).split(size)]
