"""Other networks at work on the items of a workbench: another seed, another architecture, another tower."""

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
    return network(bench, name, dictionary, taken(bench.sample, vectors), opened.subject_id, vectors.hookpoint.name)


def network(
    bench: Workbench, name: str, dictionary: Dictionary, sample: Sample, subject: str, hookpoint: str
) -> Network:
    """Say what a network is beside the workbench's, and what stands beside its units."""
    units = Units(name, dictionary, sample)
    own = _canonical(bench.subject.id), bench.dictionary.provenance.get("hookpoint", "")
    relation, counted = _relation(own, (_canonical(subject), hookpoint))
    rows = units.row_responses
    controls = random_directions(sample.x, rows.n_fired.double() / rows.n_items, bench.seed + 1)
    title = f"{_canonical(subject).removeprefix(builtin.PREFIX)}\n{hookpoint}"
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


def _relation(own: tuple[str, str], other: tuple[str, str]) -> tuple[str, bool]:
    """Return what another network is, and whether it counts as one."""
    (subject, hookpoint), (other_subject, other_hookpoint) = own, other
    towers = [
        name.partition(".")[0] if name.startswith(("visual.", "text.")) else "" for name in (hookpoint, other_hookpoint)
    ]
    parts = []
    if subject != other_subject:
        parts.append("other seed" if subject.partition("@")[0] == other_subject.partition("@")[0] else "other network")
    if towers[0] != towers[1]:
        parts.append("other tower")
    if not parts:
        return ("same network, other place" if hookpoint != other_hookpoint else "same network and place"), False
    if towers[0] == towers[1] and hookpoint != other_hookpoint:
        parts.append("other place")
    return ", ".join(parts), True


def share_of(found: Float[Tensor, "networks units"] | Tensor, n: int) -> float:
    """Return the share of units found in at least n networks."""
    return float((found.sum(0) >= n).double().mean())
