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


def plot() -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(2, 1), layout="constrained")


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
    plots = {"lab-plot": Picture(plot, [{"x": 1}], "what to read")}
    found = Finding("steer", ABOUT, {"AUC": 0.5}, [{"latent": 3}], "nothing", plots, {"latent-3-photo": b"png"})
    config = steer.Config(**settings(latent=3, catalog=tmp_path))
    found.save(config.folders("steer")[0], config.settings())
    read = Findings(tmp_path, "0" * 64)["steer-latent-3"]
    assert read.unit == ("latent", 3) and read.data["settings"]["kind"] == "add"
    told = json.loads(json.dumps(read.to_json()))
    assert told["pictures"] == {"lab-plot": "what to read"} and told["images"] == ["latent-3-photo"]
    assert told["rows"] == [{"latent": 3}] and told["figures"] == {"AUC": 0.5}


def test_what_is_no_number_is_left_out_of_figures_and_an_empty_cell_of_rows(tmp_path: Path) -> None:
    rows = [{"unit": 1, "AUC": 0.5}, {"unit": 2, "AUC": float("nan")}, {"unit": 3, "AUC": float("inf")}]
    figures = {"known": 0.5, "unknown": float("nan"), "endless": float("inf")}
    Finding("steer", ABOUT, figures, rows, "nothing", {"lab-plot": Picture(plot, rows, "x")}).save(tmp_path)
    told = json.loads((tmp_path / "steer.json").read_text())
    assert told["figures"] == {"known": 0.5} and [row["AUC"] for row in told["rows"]] == [0.5, None, None]
    assert (tmp_path / "lab-plot.csv").read_text().split() == ["unit,AUC", "1,0.5", "2,", "3,"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "lab-plot.csv", "lab-plot.pdf", "lab-plot.png", "steer.json",
    ]  # fmt: skip


@pytest.mark.parametrize("broken", ["row", "picture"])
def test_nothing_is_written_unless_all_of_it_can_be(broken: str, tmp_path: Path) -> None:
    def fail() -> Any:
        raise ValueError("no picture")

    pictures = {"a": Picture(plot, [{"x": 1}], ""), "b": Picture(fail if broken == "picture" else plot, [{"x": 1}], "")}
    rows = [{"x": object() if broken == "row" else 1}]
    with pytest.raises((TypeError, ValueError)):
        Finding("steer", ABOUT, {}, rows, "nothing", pictures, {"photo": b"png"}).save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
