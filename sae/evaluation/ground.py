"""The rows that a dictionary is scored on: found in the stores by what its file says of its sites."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sae.activations.join import align
from sae.activations.side_by_side import together
from sae.activations.store import TRAINING_KINDS, ActivationStore, Vectors
from sae.dictionaries.base import Dictionary
from sae.dictionaries.sites import Site, input_sites, output_sites
from sae.errors import DictionaryError, EvaluationError
from sae.inputs.base import Inputs
from sae.subjects.base import Subject


@dataclass(frozen=True)
class Rows:
    """What a dictionary reads and what it should write, row by row; the same unless it is a transcoder."""

    inputs: Vectors
    targets: Vectors

    @classmethod
    def of(cls, dictionary: Dictionary, stores: Sequence[ActivationStore]) -> "Rows":
        """Find and align the vectors of every site.

        Raises:
            EvaluationError: a site is in none of the stores, or has another width there.
            StoreError: the stores' rows do not go together.
        """
        try:
            reads, writes = input_sites(dictionary), output_sites(dictionary)
        except DictionaryError as error:
            raise EvaluationError(str(error)) from error
        found = [_vectors(site, stores) for site in (*reads, *(writes if dictionary.is_transcoder else ()))]
        aligned = align(found)
        inputs = together(aligned[: len(reads)])
        return cls(inputs, together(aligned[len(reads) :]) if dictionary.is_transcoder else inputs)

    @property
    def stores(self) -> tuple[ActivationStore, ...]:
        """The stores that they lie in."""
        parts = (*self.inputs.parts, *self.targets.parts)
        return tuple({part.store.hash: part.store for part in parts}.values())

    @property
    def hookpoint(self) -> str:
        """What is read, and for a transcoder where it writes, as one name."""
        reads, writes = self.inputs.hookpoint.name, self.targets.hookpoint.name
        return reads if self.inputs is self.targets else f"{reads} -> {writes}"

    def about(self) -> dict[str, Any]:
        """Return what a report says of store, subject and hookpoint."""
        stores = self.stores
        weights = [store.manifest.provenance.get("weights_sha256") for store in stores]
        return {
            "store": {
                "sha256": _joined_hash(store.hash for store in stores),
                "inputs": stores[0].manifest.inputs.fingerprint,
            },
            "subject": {
                "id": " + ".join(dict.fromkeys(store.subject_id for store in stores)),
                "weights": weights[0] if len(stores) == 1 else None,
            },
            "hookpoint": self.hookpoint,
        }


def check_belonging(rows: Rows, subject: Subject | None, inputs: Inputs | None) -> None:
    """Refuse a subject or inputs that the stores were not made from.

    Raises:
        EvaluationError: says what was found and what is needed.
    """
    store = rows.stores[0]
    if subject is not None and subject.id not in [one.subject_id for one in rows.stores]:
        raise EvaluationError(f"the store holds activations of {store.subject_id}, not of {subject.id}.")
    if inputs is not None and inputs.fingerprint != store.manifest.inputs.fingerprint:
        raise EvaluationError(
            f"the inputs have fingerprint {inputs.fingerprint[:16]}, the store was harvested from "
            f"{store.manifest.inputs.fingerprint[:16]}."
        )


def _vectors(site: Site, stores: Sequence[ActivationStore]) -> Vectors:
    """Return the vectors of a site from the store that holds its subject."""
    holding = [store for store in stores if site.subject in (None, store.subject_id)]
    if not holding:
        held = ", ".join(store.subject_id for store in stores)
        raise EvaluationError(
            f"the dictionary was trained on {site.subject}, the store holds {held}; a dictionary over several subjects "
            "needs a store of each."
        )
    store = next((store for store in holding if site.hookpoint in store.hookpoints), None)
    if store is None:
        listed = ", ".join(name for store in holding for name in store.hookpoints)
        raise EvaluationError(f"the dictionary was trained on hookpoint {site.hookpoint!r}; the store has {listed}.")
    width = store.hookpoints[site.hookpoint].d_in
    if width != site.width:
        raise EvaluationError(f"{site.hookpoint}: vectors are {width} wide, the dictionary {site.width}.")
    return store.vectors(site.hookpoint, TRAINING_KINDS)


def _joined_hash(hashes: Iterable[str]) -> str:
    """Return the only hash, or one over several."""
    first, *others = hashes
    return hashlib.sha256(" ".join([first, *others]).encode()).hexdigest() if others else first
