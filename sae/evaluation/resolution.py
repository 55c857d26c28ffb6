"""Are polysemantic neurons resolved: does a latent of its own carry each unrelated concept that a neuron mixes?

A neuron's activation is a sum over latents: x_i = sum_j z_j W_dec[j, i] + b_dec[i] + error. What latent j carries of a
concept c into neuron i is its part in how much more the neuron answers to c than on average:

    share[j, i, c] = W_dec[j, i] (E[z_j | c] - E[z_j]) / (E[x_i | c] - E[x_i])

over the rows of the items with c; these shares and the error's sum to 1. The means are over rows even where items are
pooled, for maxima do not add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.evaluation.meanings import MIXED_AUC, meanings, n_meanings
from sae.evaluation.metric import Measured, item_metric
from sae.evaluation.sample import Units

RESOLVED_AUC = 0.9
"""AUC above which a latent stands for a concept."""
CARRIED_SHARE = 0.1
"""Least share of a neuron's answer to a concept that a latent has to carry."""
_PAIR_BLOCK = 16
"""Pairs matched at a time."""


@dataclass(frozen=True)
class Mixtures:
    """What the polysemantic neurons of a subject mix: one pair of a neuron and a concept per meaning.

    Attributes:
        neuron, label: the pairs, sorted by neuron; the label is the one of its meaning that the neuron detects best.
        auc: of the neuron for the concept, on the half to score on.
        groups: the meaning that each label has for each neuron (see `meanings.meanings`).
        related: which labels are.
    """

    neuron: Int[Tensor, " pairs"]
    label: Int[Tensor, " pairs"]
    auc: Float[Tensor, " pairs"]
    groups: Int[Tensor, "units labels"]
    related: Bool[Tensor, "labels labels"]

    @classmethod
    def of(cls, neurons: Units, related: Bool[Tensor, "labels labels"]) -> "Mixtures":
        """Find them; a neuron answers to a label if its AUC is above 0.8 on both halves."""
        on_match, on_score = neurons.auc
        groups = meanings(_lesser(neurons.auc) > MIXED_AUC, related)
        pairs = []
        for neuron in (_count(groups) > 1).nonzero()[:, 0].tolist():
            for group in groups[neuron].unique().tolist()[1:]:
                members = (groups[neuron] == group).nonzero()[:, 0]
                pairs.append((neuron, int(members[on_match[neuron, members].argmax()])))
        neuron, label = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
        return cls(neuron, label, on_score[neuron, label], groups, related)


@dataclass(frozen=True)
class Carriers:
    """The unit that was matched to each pair of `Mixtures`, and how it does on the half to score on.

    `share` is the unit's; `stood_for` is the summed share of all units that stand for the concept.
    """

    unit: Int[Tensor, " pairs"]
    auc: Float[Tensor, " pairs"]
    share: Float[Tensor, " pairs"]
    mixed: Bool[Tensor, " pairs"]
    stood_for: Float[Tensor, " pairs"]

    @property
    def resolved(self) -> Bool[Tensor, " pairs"]:
        return (self.auc > RESOLVED_AUC) & (self.share >= CARRIED_SHARE) & ~self.mixed

    @classmethod
    def of(cls, units: Units, mixtures: Mixtures) -> "Carriers":
        """Match units to pairs on one half, judge them on the other."""
        on_match, on_score = units.auc
        eligible = n_meanings(on_match, mixtures.related) < 2
        mixed = n_meanings(_lesser(units.auc), mixtures.related) > 1
        stands = _standing(units, mixed)
        (matched, judged), (match_total, judge_total) = _excesses(units), units.sample.label_excess
        W_dec = units.dictionary.W_dec.detach().cpu()
        some = stands.any(1)
        stood_for = (W_dec[some].double().T @ (judged[some] * stands[some]))[mixtures.neuron, mixtures.label]
        # Rows of contiguous transposes are faster to gather than columns.
        fits, carries, writes = on_match.T.contiguous(), matched.T.contiguous(), W_dec.T.contiguous()
        found = []
        for pairs in torch.arange(len(mixtures.neuron)).split(_PAIR_BLOCK):
            neuron, label = mixtures.neuron[pairs], mixtures.label[pairs]
            shares = _share(writes[neuron] * carries[label], match_total[neuron, label, None])
            found.append((fits[label] + (eligible & (shares >= CARRIED_SHARE))).argmax(1))
        unit, neuron, label = torch.cat(found), mixtures.neuron, mixtures.label
        total = judge_total[neuron, label]
        share = _share(W_dec[unit, neuron] * judged[unit, label], total)
        return cls(unit, on_score[unit, label], share, mixed[unit], _share(stood_for, total))


def carriers_of(units: Units, mixtures: Mixtures, n: int = 4) -> list[list[tuple[int, float, float]]]:
    """Return, for each pair of `mixtures`, the latents that stand for its concept and carry most of it.

    What standing for a concept is, `concept_variance_explained` says. Each comes with its AUC and its share of the
    neuron's answer, both on the half to score on, the largest share first; latents that carry nothing, or lower the
    answer, are left out.
    """
    mixed = n_meanings(_lesser(units.auc), mixtures.related) > 1
    stands = _standing(units, mixed).T.contiguous()
    judged, judge_total = _excesses(units)[1].T.contiguous(), units.sample.label_excess[1]
    writes, on_score = units.dictionary.W_dec.detach().cpu().double().T, units.auc[1]
    found = []
    for neuron, label in zip(mixtures.neuron.tolist(), mixtures.label.tolist(), strict=True):
        shares = _share(writes[neuron] * judged[label], judge_total[neuron, label].expand(units.n_units))
        top = torch.where(stands[label], shares, 0.0).topk(min(n, units.n_units))
        some = top.indices[top.values > 0].tolist()
        found.append([(unit, float(on_score[unit, label]), float(shares[unit])) for unit in some])
    return found


def _standing(units: Units, mixed: Bool[Tensor, " units"]) -> Bool[Tensor, "units labels"]:
    """Say which units stand for which concepts: detected on both halves, by a unit that mixes nothing."""
    return (_lesser(units.auc) > RESOLVED_AUC) & ~mixed[:, None]


def _share(carried: Float[Tensor, "*pairs"], total: Float[Tensor, "*#pairs"]) -> Float[Tensor, "*pairs"]:
    """Return what is carried of a neuron's answer; 0 where the neuron is below its mean."""
    return torch.where(total > 0, carried / total, 0.0)


def _excesses(units: Units) -> list[Float[Tensor, "units labels"]]:
    """Return what `Sample.label_excess` is of the vectors for the activations."""
    found = []
    for rows, labels in units.sample.labelled_rows:
        responses = units.row_responses.on(rows)
        everything = responses.total(torch.ones(responses.n_items, 1, dtype=torch.float64))
        found.append(responses.total(labels) / labels.totals - everything / responses.n_items)
    return found


def _lesser(auc: tuple[Tensor, Tensor]) -> Float[Tensor, "units labels"]:
    """Return the AUC that is reached on both halves."""
    return torch.minimum(*auc)


def _count(groups: Int[Tensor, "units labels"]) -> Int[Tensor, " units"]:
    return (groups == torch.arange(groups.shape[1])).sum(1)


@item_metric("polysemantic_share", better="neither", unit="latents", bounds=(0, 1), chance=0.0, paired=False)
def polysemantic_share(units: Units, related: Bool[Tensor, "labels labels"]) -> Float[Tensor, " units"]:
    """Share of units that answer to two or more unrelated labels.

    A unit answers to a label if its AUC for it is above 0.8 on both halves. Labels that are related, directly or
    through others that the same unit answers to, count as one meaning, so a unit for a whole family is not
    polysemantic. Of the raw neurons this is a property of the subject: if it is small there is little to resolve. In
    [0, 1]; dead units answer to nothing and count as 0. Units that answer to no label count as 0 too, so read it beside
    the share of monosemantic units.
    """
    return (n_meanings(_lesser(units.auc), related) > 1).double()


@item_metric("resolution_rate", better="higher", unit="pairs", bounds=(0, 1), chance=0.0, paired=True)
def resolution_rate(carriers: Carriers) -> Float[Tensor, " pairs"]:
    """Share of the concepts mixed by polysemantic neurons that one latent carries alone.

    Pairs are (neuron, concept): each meaning that a polysemantic neuron has (see `polysemantic_share`), named by the
    label of it that the neuron detects best. A pair is resolved if a latent (i) detects the concept with an AUC above
    0.9, (ii) is not polysemantic itself, and (iii) carries the concept into the neuron: share of the neuron's answer
    W_dec[j, i] (E[z_j | c] - E[z_j]) / (E[x_i | c] - E[x_i]) at least 0.1. The latent is matched on one half (the best
    AUC among those that meet ii and iii there, or failing that among all) and judged on the other; (ii) is judged on
    labels answered on both halves. Without (ii) units that mix other concepts than the neuron does would count, and
    without (iii) latents that have nothing to do with the neuron.

    In [0, 1], higher is better; 0 for the raw neurons by construction (only the neuron itself carries anything into
    itself, and it is polysemantic), for shuffled labels and for dead latents. Pairs are the same for every dictionary
    of a hookpoint. Built on the superposition picture of Elhage et al. 2022 (arXiv 2209.10652); the definition is ours.
    """
    return carriers.resolved.double()


@item_metric("resolved_neurons", better="higher", unit="neurons", bounds=(0, 1), chance=0.0, paired=True)
def resolved_neurons(carriers: Carriers, mixtures: Mixtures) -> Float[Tensor, " neurons"]:
    """Share of polysemantic neurons of which every mixed concept is resolved (see `resolution_rate`).

    In [0, 1], higher is better; neurons that are not polysemantic are left out.
    """
    neuron = mixtures.neuron.unique_consecutive(return_inverse=True)[1]
    n_neurons = int(neuron[-1]) + 1
    return torch.ones(n_neurons, dtype=torch.float64).scatter_reduce_(0, neuron, carriers.resolved.double(), "amin")


@item_metric("concept_variance_explained", better="higher", unit="pairs", bounds=(0, 1), chance=0.0, paired=True)
def concept_variance_explained(carriers: Carriers) -> Float[Tensor, " pairs"]:
    """Share of a neuron's answer to a concept it mixes that the latents standing for the concept explain.

    Latents stand for a concept if their AUC for it is above 0.9 on both halves and they are not polysemantic. With s
    the sum of their shares (see `resolution_rate`) on the half to score on, 1 - (1 - s)^2 of the neuron's variance
    between items with the concept and the rest is explained; below 0 counts as 0. What is left is carried by latents
    that mix concepts or detect it badly, or by the error. In [0, 1], higher is better, pairs as for `resolution_rate`;
    0 where no latent stands for the concept, and for the raw neurons by construction.
    """
    return (1 - (1 - carriers.stood_for).square()).clamp(min=0)


def resolution_scores(units: Units, mixtures: Mixtures) -> list[Measured]:
    """Score how far units resolve the mixtures of a subject's neurons.

    Args:
        units: a dictionary's latents, or a control's; they read the vectors whose coordinates the neurons are.
        mixtures: of the raw neurons, on the labels as they are (shuffled ones only for `units`).

    Returns:
        `polysemantic_share` alone where no neuron is polysemantic, since there is nothing to resolve.
    """
    found = [polysemantic_share(units, mixtures.related)]
    if not len(mixtures.neuron):
        return found
    carriers = Carriers.of(units, mixtures)
    return [
        *found,
        resolution_rate(carriers),
        resolved_neurons(carriers, mixtures),
        concept_variance_explained(carriers),
    ]


def resolution_details(
    units: Units, mixtures: Mixtures, neurons: Sequence[int] | None = None, n_neurons: int = 6
) -> list[dict[str, Any]]:
    """Return one row per concept of a few polysemantic neurons: what carries it, and if not resolved, why.

    Args:
        units: as for `resolution_scores`.
        mixtures: likewise.
        neurons: which to show; by default `n_neurons` evenly spread over the polysemantic ones.
        n_neurons: how many to show.
    """
    all_neurons = mixtures.neuron.unique()
    if not len(all_neurons):
        return []
    spread = torch.linspace(0, len(all_neurons) - 1, min(n_neurons, len(all_neurons))).round().long()
    shown = all_neurons[spread] if neurons is None else torch.tensor(neurons)
    carriers, names = Carriers.of(units, mixtures), units.sample.table.names
    rows = []
    for pair in torch.isin(mixtures.neuron, shown).nonzero()[:, 0].tolist():
        neuron, label, unit = (int(column[pair]) for column in (mixtures.neuron, mixtures.label, carriers.unit))
        group = mixtures.groups[neuron] == mixtures.groups[neuron, label]
        mixed = mixtures.label[mixtures.neuron == neuron].tolist()
        rows.append(
            {
                "neuron": neuron,
                "concept": names[label],
                "related": [names[other] for other in group.nonzero()[:, 0].tolist() if other != label],
                "neuron_auc": round(float(mixtures.auc[pair]), 4),
                "latent": unit,
                "latent_auc": round(float(carriers.auc[pair]), 4),
                "share": round(float(carriers.share[pair]), 4),
                "outcome": _outcome(carriers, pair),
                "aucs": {names[other]: round(float(units.auc[1][unit, other]), 4) for other in mixed},
            }
        )
    return rows


def _outcome(carriers: Carriers, pair: int) -> str:
    if carriers.resolved[pair]:
        return "resolved"
    if carriers.auc[pair] <= RESOLVED_AUC:
        return "no latent detects it"
    return "the latent is polysemantic" if carriers.mixed[pair] else "the latent carries little of it"
