"""Catalogs to the files that Neuronpedia imports (`neuronpedia_import` reads them). Needs no torch.

    MODEL/SOURCE/{release,model,sourceset,source}.jsonl     one row each; only columns that Neuronpedia knows
    MODEL/SOURCE/features/batch-N.jsonl.gz                  1,024 latents
    MODEL/SOURCE/activations/batch-N.jsonl.gz               their examples
    MODEL/SOURCE/explanations/batch-N.jsonl.gz              what was said of them

Of features, activations and explanations its importer takes the columns that it knows and passes over all others, so
these rows hold ours beside them: the picture of an image example, the author and method of an explanation. It looks for
columns in the first row of a file, so every row has the same ones. Patches of an image stand where it shows tokens, by
their row and column.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sae.durable import write_durably
from sae.errors import CatalogError
from sae.features.cards import Card
from sae.features.catalog import About, Catalog
from sae.features.exchange.foreign import bars, copy_images

BATCH = 1024
CREATOR = "clkht01d40000jv08hvalcvly"
"""The user whom Neuronpedia's own tools name for imported rows."""
_LISTS = (
    *("topkCosSimIndices", "topkCosSimValues", "neuron_alignment_indices", "neuron_alignment_values"),
    *("neuron_alignment_l1", "correlated_neurons_indices", "correlated_neurons_pearson", "correlated_neurons_l1"),
    *("correlated_features_indices", "correlated_features_pearson", "correlated_features_l1"),
    *("neg_str", "neg_values", "pos_str", "pos_values", "freq_hist_data_bar_heights", "freq_hist_data_bar_values"),
    *("logits_hist_data_bar_heights", "logits_hist_data_bar_values", "decoder_weights_dist"),
)


@dataclass(frozen=True, kw_only=True)
class Upload:
    """How a catalog is to be called there.

    Attributes:
        source_set: short name of the kind of dictionary; with the layer before it, that of the source.
        creator_name: who made it.
        description: a sentence.
        model: the subject; by default made of the catalog's.
        release: what several sources are published as; the source set by default.
        creator_id: the user that rows belong to.
        created: time of the rows; now if not given.
    """

    source_set: str
    creator_name: str
    description: str = ""
    model: str = ""
    release: str = ""
    creator_id: str = CREATOR
    created: str = ""


def export_neuronpedia(
    catalog: Catalog,
    out: Path | str,
    upload: Upload,
    explanations: Iterable[Mapping[str, Any]] = (),
    W_dec: Float[np.ndarray, "d_sae d_out"] | None = None,
) -> Path:
    """Write a catalog's latents in Neuronpedia's layout below `out`; returns the folder of the source.

    Densities are counts over counts, so one of a latent that fires is never 0. Examples are the strongest and those of
    every level; those on which a latent does not fire have no place there. Pictures lie in `images/` beside the rows.

    Args:
        catalog: whose latents.
        out: where MODEL/SOURCE is made.
        upload: names.
        explanations: of the catalog, each with kind, index, text, author, method, and score or what was given for it.
        W_dec: the decoder; latents can only be steered with there if their directions are given.

    Raises:
        CatalogError: the folder cannot be written.
    """
    row = _Rows(catalog.about, upload)
    folder = Path(out) / row.model / row.source
    for name, content in row.heads().items():
        _write(folder / f"{name}.jsonl", _lines([content]))
    said: dict[int, list[Mapping[str, Any]]] = {}
    for one in explanations:
        if one["kind"] == "latent":
            said.setdefault(one["index"], []).append(one)
    for number, first in enumerate(range(0, len(catalog), BATCH)):
        cards = [catalog[index] for index in range(first, min(first + BATCH, len(catalog)))]
        rows = {
            "features": [row.feature(card, None if W_dec is None else W_dec[card.index]) for card in cards],
            "activations": [one for card in cards for one in row.activations(card)],
            "explanations": [row.explanation(one) for card in cards for one in said.get(card.index, ())],
        }
        copy_images((one["image"] for one in rows["activations"] if one["image"]), catalog.path, folder)
        for kind, some in rows.items():
            if some:
                _write(folder / kind / f"batch-{number}.jsonl.gz", gzip.compress(_lines(some), 5, mtime=0))
    return folder


class _Rows:
    """Makes the rows of one source."""

    def __init__(self, about: About, upload: Upload) -> None:
        layer = re.search(r"blocks\.(\d+)", about.hookpoint)
        self.about, self.upload = about, upload
        self.model = upload.model or re.sub(r"[^\w.-]+", "-", about.subject).strip("-")
        self.source = f"{layer[1] if layer else 0}-{upload.source_set}"
        self.release = upload.release or upload.source_set
        self.created = upload.created or datetime.now(UTC).isoformat(timespec="seconds")
        self._mine = {"creatorId": upload.creator_id, "createdAt": self.created}

    def heads(self) -> dict[str, dict[str, Any]]:
        """Return the four single rows."""
        upload, mine = self.upload, self._mine
        public = {"visibility": "PUBLIC"} | mine
        described = upload.description or f"{self.about.hookpoint} of {self.about.subject}"
        return {
            "release": {
                "name": self.release,
                "description": described,
                "creatorName": upload.creator_name,
                "urls": [],
                **public,
            },
            "model": {
                "id": self.model,
                "displayName": self.about.subject,
                "displayNameShort": self.model,
                "instruct": False,
                "layers": 0,
                "neuronsPerLayer": 0,
                "owner": "",
                "updatedAt": self.created,
                **public,
            },
            "sourceset": {
                "modelId": self.model,
                "name": upload.source_set,
                "description": described,
                "type": "",
                "creatorName": upload.creator_name,
                "urls": [],
                "releaseName": self.release,
                **public,
            },
            "source": {
                "id": self.source,
                "modelId": self.model,
                "setName": upload.source_set,
                "hasDashboards": True,
                "num_prompts": self.about.n_examples,
                **public,
            },
        }

    def feature(self, card: Card, vector: Float[np.ndarray, " d_out"] | None) -> dict[str, Any]:
        """Return a latent's row."""
        section = card.sections.get
        statistics, writes, neurons = section("statistics", {}), section("writes", {}), section("neurons", {})
        neighbours = section("neighbours", {})
        largest = statistics.get("max") or 0.0
        row = self._head(card) | self._mine | dict.fromkeys(_LISTS, ()) | {"maxActApprox": largest}
        row["frac_nonzero"] = _density(statistics)
        row["hasVector"], row["hookName"] = vector is not None, self.about.hookpoint
        row["vector"] = [] if vector is None else [round(float(weight), 6) for weight in vector]
        row["vectorLabel"], row["vectorDefaultSteerStrength"] = None, largest
        row["pos_str"], row["pos_values"] = _columns(writes.get("up", ()))
        row["neg_str"], row["neg_values"] = _columns(writes.get("down", ()))
        for name, histogram in (("freq", statistics.get("linear")), ("logits", writes.get("histogram"))):
            if histogram:
                heights, middles = bars(histogram)
                row |= {f"{name}_hist_data_bar_heights": heights, f"{name}_hist_data_bar_values": middles}
        row["topkCosSimIndices"], row["topkCosSimValues"] = _columns(neighbours.get("decoder", ()))
        # A third column beside these two, a cosine, is not known and stays empty.
        correlated = {"neurons": neurons.get("correlated", ()), "features": neighbours.get("coactivation", ())}
        for name, some in correlated.items():
            row[f"correlated_{name}_indices"], row[f"correlated_{name}_pearson"] = _columns(some)
        row["neuron_alignment_indices"], row["neuron_alignment_values"] = _columns(neurons.get("writes", ()))
        if vector is not None:
            shares = np.abs(vector) / max(float(np.abs(vector).sum()), np.finfo(np.float32).tiny)
            row["neuron_alignment_l1"] = [round(float(shares[i]), 6) for i in row["neuron_alignment_indices"]]
        return row

    def activations(self, card: Card) -> Iterator[dict[str, Any]]:
        """Yield the rows of a latent's examples, the strongest first."""
        examples = card.sections.get("examples", {})
        levels = [(level, ref) for level in examples.get("levels", ()) for ref in level["examples"]]
        rows = [*((None, ref) for ref in examples.get("top", ())), *levels]
        for number, (level, ref) in enumerate(rows):
            if ref["value"] is not None and ref["value"] > 0:
                yield self._activation(card, number, level, ref)

    def explanation(self, one: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row of an explanation; its type and model must be known there, so they are left to our columns."""
        return {
            "id": self._id("explanation", one["index"], one["text"], one.get("author")),
            "modelId": self.model,
            "layer": self.source,
            "index": str(one["index"]),
            "description": one["text"],
            "authorId": self.upload.creator_id,
            "createdAt": one.get("time") or self.created,
            "embedding": None,
            "typeName": None,
            "explanationModelName": None,
            "notes": None,
            "author": one.get("author"),
            "method": one.get("method"),
            "score": one.get("given") if one.get("score") is None else one["score"],
        }

    def _activation(
        self, card: Card, number: int, level: Mapping[str, Any] | None, ref: Mapping[str, Any]
    ) -> dict[str, Any]:
        values = [value or 0.0 for value in ref.get("values") or [ref["value"]]]
        largest = max(range(len(values)), key=values.__getitem__)
        where = ref["position"] - ref.get("start", 0) if "tokens" in ref else largest
        bounds = (level["low"], level["high"]) if level else (None, None)
        return {
            "id": self._id("activation", card.index, number),
            **self._head(card),
            **self._mine,
            "tokens": ref.get("tokens") or _places(ref),
            "values": values,
            "maxValue": values[largest],
            "maxValueTokenIndex": largest,
            "minValue": min(values),
            "qualifyingTokenIndex": where,
            "dataIndex": str(ref["example"]),
            "dataSource": None,
            "lossValues": ref.get("losses") or [],
            "binMin": bounds[0],
            "binMax": bounds[1],
            "binContains": None,
            "image": ref.get("image"),
            "imageGrid": ref.get("grid"),
            "imageAbout": ref.get("about"),
            "imagePosition": ref["position"] if "image" in ref else None,
            "textStart": ref.get("start"),
        }

    def _head(self, card: Card) -> dict[str, Any]:
        return {"modelId": self.model, "layer": self.source, "index": str(card.index)}

    def _id(self, *parts: Any) -> str:
        said = "/".join(map(str, (self.model, self.source, *parts)))
        return "c" + hashlib.sha256(said.encode()).hexdigest()[:24]


def _density(statistics: Mapping[str, Any]) -> float:
    """Return how often a latent fires: the exact quotient where the counts are known."""
    n_fired, n_vectors = statistics.get("n_fired"), statistics.get("n_vectors")
    return n_fired / n_vectors if n_fired and n_vectors else statistics.get("rate") or 0.0


def _columns(some: Iterable[Sequence[Any]]) -> tuple[list[Any], list[float]]:
    """Cut pairs into names and numbers."""
    return [pair[0] for pair in some], [pair[1] for pair in some]


def _places(ref: Mapping[str, Any]) -> list[str]:
    """Return words for the patches of an image, or for all of it, where other tools show tokens."""
    if "grid" not in ref:
        return [ref.get("about", {}).get("caption") or f"image {ref['example']}"]
    n_rows, n_columns = ref["grid"]
    return [f"[{row + 1},{column + 1}]" for row in range(n_rows) for column in range(n_columns)]


def _lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, [content], CatalogError)
