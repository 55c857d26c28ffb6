"""Cards in the fields that SAEDashboard and Neuronpedia share, and catalogs made of what they wrote. Needs no torch.

Both describe a latent by flat lists (`pos_str` beside `pos_values`, ...) and an example by tokens with values; only the
spelling of the examples' fields differs. Histograms are given by the middles of their bars.
"""

import itertools
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sae.durable import write_durably
from sae.errors import CatalogError
from sae.features.cards import Card, rounded, strings
from sae.features.catalog import (
    CARDS_PER_SHARD,
    About,
    Catalog,
    write_columns,
    write_json,
    write_shard,
)
from sae.features.rounding import pairs

MOST_TOP = 20
"""Examples that a card keeps as its strongest."""
TITLE_TOKENS = 3
IMAGE = re.compile(r"images/[\w-]+\.png")


def card_of(
    index: int, feature: Mapping[str, Any], examples: Sequence[Mapping[str, Any]], title: str | None = None
) -> Card:
    """Return the card of a latent described in those fields.

    Args:
        index: its number.
        feature: the flat lists.
        examples: as `example_of` returns them.
        title: its best explanation, where there is one; else its title is made of its strongest tokens.
    """
    sections = {
        "statistics": _statistics(feature, examples),
        "examples": _examples(examples),
        "writes": _writes(feature),
        "neurons": _neurons(feature),
        "neighbours": _neighbours(index, feature),
    }
    found = {name: section for name, section in sections.items() if section}
    return Card(kind="latent", index=index, title=title or _title(feature, examples), sections=found)


def example_of(
    tokens: Sequence[str],
    values: Sequence[float],
    losses: Sequence[float] | None = None,
    between: tuple[float | None, float | None] = (None, None),
    example: int = -1,
) -> dict[str, Any]:
    """Return an example of another tool as a card's, with the activations between which it was drawn as `bin`.

    Numbers that are no such limits, as the -1 that some write for the strongest examples, are passed over.
    """
    position = max(range(len(values)), key=values.__getitem__)
    ref: dict[str, Any] = {"example": example, "position": position, "value": rounded(values[position]), "start": 0}
    ref |= {"tokens": list(tokens), "values": [rounded(value) for value in values]}
    ref |= {"losses": [rounded(loss) for loss in losses]} if losses else {}
    low, high = between
    return ref | ({"bin": [low, high]} if low is not None and high is not None and 0 <= low < high else {})


def write_catalog(out: Path, about: About, cards: Iterable[tuple[int, bytes]]) -> Catalog:
    """Write a catalog of latents.

    Args:
        out: its folder.
        about: what it is of; the counts and `complete` are filled in.
        cards: packed, by number, in any order; numbers between them that are missing get empty cards.

    Raises:
        CatalogError: there are no cards, or a folder cannot be written.
    """
    packed = dict(cards)
    if not packed:
        raise CatalogError(f"{out}: nothing to write; no latents were found.")
    count = max(packed) + 1
    columns = {name: np.full(count, np.nan, dtype=np.float32) for name in ("rate", "max")}
    words: list[list[str]] = []
    for number, first in enumerate(range(0, count, CARDS_PER_SHARD)):
        shard = [_card(packed, index) for index in range(first, min(first + CARDS_PER_SHARD, count))]
        write_shard(out / "latents", number, [card.packed() for card in shard])
        for card in shard:
            statistics = card.sections.get("statistics", {})
            for name, column in columns.items():
                column[card.index] = np.nan if statistics.get(name) is None else statistics[name]
            words.append([card.title, " ".join(dict.fromkeys(strings(card.to_json())))])
    write_columns(out / "latents", columns)
    write_json(out / "latents" / "words.json", words)
    About(**{**about.__dict__, "counts": {"latents": count}, "complete": True}).save(out)
    return Catalog.open(out)


def copy_images(names: Iterable[str], source: Path, target: Path) -> None:
    """Copy pictures from one folder to another; those that are not there are left out.

    Raises:
        CatalogError: a name leads elsewhere than into `images/`.
    """
    for name in dict.fromkeys(names):
        if not IMAGE.fullmatch(name):
            raise CatalogError(f"{source}: {name!r} is no name of a picture; allowed are images/NAME.png.")
        if (source / name).is_file():
            write_durably(target / name, [(source / name).read_bytes()], CatalogError)


def packed_rows(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows compressed, for holding many of them."""
    return zlib.compress(json.dumps(rows, ensure_ascii=False).encode(), 1)


def unpacked_rows(parts: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return the rows of several packed parts."""
    return [row for part in parts for row in json.loads(zlib.decompress(part))]


def bars(histogram: Mapping[str, Sequence[float]]) -> tuple[list[float], list[float]]:
    """Return the heights and the middles of a histogram's bars."""
    edges = histogram["edges"]
    return list(histogram["counts"]), [(low + high) / 2 for low, high in itertools.pairwise(edges)]


def _card(packed: Mapping[int, bytes], index: int) -> Card:
    return Card.unpacked(packed[index]) if index in packed else Card("latent", index, "", {})


def _histogram(heights: Sequence[float] | None, middles: Sequence[float] | None) -> dict[str, Any] | None:
    if not heights or not middles or len(middles) < 2 or len(heights) != len(middles):
        return None
    half = (middles[1] - middles[0]) / 2
    return {"edges": [rounded(m - half) for m in middles] + [rounded(middles[-1] + half)], "counts": list(heights)}


def _statistics(feature: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rate, largest = feature.get("frac_nonzero"), feature.get("maxActApprox")
    if largest is None and examples:
        largest = max(example["value"] for example in examples)
    # Rates came through a percentage of three decimals: where a latent fires, 0 means that it is not known.
    rate = None if rate == 0 and largest else rate
    linear = _histogram(feature.get("freq_hist_data_bar_heights"), feature.get("freq_hist_data_bar_values"))
    found = {"rate": None if rate is None else rounded(rate), "max": None if largest is None else rounded(largest)}
    return {name: value for name, value in (found | {"linear": linear}).items() if value is not None}


def _examples(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    levels: dict[tuple[float, float], list[dict[str, Any]]] = {}
    top = []
    for example in examples:
        bare = {key: value for key, value in example.items() if key != "bin"}
        if "bin" in example:
            levels.setdefault(tuple(example["bin"]), []).append(bare)
        else:
            top.append(bare)
    if not top:
        top = [one for group in levels.values() for one in group]
    top.sort(key=lambda one: -one["value"])
    bands = [
        {"low": rounded(low), "high": rounded(high), "examples": levels[low, high]} for low, high in sorted(levels)
    ]
    return {name: value for name, value in (("top", top[:MOST_TOP]), ("levels", bands)) if value}


def _writes(feature: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "up": _named(feature, "pos_str", "pos_values"),
        "down": _named(feature, "neg_str", "neg_values"),
        "histogram": _histogram(
            feature.get("logits_hist_data_bar_heights"), feature.get("logits_hist_data_bar_values")
        ),
    }
    return {name: value for name, value in found.items() if value}


def _neurons(feature: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "writes": _named(feature, "neuron_alignment_indices", "neuron_alignment_values"),
        "correlated": _named(feature, "correlated_neurons_indices", "correlated_neurons_pearson"),
    }
    return {name: value for name, value in found.items() if value}


def _neighbours(index: int, feature: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "decoder": _named(feature, "topkCosSimIndices", "topkCosSimValues"),
        "coactivation": _named(feature, "correlated_features_indices", "correlated_features_pearson"),
    }
    others = {name: [pair for pair in value if pair[0] != index] for name, value in found.items()}
    return {name: value for name, value in others.items() if value}


def _named(feature: Mapping[str, Any], names: str, values: str) -> list[list[Any]]:
    return pairs(*zip(*_both(feature, names, values), strict=True)) if any(_both(feature, names, values)) else []


def _both(feature: Mapping[str, Any], names: str, values: str) -> Iterator[tuple[Any, float]]:
    yield from zip(feature.get(names) or (), feature.get(values) or (), strict=False)


def _title(feature: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> str:
    strongest = sorted(examples, key=lambda one: -one["value"])[:MOST_TOP]
    tokens = [one["tokens"][one["position"] - one["start"]].strip() for one in strongest if one.get("tokens")]
    tokens = tokens or [token.strip() for token in feature.get("pos_str") or ()]
    return " ".join(list(dict.fromkeys(filter(None, tokens)))[:TITLE_TOKENS])
