"""Dictionaries that are compared with one another, at work on rows that all of them share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from sae import builtin
from sae.activations.join import join
from sae.activations.store import TRAINING_KINDS, ActivationStore, Vectors
from sae.dictionaries.base import Dictionary
from sae.dictionaries.linear import Identity, IdentityConfig
from sae.errors import EvaluationError
from sae.evaluation.controls import random_directions
from sae.evaluation.responses import SparseResponses
from sae.evaluation.sample import Sample, Units, halves


@dataclass
class Member:
    """One of the dictionaries compared, with the controls of its size."""

    number: int
    units: Units
    seed: int
    _drawn: dict[int, Units] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.units.name

    @property
    def dictionary(self) -> Dictionary:
        return self.units.dictionary

    @property
    def subject(self) -> str:
        return subject_of(self.name, self.dictionary)

    @cached_property
    def neurons(self) -> Units:
        """The raw neurons of the hookpoint."""
        d_in = self.dictionary.d_in
        return Units("neurons", Identity(IdentityConfig(d_sae=d_in), d_in), self.units.sample)

    def random_directions(self, draw: int) -> Units:
        """Return random directions of the same number, each firing as often; draws 0 and 1 are independent."""
        if draw not in self._drawn:
            x = self.units.sample.x
            rates = self.units.responses.n_fired.double() / len(x)
            dictionary = random_directions(x, rates, 2 * self.seed + draw)
            self._drawn[draw] = Units("random_directions", dictionary, self.units.sample)
        return self._drawn[draw]


def sparse(units: Units) -> SparseResponses:
    """Return the activations of units that rest at 0.

    Raises:
        EvaluationError: the units are dense.
    """
    if not isinstance(units.responses, SparseResponses):
        raise EvaluationError(f"{units.name}: splitting needs sparse codes; {units.dictionary!r} is dense.")
    return units.responses


def subject_of(name: str, dictionary: Dictionary) -> str:
    """Return the subject a dictionary was trained on, seed spelled out.

    Raises:
        EvaluationError: the dictionary does not say.
    """
    subject = dictionary.provenance.get("subject")
    if subject is None or "hookpoint" not in dictionary.provenance:
        raise EvaluationError(f"{name}: its dictionary.json names no subject and hookpoint, so nothing to compare on.")
    return _canonical(subject)


def _canonical(subject: str) -> str:
    return builtin.canonical(subject) if subject.startswith(builtin.PREFIX) else subject


def take_members(
    names: Sequence[str], dictionaries: Sequence[Dictionary], stores: Sequence[ActivationStore], n_rows: int, seed: int
) -> list[Member]:
    """Put every dictionary to work on at most `n_rows` rows that all stores share.

    Raises:
        EvaluationError: dictionaries and stores do not belong together.
        StoreError: the stores have other inputs.
    """
    named = list(zip(names, dictionaries, strict=True))
    hookpoints: dict[str, str] = {}
    for name, dictionary in named:
        hookpoint, subject = dictionary.provenance.get("hookpoint", ""), subject_of(name, dictionary)
        if hookpoints.setdefault(subject, hookpoint) != hookpoint:
            raise EvaluationError(
                f"{name}: reads {hookpoint}, another dictionary of {subject} reads {hookpoints[subject]}; "
                "dictionaries of one subject are compared on one hookpoint."
            )
    stored = {_canonical(store.subject_id): store for store in stores}
    if len(stored) != len(stores) or set(stored) != set(hookpoints):
        raise EvaluationError(
            f"the dictionaries are of {', '.join(hookpoints)}; the stores hold "
            f"{', '.join(store.subject_id for store in stores)}. Each subject needs one store (--store, --other-store)."
        )
    vectors = [store.vectors(hookpoints[subject], TRAINING_KINDS) for subject, store in stored.items()]
    samples = dict(zip(stored, _samples(vectors, n_rows, seed), strict=True))
    for name, dictionary in named:
        width = samples[subject_of(name, dictionary)].x.shape[1]
        if dictionary.d_in != width:
            raise EvaluationError(f"{name}: is for vectors of width {dictionary.d_in}, the store's are {width} wide.")
    return [
        Member(number, Units(name, dictionary.eval(), samples[subject_of(name, dictionary)]), seed)
        for number, (name, dictionary) in enumerate(named)
    ]


def _samples(vectors: Sequence[Vectors], n_rows: int, seed: int) -> Iterator[Sample]:
    """Yield the rows of each store, aligned, split by example into the same halves."""
    aligned = join(vectors) if len(vectors) > 1 else tuple(vectors)
    n_rows = min(len(aligned[0]), n_rows)
    places = [v.provenance(0, n_rows) for v in aligned]
    tokens = [place.token for place in places if place.token is not None]
    if not all(torch.equal(tokens[0], token) for token in tokens[1:]):
        raise EvaluationError("the stores hold other tokens at the same places; the subjects' tokenizers differ.")
    match = halves(places[0].example, seed)
    if not 0 < int(match.sum()) < n_rows:
        raise EvaluationError(f"{aligned[0]!r}: {n_rows} shared rows cannot be split into halves by example.")
    for v, rows in zip(aligned, places, strict=True):
        x = v.read(0, n_rows, v.dtype)
        yield Sample(x=x, rows=rows, pooled=False, labels={}, factors={}, label_names={}, match=match)
