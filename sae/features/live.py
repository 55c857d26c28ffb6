"""A catalog with its subject loaded: what questions about it can be answered, and by what.

A question comes as plain data and its answer goes back as plain data, so a page can put it. Every kind of question is
one class with `about` and `__call__` (see `server/live.py`), and is here only if this subject can answer it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sae.activations.store import ActivationStore
from sae.dictionaries.base import Dictionary
from sae.errors import CatalogError
from sae.features.catalog import Catalog
from sae.inputs.base import Inputs
from sae.subjects.base import Subject


@dataclass(frozen=True)
class Loaded:
    """A catalog, and what it was made from.

    Attributes:
        catalog: whose latents the answers speak of.
        dictionary: whose latents they are, ready for use.
        subject: the model that it was learned from.
        inputs: the examples that the catalog's cards show, by the same numbers.
        others: dictionaries at other hookpoints of the subject, by the name to show.
    """

    catalog: Catalog
    dictionary: Dictionary
    subject: Subject
    inputs: Inputs
    others: Mapping[str, Dictionary] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        catalog: Catalog,
        dictionary: Dictionary,
        store: ActivationStore,
        subject: Subject,
        inputs: Inputs,
        others: Mapping[str, Dictionary] | None = None,
    ) -> "Loaded":
        """Check that all of it belongs together.

        Raises:
            CatalogError: the catalog is of another dictionary or of another store.
        """
        if dictionary.hash != catalog.about.dictionary["sha256"]:
            raise CatalogError(f"{catalog.path}: is not of {dictionary!r}, but of {catalog.about.dictionary['repr']}.")
        if store.hash != catalog.about.store:
            raise CatalogError(f"{catalog.path}: was not made from {store.path}; name the store that it was made from.")
        ready = {name: other.eval() for name, other in (others or {}).items()}
        return cls(catalog, dictionary.eval(), subject, inputs, ready)


KINDS_OF_ASK: dict[str, Callable[[Loaded], Any | None]] = {}
"""What makes the answering object of each kind of question; None where this subject cannot answer it."""


def asks_of(loaded: Loaded) -> dict[str, Any]:
    """Return what answers questions, by name."""
    made = {name: make(loaded) for name, make in KINDS_OF_ASK.items()}
    return {name: ask for name, ask in made.items() if ask is not None}
