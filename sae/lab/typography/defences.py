"""The defences: latents that read, by three ways of finding them, and all that stands beside them.

All are found on the half to match on. Directions that are no latents are projected out towards the mean of the clean
pictures. Removing a spelling subspace of the joint space follows Materzynska, Torralba and Bau 2022 (*Disentangling
visual and written concepts in CLIP*); they learn one projection with a triplet of losses on images and texts of their
own, here (`learnt_subspace`) the subspace to remove is learnt by what the classes' names answer, from its principal
components on.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.dictionaries.codes import Codes
from sae.lab.change.interventions import vector_parts
from sae.lab.typography.defence import (
    CLEAN,
    EMBEDDING,
    WORDS,
    WRITTEN,
    Answers,
    Bed,
    Defence,
    Point,
    chosen,
    curves,
)
from sae.lab.typography.written import CHOOSE, FIND, SCORE, right, succeeded
from sae.lab.words.joint import Written
from sae.subjects.base import Activation
from sae.subjects.heads import Head, attention_heads, mean_contributions, without_heads
from sae.tensors import Batch

logger = logging.getLogger(__name__)

MOST = 3 / 4
"""Of all latents that are removed at most, and a third of them beside others as active."""
SHARES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
READING = ("latents by both", "latents by words alone", "latents by rise", "latents by effect")
HEADS, LEARNT, PRINCIPAL = "attention heads", "spelling subspace, learnt", "spelling subspace, principal"
RANDOM, AS_ACTIVE = "random latents", "random latents as active"
DRAWS = 2
LEARNING_STEPS, LEARNING_RATE = 80, 0.02
_GRADIENT_IMAGES, _MEAN_IMAGES = 64, 256


def defences(matched: Bed, dictionary: Dictionary, heads: int | None, seed: int) -> list[Defence]:
    """Return every defence, found on a bed of the half to match on.

    Args:
        matched: that bed.
        dictionary: whose latents go.
        heads: look for heads in so many last layers of a transformer; None for all.
        seed: of random latents.
    """
    found, written = readers(matched, dictionary), mean_activation(matched.codes(dictionary, WRITTEN))
    counts = counts_to(round(MOST * dictionary.d_sae))
    best = found[0].latents[: dictionary.d_sae // 3]
    found.append(_latents(AS_ACTIVE, dictionary, as_active(best, written), counts))
    found += _random(dictionary, written, counts, seed)
    return [*found, _neurons(matched), _difference(matched), *_subspaces(matched), *_heads(matched, heads)]


def readers(matched: Bed, dictionary: Dictionary) -> list[Defence]:
    """Return the defences of which latents that read go, one for each of the ways of finding them, `READING`."""
    written, alone, clean = (mean_activation(matched.codes(dictionary, kind)) for kind in (WRITTEN, WORDS, CLEAN))
    scores = both(written, alone, clean), alone - clean, written - clean, effects(matched, dictionary)
    counts = counts_to(round(MOST * dictionary.d_sae))
    return [
        _latents(name, dictionary, score.argsort(descending=True).tolist(), counts)
        for name, score in zip(READING, scores, strict=True)
    ]


def counts_to(most: int) -> tuple[int, ...]:
    """Return powers of two, from 128 on one and a half of each as well, as far as `most`."""
    doubled = [2**i for i in range(max(most, 1).bit_length())]
    return tuple(one for one in sorted({*doubled, *(3 * one // 2 for one in doubled if one >= 128)}) if one <= most)


def mean_activation(codes: Codes) -> Float[Tensor, " d_sae"]:
    """Return the mean of every latent over rows."""
    total = torch.zeros(codes.d_sae, dtype=torch.float64)
    return total.index_add_(0, codes.indices.long(), codes.values.detach().double()) / len(codes)


def both(
    written: Float[Tensor, " d_sae"], alone: Float[Tensor, " d_sae"], clean: Float[Tensor, " d_sae"]
) -> Float[Tensor, " d_sae"]:
    """Return by how much each latent rises for words on pictures and for words alone, the smaller of the two, less its
    mean on clean pictures once more, so that what pictures need as well goes last.
    """
    return torch.minimum(written, alone) - 2 * clean


def effects(bed: Bed, dictionary: Dictionary) -> Float[Tensor, " d_sae"]:
    """Return by how much each latent favours the written word over the truth, to first order, over pictures.

    The mean over written pictures of sum over positions of z <d, d(cos(image, word) - cos(image, truth))/dx>, less the
    same of the clean ones.
    """
    totals = []
    for kind in (WRITTEN, CLEAN):
        total = torch.zeros(dictionary.d_sae)
        panel, target = bed.panels(bed.hookpoint)[kind], bed.reader.classifier
        towards = target[bed.pairs.word] - target[bed.pairs.truth]
        for part in torch.arange(len(panel.x)).split(_GRADIENT_IMAGES):
            leaf: dict[str, Tensor] = {}

            def edit(x: Activation, leaf: dict[str, Tensor] = leaf) -> Activation:
                leaf["x"] = x.detach().clone().requires_grad_(True)
                return leaf["x"]

            batch = Batch(first_example=0, images=bed.images[kind][part])
            image = bed.subject.forward(batch, {bed.hookpoint: edit}, grad=True).image
            (grad,) = torch.autograd.grad((image * towards[part].to(image)).sum(), leaf["x"])
            keep = panel.keep[part].to(grad.device)
            total += Written(dictionary, leaf["x"].detach()[keep].float()).along(grad[keep].float()).cpu()
        totals.append(total / len(panel.x))
    return totals[0] - totals[1]


def as_active(latents: Sequence[int], activity: Float[Tensor, " d_sae"]) -> list[int]:
    """Return for each latent another one, none twice and none of them, that is most nearly as active on average."""
    free = torch.ones(len(activity), dtype=torch.bool)
    free[list(latents)] = False
    found = []
    for latent in latents:
        if not free.any():
            break
        nearest = int((activity - activity[latent]).abs().masked_fill(~free, torch.inf).argmin())
        free[nearest] = False
        found.append(nearest)
    return found


def on_unseen_words(beds: Mapping[str, Bed], dictionary: Dictionary) -> dict[str, float]:
    """Find latents on every other word only; return success on those words and on the others, held out.

    Whether they read, or each only knows words that it was found by: the other words have no part in which latents go,
    nor in how many, nor in the way of finding them. Nothing is told of a single word.
    """
    words = beds[FIND].pairs.word.unique()
    if len(words) < 2:
        return {}
    kinds = readers(beds[FIND].on_words(words[::2]), dictionary)
    found_by, scored = curves(beds[CHOOSE].on_words(words[::2]), kinds), beds[SCORE]
    latents = leading(kinds, found_by)[1]
    before = scored.untouched()
    after = scored.without_latents(dictionary, latents) if latents else before
    seen, found = torch.isin(scored.pairs.word, words[::2]), {"number": float(len(latents))}
    for when, answers in (("before", before), ("after", after)):
        wins = succeeded(answers[WRITTEN], before[CLEAN], scored.pairs.word)[:, 0].double()
        found |= {
            f"words found by, {when}": float(wins[seen].mean()),
            f"other words, {when}": float(wins[~seen].mean()),
        }
    return found


def leading(kinds: Sequence[Defence], points: Mapping[str, Sequence[Point]]) -> tuple[str, list[int]]:
    """Return the way of finding latents that read that leaves least success, and those that go by it.

    Args:
        kinds: defences, those of `readers` among them.
        points: the curve of each where numbers are chosen.
    """
    lead = min(READING, key=lambda name: points[name][chosen(points[name])].success[0])
    latents = next(one.latents for one in kinds if one.name == lead)
    return lead, list(latents[: int(points[lead][chosen(points[lead])].amount)])


def _latents(name: str, dictionary: Dictionary, order: Sequence[int], counts: Sequence[int]) -> Defence:
    def answers(bed: Bed, amount: float) -> Answers:
        return bed.without_latents(dictionary, list(order[: int(amount)]))

    return Defence(name, tuple(float(one) for one in counts if one <= len(order)), answers, tuple(order))


def _random(
    dictionary: Dictionary, activity: Float[Tensor, " d_sae"], counts: Sequence[int], seed: int
) -> list[Defence]:
    """Draw latents that fire, several times."""
    alive, generator = (activity != 0).nonzero()[:, 0], torch.Generator().manual_seed(seed)
    orders = [alive[torch.randperm(len(alive), generator=generator)].tolist() for _ in range(DRAWS)]
    return [_latents(RANDOM, dictionary, order, counts) for order in orders]


def _neurons(matched: Bed) -> Defence:
    """Set the neurons that rise most by the writing to their clean mean, in units of their deviation."""
    panels = matched.panels(matched.hookpoint)
    clean, written = panels[CLEAN].rows, panels[WRITTEN].rows
    rise = (written.mean(0) - clean.mean(0)).abs() / clean.std(0).clamp_min(1e-6)
    order, centre = rise.argsort(descending=True), clean.mean(0)

    def answers(bed: Bed, amount: float) -> Answers:
        return bed.without(vector_parts(torch.eye(len(centre))[order[: int(amount)]], centre))

    return Defence("neurons", tuple(map(float, counts_to(len(centre) - 1))), answers)


def _difference(matched: Bed) -> Defence:
    panels = matched.panels(matched.hookpoint)
    centre = panels[CLEAN].rows.mean(0)
    parts = vector_parts((panels[WRITTEN].rows.mean(0) - centre)[None], centre)
    return Defence("difference of means", SHARES, lambda bed, amount: bed.without(parts, amount))


def _subspaces(matched: Bed) -> list[Defence]:
    panels = matched.panels(EMBEDDING)
    clean, written = (panels[kind].x[:, 0].float() for kind in (CLEAN, WRITTEN))
    centre, components = clean.mean(0), spelling_components(written - clean, matched.pairs.word)
    sizes = tuple(float(one) for one in counts_to(min(components.shape) - 1) if one & (one - 1) == 0)

    def principal(bed: Bed, amount: float) -> Answers:
        return bed.without(vector_parts(components[: int(amount)], centre), hookpoint=EMBEDDING)

    learnt: dict[int, Tensor] = {}

    def trained(bed: Bed, amount: float) -> Answers:
        size = int(amount)
        if size not in learnt:
            learnt[size] = learnt_subspace(matched, clean, written, components[:size])
        return bed.without(vector_parts(learnt[size], centre), hookpoint=EMBEDDING)

    return [Defence(PRINCIPAL, sizes, principal), Defence(LEARNT, sizes, trained)]


def spelling_components(differences: Float[Tensor, "pairs d"], word: Tensor) -> Float[Tensor, "components d"]:
    """Return the principal axes of what writing each word adds on average, largest first; no mean is taken off."""
    words, group = word.unique(return_inverse=True)
    means = torch.zeros(len(words), differences.shape[1]).index_add_(0, group, differences) / group.bincount()[:, None]
    return torch.linalg.svd(means, full_matrices=False).Vh


def learnt_subspace(
    bed: Bed, clean: Float[Tensor, "pairs d"], written: Float[Tensor, "pairs d"], start: Float[Tensor, "size d"]
) -> Float[Tensor, "size d"]:
    """Return an orthonormal basis of the subspace whose removal answers the truth best, on clean and written pictures.

    Cross-entropy of the truth under the names of the classes, on both alike; Adam on a basis kept orthonormal by QR.
    """
    basis = start.T.clone().requires_grad_(True)
    classifier, truth, centre = bed.reader.classifier, bed.pairs.truth, clean.mean(0)
    scale = float(bed.subject.forward(Batch(first_example=0, images=bed.images[CLEAN][:1])).logit_scale.exp())
    optimiser = torch.optim.Adam([basis], lr=LEARNING_RATE)
    for _ in range(LEARNING_STEPS):
        optimiser.zero_grad()
        q, loss = torch.linalg.qr(basis).Q, torch.zeros(())
        for x in (clean, written):
            image = F.normalize(x - (x - centre) @ q @ q.T, dim=1)
            loss = loss + F.cross_entropy(scale * image @ classifier.T, truth)
        loss.backward()
        optimiser.step()
    return torch.linalg.qr(basis.detach()).Q.T


def _heads(matched: Bed, last_layers: int | None) -> list[Defence]:
    """Take heads out, first those whose absence alone lowers success most for what it costs clean accuracy."""
    heads = attention_heads(matched.subject, last_layers)
    if not heads:
        logger.info("%s: the attention heads of its image tower are not known, so none is removed.", matched.subject.id)
        return []
    images = matched.images[CLEAN][:_MEAN_IMAGES]
    means = mean_contributions(heads, lambda: matched.subject.forward(Batch(first_example=0, images=images)))
    order: list[Head] = sorted(heads, key=partial(_cost_of, matched, means))
    sizes = range(1, len(heads)) if len(heads) <= 8 else counts_to(len(heads) - 1)

    def answers(bed: Bed, amount: float) -> Answers:
        with without_heads(order[: int(amount)], means):
            return bed.anew()

    return [Defence(HEADS, tuple(map(float, sizes)), answers)]


def _cost_of(bed: Bed, means: Any, head: Head) -> float:
    """Return success and clean errors with a head gone; the lower the better."""
    with without_heads([head], means):
        answers = bed.anew()
    success = succeeded(answers[WRITTEN], bed.untouched()[CLEAN], bed.pairs.word)[:, 0]
    errors = ~right(answers[CLEAN], bed.truth[CLEAN])[:, 0]
    return float(success.double().mean() + errors.double().mean())
