"""Other networks at work on the items of a workbench: another seed, size or architecture, another tower."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae import builtin
from sae.activations.store import TRAINING_KINDS, ActivationStore, Provenance, Vectors
from sae.dictionaries.base import Dictionary
from sae.dictionaries.io import load_dictionary
from sae.errors import EvaluationError
from sae.evaluation.controls import random_directions
from sae.evaluation.responses import Responses
from sae.evaluation.sample import Sample, Units
from sae.features.building.known import raw_neurons
from sae.lab.workbench import Workbench
from sae.subjects.base import Subject
from sae.subjects.load import load

NEURONS = "neurons:"
"""Begins the name of raw neurons, which a hookpoint ends: neurons:visual.layer4.0.hook_post."""
SAME_PLACE_BITS = 31


@dataclass(frozen=True)
class Network:
    """Units of another network on the same items.

    Attributes:
        title: of the network, short.
        relation: what it is beside the workbench's.
        counted: whether it is another network, or another tower; another place of the same tower is not.
        units: its latents, or neurons.
        controls: responses of as many random directions of it.
        neurons: responses of its raw neurons.
    """

    title: str
    relation: str
    counted: bool
    units: Units
    controls: Responses
    neurons: Responses

    @property
    def responses(self) -> Responses:
        return self.units.responses


def open_network(bench: Workbench, name: str, store: Path) -> Network:
    """Put another dictionary, or another hookpoint's neurons, to work on the items of a workbench.

    Args:
        bench: whose items.
        name: folder of a dictionary, builtin:SUBJECT/HOOKPOINT, or neurons:HOOKPOINT.
        store: of its subject's vectors, made from the same inputs.

    Raises:
        EvaluationError: the store has other inputs or not all items, or the dictionary is of another subject.
    """
    opened = ActivationStore(store)
    if opened.manifest.inputs.fingerprint != bench.inputs.fingerprint:
        raise EvaluationError(
            f"{store}: was harvested from inputs {opened.manifest.inputs.fingerprint[:16]}, the workbench's store from "
            f"{bench.inputs.fingerprint[:16]}; counterparts are looked for on the same inputs."
        )
    if name.startswith(NEURONS):
        vectors = opened.vectors(name.removeprefix(NEURONS), TRAINING_KINDS)
        dictionary: Dictionary = raw_neurons(vectors.hookpoint.d_in)
    else:
        dictionary = load_dictionary(name).eval()
        subject = dictionary.provenance.get("subject", opened.subject_id)
        if _canonical(subject) != _canonical(opened.subject_id):
            raise EvaluationError(f"{name}: was trained on {subject}, {store} holds {opened.subject_id}.")
        vectors = opened.vectors(dictionary.provenance["hookpoint"], TRAINING_KINDS)
    same = _canonical(opened.subject_id) == _canonical(bench.subject.id)
    subject = bench.subject if same else load(opened.subject_id)
    return network(bench, name, dictionary, taken(bench.sample, vectors), subject, vectors.hookpoint.name)


def network(
    bench: Workbench, name: str, dictionary: Dictionary, sample: Sample, subject: Subject, hookpoint: str
) -> Network:
    """Say what a network is beside the workbench's, and what stands beside its units."""
    units = Units(name, dictionary, sample)
    own = bench.subject, bench.dictionary.provenance.get("hookpoint", "")
    relation, counted = _relation(own, (subject, hookpoint))
    rows = units.row_responses
    controls = random_directions(sample.x, rows.n_fired.double() / rows.n_items, bench.seed + 1)
    title = f"{_canonical(subject.id).removeprefix(builtin.PREFIX)}\n{hookpoint}"
    if name.startswith(NEURONS):
        title += " (neurons)"
    return Network(
        title, relation, counted, units, Units("random directions", controls, sample).responses,
        Units("neurons", raw_neurons(dictionary.d_in), sample).responses,
    )  # fmt: skip


def taken(sample: Sample, vectors: Vectors) -> Sample:
    """Return the items of a sample with another network's vectors, on rows of its own where items are examples.

    Raises:
        EvaluationError: the vectors do not have all items.
    """
    rows = vectors.provenance(0, len(vectors))
    if sample.pooled:
        keep = torch.isin(rows.example, sample.example).nonzero()[:, 0]
        missing = len(sample.example) - len(rows.example[keep].unique())
    else:
        known, wanted = _keys(rows), _keys(sample.rows)
        place = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
        keep, missing = place, int((known[place] != wanted).sum())
    if missing:
        raise EvaluationError(
            f"{vectors!r}: {missing} of {sample.n_items} items have no vectors there; harvest as many examples."
        )
    first, last = int(keep.min()), int(keep.max()) + 1
    chosen = Provenance(rows.example[keep], rows.position[keep], rows.kind[keep])
    return Sample(
        x=vectors.read(first, last, vectors.dtype)[keep - first], rows=chosen, pooled=sample.pooled,
        labels=sample.labels, factors=sample.factors, label_names=sample.label_names, match=sample.match,
    )  # fmt: skip


def _keys(rows: Provenance) -> Int[Tensor, " rows"]:
    return (rows.example.long() << SAME_PLACE_BITS) + rows.position.long()


def _canonical(subject: str) -> str:
    return builtin.canonical(subject) if subject.startswith(builtin.PREFIX) else subject


def _relation(own: tuple[Subject, str], other: tuple[Subject, str]) -> tuple[str, bool]:
    """Return what another network is, and whether it counts as one."""
    (subject, hookpoint), (other_subject, other_hookpoint) = own, other
    towers = [
        name.partition(".")[0] if name.startswith(("visual.", "text.")) else "" for name in (hookpoint, other_hookpoint)
    ]
    parts = []
    if _canonical(subject.id) != _canonical(other_subject.id):
        parts.append(_kinship(subject, other_subject))
    if towers[0] != towers[1]:
        parts.append("other tower")
    if not parts:
        return ("same network, other place" if hookpoint != other_hookpoint else "same network and place"), False
    if towers[0] == towers[1] and hookpoint != other_hookpoint:
        parts.append("other place")
    return ", ".join(parts), True


def _kinship(subject: Subject, other: Subject) -> str:
    """Tell other seeds, trainings, sizes and architectures apart, by names and by what hookpoints there are.

    Subjects of one architecture have the same kinds of hookpoints (and of language models the same class); if of one
    size, too, as many and as wide.
    """
    own_form, form = _form(subject), _form(other)
    if own_form != form:
        return "other architecture"
    widths = [{name: point.d_in for name, point in one.hookpoints().items()} for one in (subject, other)]
    if widths[0] != widths[1]:
        return "other size"
    stems = {_canonical(one.id).partition("@")[0] for one in (subject, other)}
    return "other seed" if len(stems) == 1 else "other training"


def _form(subject: Subject) -> tuple[str, str, frozenset[str]]:
    """Return what all sizes of an architecture have in common: hookpoints without their numbers."""
    names = frozenset(re.sub(r"\d+", "#", name) for name in subject.hookpoints())
    return subject.kind, subject.provenance().get("architecture", ""), names


def share_of(found: Float[Tensor, "networks units"] | Tensor, n: int) -> float:
    """Return the share of units found in at least n networks."""
    return float((found.sum(0) >= n).double().mean())
