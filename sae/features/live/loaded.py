"""A catalog with what it was made from, ready to run: what every kind of question works on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from sae.activations.store import ActivationStore
from sae.dictionaries.base import Dictionary
from sae.dictionaries.sites import hookpoints_read
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

    @cached_property
    def hookpoints(self) -> tuple[str, ...]:
        """The hookpoints that the dictionary reads, side by side."""
        return hookpoints_read(self.dictionary)

    @cached_property
    def grid(self) -> str:
        """The grid of rows that its vectors lie on."""
        return self.subject.hookpoints()[self.hookpoints[0]].grid

    @property
    def reads_images(self) -> bool:
        return self.hookpoints[0].startswith("visual.")

    @property
    def pooled(self) -> bool:
        """Whether one vector stands for a whole text or image."""
        return self.grid.endswith("pooled")

    def title(self, latent: int) -> str:
        """Return the title of a latent's card, empty in a catalog that is not finished."""
        words = self.catalog.latents.words
        return words[latent][0] if latent < len(words) else ""

    @cached_property
    def strongest(self) -> Sequence[float]:
        """The largest activation of each latent in the catalog, 0 where it never fired or where that is not known."""
        column = self.catalog.latents.columns.get("max")
        found = [0.0] * self.dictionary.d_sae if column is None else column.tolist()
        return [value if value > 0 else 0.0 for value in found]

    def share(self, latent: int, value: float) -> float | None:
        """Return an activation as a share of the largest in the catalog, which it may exceed; None if that is 0."""
        return value / self.strongest[latent] if self.strongest[latent] else None
