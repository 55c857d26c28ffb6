"""Where findings are kept: in a folder, and in a catalog of the same dictionary."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import dictionary

from sae.errors import CatalogError, ConfigError
from sae.features.catalog import About
from sae.features.findings import NAME, Findings
from sae.lab.change import steer
from sae.lab.finding import Finding, Picture
from sae.lab.levels import levels
from sae.lab.workbench import WorkbenchConfig

ABOUT = {name: {"sha256": "0" * 64} for name in ("dictionary", "store")}


def settings(**given: Any) -> dict[str, Any]:
    return {"dictionary": "toy", "store": Path("toy")} | given


def catalog(folder: Path, sha256: str) -> Path:
    of: dict[str, Any] = {"dictionary": {"sha256": sha256, "repr": "another"}, "subject": "s", "hookpoint": "h"}
    of |= {"store": "x", "modality": "text", "n_vectors": 1, "n_examples": 1, "counts": {}}
    About(**of).save(folder)
    return folder


def test_a_finding_is_kept_under_its_method_and_unit(tmp_path: Path) -> None:
    here = tmp_path / "lab"
    assert WorkbenchConfig(**settings()).folders("search") == []
    assert WorkbenchConfig(**settings(out=Path("a"), catalog=tmp_path)).folders("search") == [
        Path("a"),
        here / "search",
    ]
    assert steer.Config(**settings(latent=3, catalog=tmp_path)).folders("steer") == [here / "steer-latent-3"]
    (one,) = levels.Config(**settings(unit="direction:concept=red car/é", catalog=tmp_path)).folders("levels")
    assert one == here / "levels-direction-concept=red-car-" and NAME.fullmatch(one.name)


def test_a_place_that_is_no_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=f"out: {out} is no folder"):
            WorkbenchConfig(**settings(out=out))
    assert WorkbenchConfig(**settings(out=tmp_path / "new" / "below")).out == tmp_path / "new" / "below"


def test_a_catalog_of_another_dictionary_is_refused(tmp_path: Path) -> None:
    own = dictionary()
    config = WorkbenchConfig(**settings(catalog=tmp_path))
    with pytest.raises(CatalogError, match="is this the folder of a catalog"):
        config.check_catalog(own)
    catalog(tmp_path, own.hash)
    config.check_catalog(own)
    with torch.no_grad():
        own.W_dec[0, 0] += 1
    with pytest.raises(ConfigError, match="is of another, not of <topk dictionary"):
        config.check_catalog(dictionary() if catalog(tmp_path, "f" * 64) else own)


def test_a_saved_finding_is_read_back_with_captions_settings_and_images(tmp_path: Path) -> None:
    def draw() -> Any:
        from matplotlib.figure import Figure

        return Figure(figsize=(2, 1), layout="constrained")

    plot = {"lab-plot": Picture(draw, [{"x": 1}], "what to read")}
    found = Finding("steer", ABOUT, {"AUC": 0.5}, [{"latent": 3}], "nothing", plot, {"latent-3-photo": b"png"})
    config = steer.Config(**settings(latent=3, catalog=tmp_path))
    found.save(config.folders("steer")[0], config.settings())
    read = Findings(tmp_path, "0" * 64)["steer-latent-3"]
    assert read.unit == ("latent", 3) and read.data["settings"]["kind"] == "add"
    told = json.loads(json.dumps(read.to_json()))
    assert told["pictures"] == {"lab-plot": "what to read"} and told["images"] == ["latent-3-photo"]
    assert told["rows"] == [{"latent": 3}] and told["figures"] == {"AUC": 0.5}
