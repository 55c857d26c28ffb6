"""Sources that Neuronpedia, or `neuronpedia.export_neuronpedia`, wrote as catalogs. Needs no torch."""

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sae.errors import CatalogError
from sae.features.catalog import About, Catalog
from sae.features.exchange.foreign import card_of, copy_images, example_of, packed_rows, unpacked_rows, write_catalog


def import_neuronpedia(folder: Path | str, out: Path | str) -> tuple[Catalog, list[dict[str, Any]]]:
    """Make a catalog of one source that Neuronpedia, or `export_neuronpedia`, wrote.

    Returns:
        The catalog, and the explanations as keyword arguments of `Explanations.add`.

    Raises:
        CatalogError: the folder has no features, or a file is damaged.
    """
    folder = Path(folder)
    examples: dict[int, list[bytes]] = {}
    for path in _batches(folder / "activations"):
        of_file: dict[int, list[dict[str, Any]]] = {}
        for row in _rows(path):
            of_file.setdefault(int(row["index"]), []).append(_example(row))
        for index, some in of_file.items():
            examples.setdefault(index, []).append(packed_rows(some))
    explanations = [_explanation(row) for path in _batches(folder / "explanations") for row in _rows(path)]
    titles: dict[int, str] = {}
    for one in sorted(explanations, key=lambda one: -(one["given"] or 0)):
        titles.setdefault(one["index"], one["text"])
    found: dict[int, bytes] = {}
    feature: dict[str, Any] = {}
    modality = "text"
    for path in _batches(folder / "features"):
        for feature in _rows(path):
            index = int(feature["index"])
            some = unpacked_rows(examples.pop(index, ()))
            modality = "image" if any("image" in one for one in some) else modality
            copy_images((one["image"] for one in some if "image" in one), folder, Path(out))
            found[index] = card_of(index, feature, some, titles.get(index)).packed()
    about = About(
        dictionary={"repr": f"{folder.name} (from Neuronpedia)"},
        subject=str(feature.get("modelId", folder.parent.name)),
        hookpoint=str(feature.get("hookName") or feature.get("layer") or folder.name),
        store="",
        modality=modality,
        n_vectors=0,
        n_examples=0,
        counts={},
        settings={"imported": "Neuronpedia"},
    )
    return write_catalog(Path(out), about, found.items()), explanations


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    said = row.get("dataIndex")
    example = int(said) if isinstance(said, str) and said.isdecimal() else -1
    between = (row.get("binMin"), row.get("binMax"))
    found = example_of(row["tokens"], row["values"], row.get("lossValues"), between, example)
    if row.get("image"):
        # What stands for tokens in other tools is none.
        picture = {"image": row["image"], "grid": row.get("imageGrid"), "about": row.get("imageAbout")}
        kept = {name: found[name] for name in ("example", "value", "values", "bin") if name in found}
        known = {name: value for name, value in picture.items() if value is not None}
        return kept | {"position": row["imagePosition"]} | known
    start = row.get("textStart") or 0
    where = row.get("qualifyingTokenIndex")
    return found | {"start": start, "position": start + (found["position"] if where is None else where)}


def _explanation(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an explanation; rows of Neuronpedia's own name a model and a type, ours an author and a method."""
    return {
        "kind": "latent",
        "index": int(row["index"]),
        "text": row["description"],
        "author": row.get("author") or row.get("explanationModelName") or row.get("authorId") or "Neuronpedia",
        "method": row.get("method") or row.get("typeName") or "Neuronpedia",
        "given": row.get("score"),
    }


def _batches(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl.gz"))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())
    except (OSError, EOFError, ValueError) as cause:
        raise CatalogError(f"{path}: cannot be read as lines of JSON: {cause}.") from cause
