"""Building a catalog: one pass over a store, then the cards of a few hundred latents at a time.

    1. Every vector is encoded once; what fires is kept on disk, sorted by latent (`firings`).
    2. For each range of latents all of their firings are read again, and the sections of their cards made from them
       and from whatever else is known; a shard of cards is written.
    3. Columns, words and the overview are gathered from all cards, and the firings removed.

A build that was cut off goes on where it stopped: segments and shards that are there are not made again, and everything
drawn depends on the seed alone, so it ends with the same cards.
"""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from sae.activations.store import ActivationStore, Vectors
from sae.dictionaries.base import Dictionary
from sae.errors import CatalogError
from sae.evaluation.ground import Rows, check_belonging
from sae.features.building import held_out
from sae.features.building.catalog_config import CatalogConfig
from sae.features.building.contexts import Contexts, ImageContexts, Ref, TextContexts, references, with_losses
from sae.features.building.directions import Direction, Sources
from sae.features.building.evidence import Amounts, Evidence, NearMisses, Origins, Shown, grouped
from sae.features.building.firings import Firings, Record, record
from sae.features.building.held_out import HeldOut
from sae.features.building.known import TOKEN_LOSSES, Known, Section, raw_neurons
from sae.features.building.overall import Entry, Index, entry_of, write_index, write_overall
from sae.features.building.sampling import Entries, one_of_each, priorities, split, strongest
from sae.features.building.titles import CaptionTitles, text_title
from sae.features.building.workers import in_order, usable_cores, without_cycle_search
from sae.features.cards import Card
from sae.features.catalog import (
    CARDS_PER_SHARD,
    KINDS,
    About,
    Catalog,
    Shelf,
    shard_path,
    write_places,
    write_shard,
)
from sae.features.sections.scores import Scores
from sae.features.sections.writes import CaptionWrites
from sae.features.show import token_decoder
from sae.inputs.base import Inputs
from sae.log import progress
from sae.subjects.base import Subject
from sae.tensors import Kind

logger = logging.getLogger(__name__)

CARDS_AT_A_TIME = 128
FIRINGS = "firings"
"""Folder of what is kept while a catalog is being built."""
SPARE = 2
"""Further near misses to choose from, for each that is held out."""
CAPTIONED = 2000
"""Examples, spread evenly, from which it is known how common a caption's words are."""
TITLE_AUC, TITLE_PRECISION = 0.95, 0.5
"""A latent that detects a label as well as this is called by it."""


@dataclass(frozen=True)
class Ground:
    """What cards are made from.

    Attributes:
        modality: of what is shown, "text" or "image".
        kind: of the cards, "latent", "neuron" or "direction"; a neuron's dictionary is the identity.
        record: all firings.
        names: of the cards, where what is shown has names of its own.
    """

    dictionary: Dictionary
    subject: Subject
    inputs: Inputs
    vectors: Vectors
    config: CatalogConfig
    modality: str
    kind: str
    record: Record
    names: Sequence[str] = ()

    @cached_property
    def origins(self) -> Origins:
        return Origins.of(self.vectors)

    def evidence(self, firings: Firings) -> Evidence:
        """Return the evidence of a range of latents."""
        return Evidence(firings, self.origins, self.config.examples, self.config.seed, self.modality == "image")

    @cached_property
    def top_examples(self) -> Int64[np.ndarray, "d_sae top"]:
        """Numbers of the strongest examples of every latent, -1 where there are fewer; read when asked for."""
        return self._examples(lambda firings, example: strongest(firings, example, self.config.examples.top))

    def drawn_examples(self, n: int) -> Int64[np.ndarray, "d_sae n"]:
        """Draw n examples of every latent at random among its firings; -1 where there are fewer."""

        def draw(firings: Firings, example: Int64[np.ndarray, " nnz"]) -> Entries:
            whole = np.stack([firings.offsets[:-1], firings.offsets[1:]], axis=1)
            return one_of_each(split(whole, n), priorities(firings.places, self.config.seed))

        return self._examples(draw)

    def _examples(self, choose: Callable[[Firings, Int64[np.ndarray, " nnz"]], Entries]) -> Entries:
        """Return the examples of the firings that are chosen, range after range of latents."""
        found = []
        for latents in self.record.ranges(range(self.dictionary.d_sae)):
            firings = self.record.of(latents)
            example = self.origins.example[firings.rows]
            entries = choose(firings, example)
            found.append(np.where(entries >= 0, example[entries], -1) if len(example) else entries)
        return np.concatenate(found)


def build(
    dictionary: Dictionary, store: ActivationStore, config: CatalogConfig, subject: Subject, inputs: Inputs
) -> Catalog:
    """Make the catalog of a dictionary on a store, or finish it; a finished one is left as it is.

    Raises:
        CatalogError: the folder holds the catalog of something else, the disk has no room, or there is nothing to show.
        EvaluationError: dictionary, store, subject, inputs and report do not belong together.
    """
    rows = Rows.of(dictionary, [store, *map(ActivationStore, config.beside)])
    check_belonging(rows, subject, inputs)
    vectors = rows.inputs
    sources = Sources.read(config.directions, dictionary.d_in)
    about = describe(dictionary, vectors, config, sources)
    if started(config.out, about).complete:
        shutil.rmtree(config.out / FIRINGS, ignore_errors=True)
        return Catalog.open(config.out)
    scores = Scores.find(config.report, dictionary, config.dictionary)
    dictionary = dictionary.to(config.device).eval()
    known = Known(dictionary, subject, inputs, vectors, config)
    directions = sources.made(known.sample) if len(sources) else []
    about.save(config.out)
    with without_cycle_search():
        index = _latents(known, about, scores)
        if config.neurons:
            _neurons(known, about)
        if directions:
            _directions(known, about, directions)
    drawn = index.draw_map(dictionary.W_dec, config.seed) if config.map else None
    write_overall(config.out, about, index, scores, drawn)
    replace(about, complete=True).save(config.out)
    shutil.rmtree(config.out / FIRINGS)
    return Catalog.open(config.out)


def _latents(known: Known, about: About, scores: Scores | None) -> Index:
    """Make the cards of all latents."""
    config, dictionary, n = known.config, known.dictionary, known.config.ablation_examples
    with ThreadPoolExecutor(1) as beside:
        # Labels are made by plain Python while vectors are encoded by matrix products, which leave Python alone.
        controls = beside.submit(lambda: known.controls)
        ground = grounded(known, about, "latent", dictionary)
        controls.result()
    made = known.latent_sections(ground.top_examples, ground.drawn_examples(n) if n else None)
    writes = made.get("writes")
    if isinstance(writes, CaptionWrites):
        write_places(config.out / KINDS["latent"], writes.places.numpy())
    return _filled(ground, made | ({"scores": scores} if scores else {}))


def _neurons(known: Known, about: About) -> None:
    """Make the cards of the raw neurons, with columns and words of their own."""
    config, neurons = known.config, raw_neurons(known.dictionary.d_in).to(known.config.device)
    ground = grounded(known, about, "neuron", neurons, config.neuron_vectors)
    write_index(config.out / KINDS["neuron"], _filled(ground, known.neuron_sections()))


def _directions(known: Known, about: About, found: Sequence[Direction]) -> None:
    """Make the cards of directions, as those of neurons."""
    config, units = known.config, known.directions(found)
    ground = grounded(known, about, "direction", units, config.neuron_vectors, [one.name for one in found])
    write_index(config.out / KINDS["direction"], _filled(ground, known.direction_sections(units, found)))


def grounded(
    known: Known, about: About, kind: str, units: Dictionary, n_rows: int | None = None, names: Sequence[str] = ()
) -> Ground:
    """Record what units do on all rows, or on the first ones, and return what their cards are made from."""
    config, vectors = known.config, known.vectors
    kept = record(units, vectors, config.out / FIRINGS / KINDS[kind], config.chunk_vectors, n_rows)
    return Ground(units, known.subject, known.inputs, vectors, config, about.modality, kind, kept, names)


def _filled(ground: Ground, made: Mapping[str, Section]) -> Index:
    index = Index()
    shelf = Shelf(ground.config.out, ground.kind, ground.dictionary.d_sae)
    for entry in Maker(ground, made).fill(shelf, ground.config.workers or usable_cores()):
        index.add(entry)
    return index


def describe(dictionary: Dictionary, vectors: Vectors, config: CatalogConfig, sources: Sources) -> About:
    """Return what the catalog will be of."""
    counts = {"latents": dictionary.d_sae} | ({"neurons": dictionary.d_in} if config.neurons else {})
    own = {"source": config.dictionary, "repr": repr(dictionary), "sha256": dictionary.hash}
    own |= {"kind": dictionary.config.kind, "d_in": dictionary.d_in, "d_sae": dictionary.d_sae}
    return About(
        dictionary=own | {"provenance": dictionary.provenance},
        subject=vectors.store.subject_id,
        hookpoint=vectors.hookpoint.name,
        store=vectors.store.hash,
        modality="image" if vectors.hookpoint.name.startswith("visual.") else "text",
        n_vectors=len(vectors),
        n_examples=len(vectors.store.inputs),
        counts=counts | ({"directions": len(sources)} if len(sources) else {}),
        settings=config.settings | {"directions": {name: sources.hashes.get(name) for name in sources.names}},
    )


def started(folder: Path, about: About) -> About:
    """Return what is known of a catalog that was begun here before, else what is about to be made.

    Raises:
        CatalogError: it is of something else.
    """
    if not (folder / About.FILE).is_file():
        return about
    found = About.read(folder)
    for name in ("dictionary", "store", "hookpoint", "settings"):
        here, wanted = getattr(found, name), getattr(about, name)
        if name == "dictionary":
            here, wanted = here["sha256"], wanted["sha256"]
        if here != wanted:
            raise CatalogError(f"{folder}: holds a catalog with {name} {here}, not {wanted}; choose another folder.")
    return found


@dataclass(frozen=True)
class Part:
    """A range of latents, and what was found out about them on the subject's device."""

    latents: range
    near: dict[str, Shown]
    sections: dict[str, Sequence[Any | None]]


class Maker:
    """Makes cards, a shard at a time.

    Args:
        ground: what they are made from.
        sections: what makes the sections beside statistics and examples.
    """

    def __init__(self, ground: Ground, sections: Mapping[str, Section]) -> None:
        self.ground, self.sections = ground, sections
        self._contexts, self._title = shown_by(ground)
        self._near = near_misses(ground)
        self._held_out = held_out_of(ground, self._contexts.reach)

    def fill(self, shelf: Shelf, n_workers: int = 1) -> Iterator[Entry]:
        """Write the shards that are missing; yield an entry of the index for every card, made now or before."""
        shards = [range(i, min(i + CARDS_PER_SHARD, len(shelf))) for i in range(0, len(shelf), CARDS_PER_SHARD)]
        there = {shard: entries for shard in shards if (entries := written(shelf, shard)) is not None}
        ranges = [latents for shard in shards if shard not in there for latents in self._ranges(shard)]
        made = self._made(ranges, min(n_workers, len(ranges)))
        with progress("cards", total=len(shelf), unit="cards") as bar:
            bar.skip(sum(map(len, there)))
            for shard in shards:
                entries = there.pop(shard, None)
                if entries is None:
                    packed, entries = map(list, zip(*chain(*islice(made, len(self._ranges(shard)))), strict=True))
                    write_shard(shelf.folder, shard.start // CARDS_PER_SHARD, packed)
                    bar.advance(len(entries))
                yield from entries

    def _ranges(self, shard: range) -> list[range]:
        """Cut a shard into ranges of latents whose cards are made at a time."""
        blocks = [shard[i : i + CARDS_AT_A_TIME] for i in range(0, len(shard), CARDS_AT_A_TIME)]
        return [latents for block in blocks for latents in self.ground.record.ranges(block)]

    def _made(self, ranges: Sequence[range], n_workers: int) -> Iterator[list[tuple[bytes, Entry]]]:
        """Make the cards of ranges of latents; on an accelerator all that needs it is found out in this process."""
        if self.ground.dictionary.W_dec.device.type == "cpu":
            return in_order(lambda latents: self._packed(self._part(latents)), ranges, n_workers)
        return in_order(self._packed, map(self._part, ranges), n_workers)

    def _part(self, latents: range) -> Part:
        amounts, firings = self._amounts, self.ground.record.of(latents)
        near = {} if self._near is None else self._near.of(firings, amounts.near, SPARE * amounts.held_out)
        return Part(latents, near, {name: section.of(latents) for name, section in self.sections.items()})

    def _packed(self, part: Part) -> list[tuple[bytes, Entry]]:
        """Make the cards of a range of latents, as they go into a shard and into the index."""
        return [(card.packed(), entry_of(card)) for card in self.cards(part)]

    def cards(self, part: Part) -> list[Card]:
        """Make the cards of a range of latents, and write what they point to."""
        found = self._evidence(part) | part.sections
        cards = []
        for i, latent in enumerate(part.latents):
            own = {name: section[i] for name, section in found.items() if section[i] is not None}
            if losses := own.pop(TOKEN_LOSSES, None):
                with_losses(own["examples"]["top"], losses)  # type: ignore[index]
            cards.append(Card(self.ground.kind, latent, self._titled(latent, own), own))
        return cards

    def _evidence(self, part: Part) -> dict[str, Sequence[Any | None]]:
        ground, firings = self.ground, self.ground.record.of(part.latents)
        evidence = ground.evidence(firings)
        near = dict(part.near)
        spare, shown = near.pop("spare", None), evidence.examples() | near
        held = self._held_out.of(firings, shown, spare) if self._held_out else {}
        refs = references(firings, ground.origins, shown | held, self._contexts)
        self._contexts.finish(ref for one in refs for slots in one.values() for slot in slots for ref in slot)
        edges = evidence.level_edges.tolist()
        examples = [_examples(one, own, self._amounts) for one, own in zip(refs, edges, strict=True)]
        made: dict[str, Sequence[Any | None]] = {"statistics": evidence.statistics(), "examples": examples}
        return made | ({"held_out": [held_out.section(one) for one in refs]} if held else {})

    @property
    def _amounts(self) -> Amounts:
        return self.ground.config.examples

    def _titled(self, latent: int, own: Mapping[str, Any]) -> str:
        if self.ground.names:
            return self.ground.names[latent]
        label = next(iter(own.get("labels", ())), None)
        if label and label["auc"] >= TITLE_AUC and label.get("average_precision", 0) >= TITLE_PRECISION:
            return label["label"]
        top = own.get("examples", {}).get("top", [])
        return (self._title(top) or f"{self.ground.kind} {latent}") if top else "never fires"


def shown_by(ground: Ground) -> tuple[Contexts, Any]:
    """Return what turns firings into references to text or images, and what names a latent by them."""
    store, config, point = ground.vectors.store, ground.config, ground.vectors.hookpoint
    pooled = point.grid.endswith("pooled")
    if ground.modality == "text":
        decode = token_decoder(ground.subject)
        return TextContexts(store.inputs, decode, config.context, pooled), text_title
    subject: Any = ground.subject
    patches, grid = np.zeros(0, dtype=np.int64), (0, 0)
    if not pooled:
        kinds = subject.rows(ground.inputs.batch(0, 1), point.grid).kind[0]
        patches, grid = (kinds == int(Kind.PATCH)).nonzero()[:, 0].numpy(), subject.patch_grid(point.grid)
    contexts = ImageContexts(ground.inputs, store.inputs.reference, patches, grid, config.out)
    n_examples = len(store.inputs)
    sample = range(0, n_examples, max(1, n_examples // CAPTIONED))
    titles = CaptionTitles(" ".join(map(str, contexts.about(example).values())) for example in sample)
    return contexts, titles.title


def near_misses(ground: Ground) -> NearMisses | None:
    """Return what finds near misses; None for architectures whose encoder is no product with the whole vector."""
    dictionary, config = ground.dictionary, ground.config
    if dictionary.W_enc_rows.shape[1] != dictionary.d_in:
        logger.warning("%r: latents read part of a vector, so near misses are left out.", dictionary)
        return None
    return NearMisses(dictionary, ground.vectors, ground.record.n_rows, config.near_vectors, config.seed)


def held_out_of(ground: Ground, reach: int | None) -> HeldOut | None:
    """Return what draws held-out examples; None where none are asked for."""
    n, seed, n_rows = ground.config.examples.held_out, ground.config.seed, ground.record.n_rows
    return HeldOut(ground.origins, n_rows, n, reach, seed, ground.modality == "image") if n else None


def written(shelf: Shelf, shard: range) -> list[Entry] | None:
    """Read a shard that was written before; None if it is missing or damaged, so that it is made again."""
    if not shard_path(shelf.folder, shard.start // CARDS_PER_SHARD).is_file():
        return None
    try:
        return [entry_of(shelf[index]) for index in shard]
    except CatalogError as cause:
        logger.warning("%s", cause)
        return None


def _examples(refs: Mapping[str, list[list[Ref]]], edges: Sequence[float], amounts: Amounts) -> dict[str, Any] | None:
    """Put the examples of a latent together; lists that would be empty are left out."""
    share = amounts.quantiles
    shown = {name: slots for name, slots in refs.items() if name not in held_out.NAMES}
    found = {name: [ref for slot in slots for ref in slot] for name, slots in shown.items()}
    found["quantiles"] = grouped(refs["quantiles"], amounts.each, lambda i: (i / share, (i + 1) / share))
    found["levels"] = grouped(refs["levels"], amounts.each, lambda i: (edges[i], edges[i + 1]))
    return {name: examples for name, examples in found.items() if examples} or None
