"""SAEDashboard's batch files (`batch-N.json`) as a catalog. Needs no torch."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sae.errors import CatalogError
from sae.features.catalog import About, Catalog
from sae.features.exchange.foreign import card_of, example_of, write_catalog


def import_saedashboard(folder: Path | str, out: Path | str) -> Catalog:
    """Make a catalog of the `batch-*.json` files in a folder.

    A density of 0 beside examples on which the latent fires is an artefact of rounding, so the rate is left out there.
    What is no token's, such as attribution to earlier positions (`dfa_values`), is left out too. Examples have no
    numbers in these files; theirs is -1.

    Raises:
        CatalogError: there is no such file, or one is damaged or of another format.
    """
    folder, about = Path(folder), None
    found: dict[int, bytes] = {}
    for batch in _batches(folder):
        about = about or _about(batch)
        for feature in batch["features"]:
            index = int(feature["feature_index"])
            found[index] = card_of(index, feature, [_example(one) for one in feature["activations"]]).packed()
    if about is None:
        raise CatalogError(f"{folder}: no batch-*.json; SAEDashboard writes them to its output folder.")
    return write_catalog(Path(out), about, found.items())


def _batches(folder: Path) -> Iterator[Mapping[str, Any]]:
    def number(path: Path) -> int:
        digits = re.search(r"\d+", path.stem)
        return int(digits[0]) if digits else -1

    for path in sorted(folder.glob("batch-*.json"), key=number):
        try:
            batch = json.loads(path.read_text())
            missing = {"features"} - batch.keys()
        except (OSError, ValueError, AttributeError) as cause:
            raise CatalogError(f"{path}: cannot be read as SAEDashboard's JSON: {cause}.") from cause
        if missing:
            raise CatalogError(f"{path}: has no 'features', only {', '.join(sorted(batch))[:200]}.")
        yield batch


def _about(batch: Mapping[str, Any]) -> About:
    source = f"{batch.get('layer', '')}-{batch.get('sae_set', '')}"
    first = batch["features"][0] if batch["features"] else {}
    prompts, length = (int(first.get(name) or 0) for name in ("n_prompts_total", "n_tokens_in_prompt"))
    return About(
        dictionary={"repr": f"{source} (from SAEDashboard)"},
        subject=str(batch.get("model_id", "")),
        hookpoint=source,
        store="",
        modality="text",
        n_vectors=prompts * length,
        n_examples=prompts,
        counts={},
        settings={"imported": "SAEDashboard"},
    )


def _example(activation: Mapping[str, Any]) -> dict[str, Any]:
    between = (activation.get("bin_min"), activation.get("bin_max"))
    return example_of(activation["tokens"], activation["values"], activation.get("loss_values"), between)
