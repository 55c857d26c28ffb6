"""From the names of a catalog, its store and other dictionaries to what answers questions about them."""

from collections.abc import Sequence
from pathlib import Path

from sae.activations.reopen import open_store
from sae.activations.store import ActivationStore
from sae.dictionaries.io import load_dictionary
from sae.features.catalog import Catalog
from sae.features.live.loaded import Loaded


def open_loaded(catalog: Catalog, store: Path, others: Sequence[str] = ()) -> Loaded:
    """Load what a catalog was made from: its dictionary, the subject and the inputs.

    Args:
        catalog: whose latents to ask about.
        store: from which it was made.
        others: dictionaries at other hookpoints, as `load_dictionary` takes them; they keep these names.

    Raises:
        CatalogError: the catalog was not made from this store.
    """
    dictionary = load_dictionary(catalog.about.dictionary["source"])
    subject, inputs = open_store(store)
    beside = {name: load_dictionary(name) for name in others}
    return Loaded.of(catalog, dictionary, ActivationStore(store), subject, inputs, beside)
