"""A dictionary and its subject, ready to be changed and watched, with labelled examples split in two."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sae.activations.reopen import open_store
from sae.activations.store import ActivationStore, Vectors
from sae.config import encode
from sae.dictionaries.base import Dictionary
from sae.dictionaries.io import load_dictionary
from sae.errors import ConfigError, EvaluationError
from sae.evaluation.controls import random_directions
from sae.evaluation.gather import take_sample
from sae.evaluation.ground import Rows, check_belonging
from sae.evaluation.sample import Sample, Units, halves
from sae.features.building.known import raw_neurons
from sae.features.catalog import Catalog
from sae.features.findings import FOLDER
from sae.inputs.base import Inputs, Labelled
from sae.subjects.base import Subject


@dataclass(frozen=True, kw_only=True)
class WorkbenchConfig:
    """What to work on; every method of the laboratory begins with these."""

    dictionary: str
    """Folder of a dictionary, or builtin:SUBJECT/HOOKPOINT."""
    store: Path
    """Store of its subject's vectors; the subject and the inputs are opened again by what it says."""
    out: Path | None = None
    """Folder for the finding: JSON, CSV and pictures; null prints it only."""
    catalog: Path | None = None
    """Catalog of the same dictionary, whose pages then show the finding; kept in CATALOG/lab/METHOD-UNIT, or give
    --out CATALOG/lab/NAME."""
    n_vectors: int = 32_768
    """Work on about this many vectors, the first ones; latents are chosen on one half and scored on the other."""
    seed: int = 0
    """Of the split, of controls and of whatever is drawn."""
    device: str = "cpu"
    """Where the dictionary and the subject run."""

    def __post_init__(self) -> None:
        if self.n_vectors < 1:
            raise ConfigError(f"n_vectors: must be at least 1, got {self.n_vectors}.")
        # Before the work, not after it.
        if self.out is not None and not next(one for one in (self.out, *self.out.parents) if one.exists()).is_dir():
            raise ConfigError(f"out: {self.out} is no folder, and none can be made there.")

    def settings(self) -> dict[str, Any]:
        """Return what decides the finding, as plain data: all settings but where it is kept and what runs it."""
        return {name: value for name, value in encode(self).items() if name not in ("out", "catalog", "device")}

    def folders(self, method: str) -> list[Path]:
        """Return where findings are kept: in `out`, and in the catalog under the names of method and unit."""
        kept = [] if self.out is None else [self.out]
        if self.catalog is None:
            return kept
        latent, unit = getattr(self, "latent", None), str(getattr(self, "unit", ""))
        of = f"latent-{latent}" if isinstance(latent, int) else unit.replace(":", "-") if ":" in unit else ""
        name = re.sub(r"[^A-Za-z0-9._=+-]+", "-", f"{method}-{of}" if of else method)
        return [*kept, self.catalog / FOLDER / name]

    def check_catalog(self, dictionary: Dictionary) -> None:
        """Refuse a catalog of another dictionary, whose latents are others.

        Raises:
            ConfigError: it is of another one.
            CatalogError: it is no catalog.
        """
        if self.catalog is None:
            return
        of = Catalog.open(self.catalog).about.dictionary
        if of.get("sha256") != dictionary.hash:
            raise ConfigError(f"catalog: {self.catalog} is of {of.get('repr')}, not of {dictionary!r}.")


@dataclass(frozen=True)
class Workbench:
    """What a method works on.

    Attributes:
        dictionary: whose latents.
        subject, inputs: what they are latents of, and on what.
        vectors: of the store, aligned as the dictionary reads them.
        n_vectors: how many to take labels for.
        seed: of the split and of controls.
    """

    dictionary: Dictionary
    subject: Subject
    inputs: Inputs
    vectors: Vectors
    n_vectors: int = 32_768
    seed: int = 0
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, config: WorkbenchConfig) -> "Workbench":
        """Load everything and check that it belongs together.

        Raises:
            EvaluationError: the dictionary is of another subject or hookpoint than the store.
        """
        dictionary = load_dictionary(config.dictionary).to(config.device).eval()
        config.check_catalog(dictionary)
        store = ActivationStore(config.store)
        subject, inputs = open_store(config.store, config.device)
        rows = Rows.of(dictionary, [store])
        check_belonging(rows, subject, inputs)
        about = {"dictionary": {"source": config.dictionary, "sha256": dictionary.hash}} | rows.about()
        return cls(dictionary, subject, inputs, rows.inputs, config.n_vectors, config.seed, about)

    @cached_property
    def sample(self) -> Sample:
        """The first vectors with their labels, split in a half to choose on (`match`) and a half to score on.

        Raises:
            EvaluationError: the inputs have no labels.
        """
        if not isinstance(self.inputs, Labelled):
            raise EvaluationError(f"{self.inputs.describe()}: these inputs have no labels, which this method needs.")
        return take_sample(self.vectors, self.inputs, self.n_vectors, self.seed)

    @cached_property
    def any_sample(self) -> Sample:
        """The same, or, where the inputs have no labels, the first vectors without any."""
        if isinstance(self.inputs, Labelled):
            return self.sample
        _, rows = next(self.vectors.whole_examples(self.n_vectors))
        x, match = self.vectors.read(0, len(rows), self.vectors.dtype), halves(rows.example, self.seed)
        return Sample(x=x, rows=rows, pooled=False, labels={}, factors={}, label_names={}, match=match)

    @cached_property
    def latents(self) -> Units:
        """The dictionary's latents at work on the sample.

        Raises:
            EvaluationError: none of them fires.
        """
        found = Units("dictionary", self.dictionary, self.sample)
        if not found.alive.any():
            raise EvaluationError(
                f"{self.dictionary!r}: no latent fires in the sample of {len(self.sample.x)} vectors; it is dead, or "
                "of other vectors than these."
            )
        return found

    @cached_property
    def neurons(self) -> Units:
        """The raw neurons on the same sample: the first control of everything."""
        return Units("neurons", raw_neurons(self.dictionary.d_in).to(self.dictionary.W_dec.device), self.sample)

    @cached_property
    def random(self) -> Units:
        """As many random directions as latents, each firing as often as its latent."""
        responses = self.latents.row_responses
        rates, device = responses.n_fired.double() / responses.n_items, self.dictionary.W_dec.device
        return Units("random_directions", random_directions(self.sample.x, rates, self.seed).to(device), self.sample)
