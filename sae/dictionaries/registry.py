"""From the name of an architecture to its classes.

Another package adds an architecture by an entry point of the group `sae.dictionaries`: its name is the kind, its
value a subclass of `Dictionary`.
"""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from sae import config as configs
from sae.dictionaries.archetypal import Archetypal
from sae.dictionaries.base import Dictionary, DictionaryConfig
from sae.dictionaries.batch_topk import BatchTopK
from sae.dictionaries.clt import Clt
from sae.dictionaries.frozen import FrozenDecoder, FrozenEncoder
from sae.dictionaries.gated import Gated
from sae.dictionaries.ica import Ica
from sae.dictionaries.jumprelu import JumpReLU
from sae.dictionaries.kmeans import KMeans
from sae.dictionaries.linear import Constant, Identity, Pca
from sae.dictionaries.matching_pursuit import MatchingPursuit
from sae.dictionaries.matryoshka import Matryoshka
from sae.dictionaries.random_directions import RandomDirections
from sae.dictionaries.relu import ReLU
from sae.dictionaries.semi_nmf import SemiNmf
from sae.dictionaries.threshold import Thresholded
from sae.dictionaries.topk import AbsTopK, TopK
from sae.errors import ConfigError, DictionaryError, nearest

GROUP = "sae.dictionaries"

TRAINED: tuple[type[Dictionary], ...] = (
    *(TopK, AbsTopK, BatchTopK, Matryoshka),
    *(ReLU, Gated, JumpReLU),
    *(MatchingPursuit, Archetypal, Clt),
)
"""Architectures that learn."""

CONTROLS: tuple[type[Dictionary], ...] = (
    *(Thresholded, Identity, Pca, Constant, RandomDirections),
    *(Ica, KMeans, SemiNmf),
    *(FrozenDecoder, FrozenEncoder),
)
"""What they are compared with."""

BUILT_IN: dict[str, type[Dictionary]] = {cls.config_type.kind: cls for cls in (*TRAINED, *CONTROLS)}


def kinds() -> list[str]:
    """Return the names of all architectures, our own first."""
    return [*BUILT_IN, *sorted(point.name for point in entry_points(group=GROUP) if point.name not in BUILT_IN)]


def dictionary_type(kind: str) -> type[Dictionary]:
    """Return the class of an architecture; its config class is the attribute `config_type`.

    Raises:
        DictionaryError: nothing of that name is registered, or what is registered is no `Dictionary`.
    """
    if kind in BUILT_IN:
        return BUILT_IN[kind]
    for point in entry_points(group=GROUP, name=kind):
        found = point.load()
        if not (isinstance(found, type) and issubclass(found, Dictionary) and found.config_type.kind == kind):
            raise DictionaryError(f"entry point {kind!r} of {GROUP}: {point.value} is no Dictionary of that kind.")
        return found
    raise DictionaryError(f"unknown kind of dictionary {kind!r}.{nearest(kind, kinds())}")


def decode_config(settings: Mapping[str, Any], where: str = "dictionary") -> DictionaryConfig:
    """Build the config of an architecture from plain data that names its `kind`.

    Raises:
        ConfigError: the kind is missing or unknown, or a setting is.
    """
    kind = settings.get("kind")
    if kind not in kinds():
        found = "needs a kind." if kind is None else f"unknown kind {kind!r}."
        raise ConfigError(f"{where}.kind: {found}{nearest(str(kind), kinds())}")
    return configs.decode(dictionary_type(kind).config_type, settings, where)


def make_dictionary(config: DictionaryConfig, d_in: int, d_out: int | None = None) -> Dictionary:
    """Return an uninitialised dictionary for vectors of width d_in; with d_out, a transcoder to that width."""
    return dictionary_type(config.kind)(config, d_in, d_out)
