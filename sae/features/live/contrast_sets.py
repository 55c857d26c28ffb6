"""Two sets of texts or images, brought or taken from the inputs by label, and the latents that tell them apart."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.dictionaries.codes import Codes
from sae.errors import InputsError
from sae.evaluation.controls import random_directions
from sae.evaluation.pooling import pool_dense
from sae.evaluation.sample import encoded
from sae.features.cards import rounded
from sae.features.live.contrast import Contrast, contrast
from sae.features.live.given import Texts, field, frame_of, image_batches, png
from sae.features.live.label_sets import Chosen, choose, families
from sae.features.live.loaded import Loaded
from sae.features.live.reading import Read, read
from sae.features.rounding import all_rounded
from sae.features.show import token_decoder

Pool = Literal["max", "mean"]
MOST_EXAMPLES = 500
DEFAULT_LIMIT = 100
MOST_PERMUTATIONS = 10_000
SHOWN = 25
"""Latents shown for either set."""
THUMBNAIL = 48
CONTEXT = 8
NAME = 200


@dataclass(frozen=True)
class Items:
    """One set: its rows, the item that each belongs to, and what each item is called.

    Attributes:
        read: all rows; those of an item are neighbours, items are numbered from 0.
        names: a few words for every item.
        thumbnails: base64 of a small PNG of every item; None for texts.
    """

    read: Read
    names: Sequence[str]
    thumbnails: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def n_rows(self) -> Int[Tensor, " items"]:
        return torch.bincount(self.read.example, minlength=len(self))


class ContrastAsk:
    """Answers {"a": SET, "b": SET} with the latents that tell two sets apart.

    SET is {"texts": [...]}, {"images": [base64, ...]}, or {"label": "family=value"} (or "family!=value") for examples
    of the inputs; where labels are given per token, one token of each example that has the label, drawn at random, is
    an item. An example counts by the largest activation over its positions, or by the mean with {"pool": "mean"}.

    >>> ask = ContrastAsk(loaded)  # doctest: +SKIP
    >>> ask.answer({"texts": ["def f(x):"]}, {"texts": ["class A:"]})  # doctest: +SKIP

    Args:
        loaded: any catalog with its subject.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.about = {
            "takes": "images" if loaded.reads_images else "texts",
            "labels": families(loaded.inputs),
            "most_examples": MOST_EXAMPLES,
            "pooled": loaded.pooled,
        }

    @classmethod
    def of(cls, loaded: Loaded) -> "ContrastAsk":
        """Return what answers; every subject can be asked."""
        return cls(loaded)

    def __call__(self, question: Mapping[str, Any]) -> dict[str, Any]:
        pool = field(question, "pool", str, "max")
        if pool not in ("max", "mean"):
            raise InputsError(f"pool: must be max or mean, got {pool!r:.40}.")
        numbers = {
            "n_permutations": (field(question, "n_permutations", int, 1000), MOST_PERMUTATIONS),
            "limit": (field(question, "limit", int, DEFAULT_LIMIT), MOST_EXAMPLES),
        }
        for name, (value, most) in numbers.items():
            if not 1 <= value <= most:
                raise InputsError(f"{name}: must be from 1 to {most:,}, got {value}.")
        sets = [field(question, name, dict) for name in ("a", "b")]
        given = {name: value for name, (value, _) in numbers.items()}
        return self.answer(*sets, pool=pool, seed=field(question, "seed", int, 0), **given)  # type: ignore[arg-type]

    def answer(
        self,
        a: Mapping[str, Any],
        b: Mapping[str, Any],
        pool: Pool = "max",
        n_permutations: int = 1000,
        seed: int = 0,
        limit: int = DEFAULT_LIMIT,
    ) -> dict[str, Any]:
        """Compare two sets.

        Args:
            a: the first set, see the class; pictures are base64 or the bytes of their files.
            b: the second set.
            pool: how the positions of an example count.
            n_permutations: how often membership is dealt out to see what chance does.
            seed: of the dealing, of the tokens drawn and of the random directions.
            limit: most examples of a label.

        Returns:
            `latents`: the `SHOWN` that answer more to the first set and as many that answer more to the second, largest
            effect first: `index`, `title`, `auc`, `difference`, `fires` (shares), `p`, `passes`, and `values`, the
            response to every example of either set.
            `threshold`, `smallest_p`, `n_permutations`, `exact`: see `contrast.Contrast`; `n_pass`, how many pass.
            `neuron`, `random`: `index`, `auc` and `p` of the raw neuron, and of as many random directions as latents,
            each firing as often, that tells the sets apart best.
            `sets`: of each its `names`, `thumbnails` and the median number of `positions` of an example.
            `shared`: examples that both labels chose, which were left out.

        Raises:
            InputsError: a set is empty or too large, or cannot be read.
        """
        first, second, n_shared = self._sets(a, b, seed, limit)
        x = torch.cat([first.read.x, second.read.x])
        pooled = [pooled_codes(one.read.codes, one, pool) for one in (first, second)]
        latents = contrast(*pooled, n_permutations=n_permutations, seed=seed)
        raw = [pooled_dense(one.read.x, one, pool) for one in (first, second)]
        neurons = contrast(*raw, n_permutations=n_permutations, seed=seed)
        drawn = self._random(first, second, x, pool, seed)
        chance = contrast(*drawn, n_permutations=n_permutations, seed=seed) if drawn else None
        return {
            "latents": self._rows(latents, pooled),
            "threshold": latents.threshold,
            "smallest_p": rounded(latents.smallest_p),
            "n_permutations": latents.n_permutations,
            "exact": latents.exact,
            "n_pass": int(passes(latents).sum()),
            "neuron": best(neurons),
            "random": best(chance) if chance else None,
            "sets": [
                {
                    "names": list(one.names),
                    "thumbnails": None if one.thumbnails is None else list(one.thumbnails),
                    "positions": float(one.n_rows.double().median()),
                }
                for one in (first, second)
            ],
            "shared": n_shared,
            "pool": pool,
        }

    def _rows(self, found: Contrast, pooled: Sequence[Float[Tensor, "items d_sae"]]) -> list[dict[str, Any]]:
        effect, passed = found.effect, passes(found)
        # Of equal effects the one that differs more comes first.
        size = np.nan_to_num(np.abs(found.difference))
        order = np.lexsort((-size, -np.abs(effect)))
        chosen = [order[effect[order] > 0][:SHOWN], order[effect[order] < 0][:SHOWN]]
        return [
            {
                "index": latent,
                "title": self.loaded.title(latent),
                "auc": rounded(float(found.auc[latent])),
                "difference": rounded(float(found.difference[latent])),
                "fires": all_rounded(found.fires[:, latent].tolist()),
                "p": rounded(float(found.p[latent])),
                "passes": bool(passed[latent]),
                "values": [all_rounded(one[:, latent].tolist()) for one in pooled],
            }
            for latent in np.concatenate(chosen).tolist()
        ]

    def _random(
        self, first: Items, second: Items, x: Float[Tensor, "rows d_in"], pool: Pool, seed: int
    ) -> list[Float[Tensor, "items d_sae"]]:
        """Return the responses of random directions that fire as often as the latents do on these rows."""
        if len(x) < 3:
            return []
        fired = first.read.codes.n_fired() + second.read.codes.n_fired()
        drawn = random_directions(x, fired.double() / len(x), seed)
        return [pooled_codes(encoded(drawn, one.read.x), one, pool) for one in (first, second)]

    def _sets(self, a: Mapping[str, Any], b: Mapping[str, Any], seed: int, limit: int) -> tuple[Items, Items, int]:
        """Read both sets; an item that two labels share belongs to neither."""
        chosen = [choose(self.loaded.inputs, one["label"], limit, seed) if "label" in one else None for one in (a, b)]
        shared: set[tuple[int, int]] = set()
        if chosen[0] is not None and chosen[1] is not None:
            shared = set(chosen[0].places) & set(chosen[1].places)
        found = []
        for name, given, by_label in zip(("first", "second"), (a, b), chosen, strict=True):
            if by_label is not None:
                found.append(self._labelled(by_label.without(shared), name))
            else:
                found.append(self._brought(given, name))
        return found[0], found[1], len(shared)

    def _brought(self, given: Mapping[str, Any], name: str) -> Items:
        loaded, wanted = self.loaded, self.about["takes"]
        if wanted not in given:
            raise InputsError(f"{name} set: needs {wanted} or a label, got {', '.join(given) or 'nothing'}.")
        brought = given[wanted]
        if not isinstance(brought, list | tuple) or not 1 <= len(brought) <= MOST_EXAMPLES:
            n = len(brought) if isinstance(brought, list | tuple) else type(brought).__name__
            raise InputsError(f"{name} set: needs a list of 1 to {MOST_EXAMPLES} {wanted}, got {n}.")
        if wanted == "images":
            frames = [
                _named(f"{name} set, picture {i + 1}", frame_of, one, loaded.subject) for i, one in enumerate(brought)
            ]
            names = [f"picture {i + 1}" for i in range(len(frames))]
            return pooled_items(read(loaded, image_batches(frames)), names, [thumbnail(frame) for frame in frames])
        texts = Texts(loaded.subject, loaded.inputs)
        found = read(loaded, texts.batches(brought))
        return pooled_items(found, [text if len(text) <= NAME else text[: NAME - 1] + "…" for text in brought])

    def _labelled(self, chosen: Chosen, name: str) -> Items:
        if not chosen.places:
            raise InputsError(f"{name} set: no example has {chosen.label} alone.")
        loaded = self.loaded
        batches = list(chosen.batches(loaded.inputs))
        found = read(loaded, batches)
        if chosen.per_token:
            position = torch.tensor([position for _, position in chosen.places])
            found = only(found, found.position == position[found.example])
        if loaded.reads_images:
            frames = [frame for batch in batches if batch.images is not None for frame in batch.images]
            names = [f"example {example}" for example, _ in chosen.places]
            return pooled_items(found, names, [thumbnail(frame) for frame in frames])
        decode = token_decoder(loaded.subject)
        tokens = [row for batch in batches if batch.tokens is not None for row in batch.tokens.tolist()]
        names = []
        for row, (_, position) in zip(tokens, chosen.places, strict=True):
            start, stop = (max(0, position - CONTEXT), position + 1) if chosen.per_token else (0, 4 * CONTEXT)
            names.append("".join(decode(token) for token in row[start:stop])[-NAME:])
        return pooled_items(found, names)


def pooled_items(found: Read, names: Sequence[str], thumbnails: Sequence[str] | None = None) -> Items:
    """Keep the rows that stand for an example together, and refuse examples that have none.

    Raises:
        InputsError: an example has no vector, because it is nothing but special tokens.
    """
    kept = only(found, found.pooled_rows)
    missing = sorted(set(range(len(names))) - set(kept.example.tolist()))
    if missing:
        raise InputsError(f"{names[missing[0]]!r:.60} has no token that the dictionary was trained on.")
    return Items(kept, names, thumbnails)


def only(found: Read, keep: Tensor) -> Read:
    """Return some of the rows."""
    rows = keep.nonzero()[:, 0]
    return Read(found.x[rows], found.codes.on(rows), found.example[rows], found.position[rows], found.kind[rows])


def pooled_codes(codes: Codes, items: Items, pool: Pool) -> Float[Tensor, "items d_sae"]:
    """Return the response of each latent to each item; where it is silent it counts as 0."""
    out = torch.zeros(len(items) * codes.d_sae)
    place = items.read.example[codes.rows] * codes.d_sae + codes.indices
    out.scatter_reduce_(0, place, codes.values.float(), "amax" if pool == "max" else "sum")
    out = out.view(len(items), codes.d_sae)
    return out if pool == "max" else out / items.n_rows[:, None]


def pooled_dense(x: Float[Tensor, "rows units"], items: Items, pool: Pool) -> Float[Tensor, "items units"]:
    """Return the response of each neuron to each item."""
    if pool == "max":
        return pool_dense(x, items.read.example, len(items))
    return x.new_zeros(len(items), x.shape[1]).index_add_(0, items.read.example, x) / items.n_rows[:, None]


def passes(found: Contrast) -> np.ndarray:
    """Mark the units that exceed the threshold."""
    return np.abs(found.effect) > (np.inf if found.threshold is None else found.threshold)


def best(found: Contrast) -> dict[str, Any]:
    """Return number, effect and p of the unit that tells the sets apart best."""
    unit = found.best
    return {"index": unit, "auc": rounded(float(found.auc[unit])), "p": rounded(float(found.p[unit]))}


def thumbnail(frame: Tensor) -> str:
    """Return a small copy of a frame as base64 of a PNG file."""
    height, width = frame.shape[1:]
    scale = THUMBNAIL / max(height, width)
    if scale < 1:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        frame = torch.nn.functional.interpolate(frame[None].float(), size=size, mode="area")[0].round().byte()
    return base64.b64encode(png(frame)).decode()


def _named(where: str, make: Any, *given: Any) -> Any:
    """Say in an error which of many it is about."""
    try:
        return make(*given)
    except InputsError as cause:
        raise InputsError(f"{where}: {cause}") from cause
