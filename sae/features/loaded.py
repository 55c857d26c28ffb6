"""A catalog with what it was made from, ready to run: what every kind of question works on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
