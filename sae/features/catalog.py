"""A catalog on disk: one card per latent and per neuron, and columns over all of them. Needs no torch.

    CATALOG/catalog.json                    what it is of, and whether it is finished (`About`)
    CATALOG/latents/000000.safetensors      `CARDS_PER_SHARD` cards: `data` uint8, compressed JSON one after another;
                                            `offsets` int64, where each begins and the last one ends
    CATALOG/latents/columns.safetensors     one number per card and column: rate, max, scores, place on the map
    CATALOG/latents/words.json              per card its title, and the words that a search looks through
    CATALOG/latents/places.safetensors      `places` [latents d_joint], where there is a space of images and texts: the
                                            direction in it that each latent goes with, of any length
    CATALOG/neurons/..., directions/...     the same for raw neurons and for any directions
    CATALOG/images/000123.png               the frames that cards show, by number of the example
    CATALOG/explanations.jsonl              what people and methods said about cards; appended, never rewritten
    CATALOG/overview.json                   the dictionary's report and whatever else its first page shows

Opening reads `catalog.json` alone; a card costs one small read, whatever the number of cards.
"""

import json
import shlex
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from sae import notebook
from sae.durable import write_durably
from sae.errors import CatalogError, nearest
from sae.features.cards import Card

FORMAT_VERSION = "1"
CARDS_PER_SHARD = 512
KINDS = {"latent": "latents", "neuron": "neurons", "direction": "directions"}
OPEN_SHARDS = 32
PLACES = "places.safetensors"


@dataclass(frozen=True, kw_only=True)
class About:
    """What a catalog is of.

    Attributes:
        dictionary: its repr, hash, d_in, d_sae and provenance.
        subject, hookpoint: what was taken apart, and where.
        store: hash of the store whose vectors were counted.
        modality: "text" or "image".
        n_vectors, n_examples: how much was counted.
        counts: cards by kind.
        settings: those of the build.
        complete: whether every card is there.
    """

    dictionary: Mapping[str, Any]
    subject: str
    hookpoint: str
    store: str
    modality: str
    n_vectors: int
    n_examples: int
    counts: Mapping[str, int]
    settings: Mapping[str, Any] = field(default_factory=dict)
    complete: bool = False
    format_version: str = FORMAT_VERSION

    FILE: ClassVar[str] = "catalog.json"

    def save(self, folder: Path) -> None:
        write_json(folder / self.FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "About":
        data = read_json(folder / cls.FILE)
        found = data.get("format_version")
        if found != FORMAT_VERSION:
            raise CatalogError(f"{folder}: catalog of format version {found!r}; this reads {FORMAT_VERSION!r}.")
        return cls(**data)


class Shelf(Sequence[Card]):
    """The cards of one kind, in order of their number."""

    def __init__(self, folder: Path, kind: str, count: int) -> None:
        self.folder, self.kind, self.n_cards = folder / KINDS[kind], kind, count
        self._shard = lru_cache(maxsize=OPEN_SHARDS)(self._open)

    def __len__(self) -> int:
        return self.n_cards

    def __getitem__(self, index: int) -> Card:  # type: ignore[override]
        """Return a card.

        Raises:
            CatalogError: there is none of that number, or its file is damaged.
        """
        packed = self.packed(index)
        try:
            return Card.unpacked(packed, self.folder.parent)
        except (zlib.error, ValueError, KeyError) as cause:
            path = shard_path(self.folder, index // CARDS_PER_SHARD)
            raise CatalogError(f"{path}: {self.kind} {index} is damaged ({cause}); build the catalog again.") from cause

    def __iter__(self) -> Iterator[Card]:
        return (self[index] for index in range(self.n_cards))

    def packed(self, index: int) -> bytes:
        """Return a card as it lies in its file: JSON, compressed by zlib."""
        if not 0 <= index < self.n_cards:
            raise CatalogError(f"{self.folder}: no {self.kind} {index}; they are numbered 0 to {self.n_cards - 1}.")
        shard, within = self._shard(index // CARDS_PER_SHARD), index % CARDS_PER_SHARD
        try:
            start, stop = shard.get_slice("offsets")[within : within + 2].tolist()
            return shard.get_slice("data")[start:stop].tobytes()
        except SafetensorError as cause:
            path = shard_path(self.folder, index // CARDS_PER_SHARD)
            raise CatalogError(f"{path}: ends before {self.kind} {index}; build the catalog again.") from cause

    @cached_property
    def columns(self) -> dict[str, Float[np.ndarray, " cards"]]:
        """Numbers by name, one per card; nan where a card has none."""
        path = self.folder / "columns.safetensors"
        return load_file(path) if path.is_file() else {}

    @cached_property
    def words(self) -> list[tuple[str, str]]:
        """Title and words of every card."""
        path = self.folder / "words.json"
        return [(title, words) for title, words in read_json(path)] if path.is_file() else []

    @cached_property
    def places(self) -> Float[np.ndarray, "cards d_joint"] | None:
        """Where each card lies in the space that images and texts share; None if nobody knows."""
        path = self.folder / PLACES
        return load_file(path)["places"] if path.is_file() else None

    def column(self, name: str) -> Float[np.ndarray, " cards"]:
        """Return one column.

        Raises:
            CatalogError: there is none of that name.
        """
        if name not in self.columns:
            raise CatalogError(f"{self.folder}: no column {name!r}.{nearest(name, sorted(self.columns))}")
        return self.columns[name]

    def _open(self, number: int) -> Any:
        path = shard_path(self.folder, number)
        try:
            return safe_open(path, "numpy")
        except (OSError, SafetensorError) as cause:
            raise CatalogError(f"{path}: cannot be read ({cause}); build the catalog again to finish it.") from cause


class Catalog:
    """A finished or unfinished catalog.

    Attributes:
        about: what it is of.
        latents, neurons, directions: its cards.
    """

    def __init__(self, path: Path, about: About) -> None:
        self.path, self.about = path, about
        shelves = {kind: Shelf(path, kind, about.counts.get(KINDS[kind], 0)) for kind in KINDS}
        self.latents, self.neurons, self.directions = shelves["latent"], shelves["neuron"], shelves["direction"]
        self.shelves: Mapping[str, Shelf] = shelves

    @classmethod
    def open(cls, path: Path | str) -> "Catalog":
        """Open a catalog's folder.

        Raises:
            CatalogError: it is none, or of another format version.
        """
        return cls(Path(path), About.read(Path(path)))

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int) -> Card:
        """Return the card of a latent."""
        return self.latents[index]

    def neuron(self, index: int) -> Card:
        """Return the card of a raw neuron: what it mixes, and the latents that carry each part."""
        return self.neurons[index]

    def shelf(self, kind: str) -> Shelf:
        """Return the cards of a kind.

        Raises:
            CatalogError: there is no such kind.
        """
        if kind not in self.shelves:
            raise CatalogError(f"kind {kind!r}.{nearest(kind, KINDS)}")
        return self.shelves[kind]

    @cached_property
    def overview(self) -> dict[str, Any]:
        """What the first page shows beside tables: the report, distributions, the map's clusters."""
        path = self.path / "overview.json"
        return read_json(path) if path.is_file() else {}

    def __repr__(self) -> str:
        """Return counts and origin in one line."""
        counts = ", ".join(f"{n} {kind}" for kind, n in self.about.counts.items())
        return f"<catalog of {counts}; {self.about.subject} {self.about.hookpoint}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: facts, how often latents fire, and how to open its pages."""
        about, rates = self.about, self.overview.get("log_rates")
        seen = {"vectors": about.n_vectors, "images" if about.modality == "image" else "texts": about.n_examples}
        own = {name: f"{n:,}" for name, n in (*about.counts.items(), *seen.items()) if n}
        given = {str(name): str(value) for name, value in self.overview.get("facts", ())}
        chart = "How often latents fire, as a power of ten"
        return notebook.panel(
            "catalog" if about.complete else "catalog, not finished",
            f"{about.subject} {about.hookpoint}",
            notebook.facts((own | given).items()),
            notebook.histogram(rates["edges"], rates["counts"], chart) if rates else "",
            notebook.code(f"catalog[123]   # a card\nsae serve {shlex.quote(str(self.path))}"),
        )


def shard_path(folder: Path, number: int) -> Path:
    """Return where the shard of that number lies, or will."""
    return folder / f"{number:06d}.safetensors"


def write_shard(folder: Path, number: int, packed: Sequence[bytes]) -> None:
    """Write a shard of packed cards in one step; it is there whole or not at all."""
    offsets = np.cumsum([0, *(len(one) for one in packed)], dtype=np.int64)
    data = np.frombuffer(b"".join(packed), dtype=np.uint8)
    write_durably(shard_path(folder, number), [save({"data": data, "offsets": offsets})], CatalogError)


def write_columns(folder: Path, columns: Mapping[str, Float[np.ndarray, " cards"]]) -> None:
    """Write the numbers of all cards of a kind."""
    arrays = {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in columns.items()}
    write_durably(folder / "columns.safetensors", [save(arrays)], CatalogError)


def write_places(folder: Path, places: Float[np.ndarray, "cards d_joint"]) -> None:
    """Write where the cards of a kind lie in the space that images and texts share."""
    array = np.ascontiguousarray(places, dtype=np.float32)
    write_durably(folder / PLACES, [save({"places": array})], CatalogError)


def write_json(path: Path, data: Any) -> None:
    """Write plain data in one step."""
    write_durably(path, [json_bytes(data)], CatalogError)


def json_bytes(data: Any) -> bytes:
    """Return plain data as a file holds it; raises ValueError for NaN and infinity, which JSON has not."""
    return (json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> Any:
    """Read plain data.

    Raises:
        CatalogError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as cause:
        raise CatalogError(f"{path}: cannot be read ({cause}); is this the folder of a catalog?") from cause
