"""Findings of the laboratory in a catalog's folder: what is shown of each, and of a card."""

import json
from pathlib import Path
from typing import Any

import pytest

from sae.errors import CatalogError
from sae.features.findings import FEW_ROWS, Findings, units_in

SHA = "ab" * 32


def write(catalog: Path, name: str, **changes: Any) -> Path:
    """Write a finding as the laboratory does."""
    folder = catalog / "lab" / name
    folder.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {"method": "search", "verdict": "found", "figures": {"AUC": 0.9}, "rows": []}
    data |= {"about": {"dictionary": {"sha256": SHA}}, "pictures": {"plot": "a caption"}} | changes
    (folder / f"{data['method']}.json").write_text(json.dumps(data))
    (folder / "plot.png").write_bytes(b"png")
    return folder


@pytest.mark.parametrize(
    ("row", "units"),
    [
        ({"latent": 3, "bits": 4}, {("latent", 3)}),
        ({"unit": "neuron:7", "label": "latent"}, {("neuron", 7)}),
        ({"latents": "3 4", "neurons": [5]}, {("latent", 3), ("latent", 4), ("neuron", 5)}),
        ({"steered": "latent 12"}, {("latent", 12)}),
        ({"latent": None, "latents": "", "neuron": True, "unit": "direction:concept=dog", "n": 3}, set()),
        ({"latents": "found 3", "text": "see latent:3"}, {("latent", 3)}),
    ],
)
def test_rows_name_units(row: dict[str, Any], units: set[tuple[str, int]]) -> None:
    assert units_in(row) == units


def test_a_list_holds_verdicts_and_no_rows(tmp_path: Path) -> None:
    assert Findings(tmp_path, SHA).listed() == []
    write(tmp_path, "search", rows=[{"latent": 1}] * 3)
    folder = write(tmp_path, "label-latent-1", method="label")
    (folder / "labelling.json").write_text("{}")
    (folder / "key.json").write_text("{}")
    label, search = Findings(tmp_path, SHA).listed()
    assert label["labelling"] and not search["labelling"]
    assert search == {"name": "search", "method": "search", "verdict": "found", "n_rows": 3, "n_images": 1,
                      "labelling": False, "picture": "plot"}  # fmt: skip


def test_a_card_gets_its_rows_its_images_and_what_is_all_about_it(tmp_path: Path) -> None:
    folder = write(tmp_path, "search", rows=[{"latent": 1, "n": n} for n in range(FEW_ROWS + 2)] + [{"latent": 2}])
    (folder / "latent-1-photo.png").write_bytes(b"png")
    (folder / "latent-12.png").write_bytes(b"png")
    write(tmp_path, "steer", method="steer", settings={"latent": 1, "unit": "maximum"}, rows=[{"dose": 1}])
    write(tmp_path, "levels", method="levels", settings={"unit": "neuron:1"})
    findings = Findings(tmp_path, SHA)
    search, steer = findings.of("latent", 1)
    assert [row["n"] for row in search["rows"]] == list(range(FEW_ROWS)) and search["n_rows"] == FEW_ROWS + 2
    assert search["images"] == ["latent-1-photo"] and not search["whole"] and search["picture"] is None
    assert steer["whole"] and steer["picture"] == "plot" and steer["rows"] == []
    assert [one["name"] for one in findings.of("neuron", 1)] == ["levels"] and findings.of("latent", 3) == []
    assert findings.of("latent", 12)[0]["images"] == ["latent-12"]
    expected = {index: findings.of("latent", index) for index in (1, 2, 12)}
    assert findings.by_card("latent") == expected


def test_images_without_a_caption_are_no_pictures(tmp_path: Path) -> None:
    folder = write(tmp_path, "search")
    for name in ("latent-10", "latent-9", "latent-1", "no picture"):
        (folder / f"{name}.png").write_bytes(b"png")
    found = Findings(tmp_path, SHA)["search"].to_json()
    assert found["pictures"] == {"plot": "a caption"} and found["images"] == ["latent-1", "latent-9", "latent-10"]


def test_a_finding_that_changes_is_read_again(tmp_path: Path) -> None:
    findings = Findings(tmp_path, SHA)
    write(tmp_path, "search")
    assert findings["search"].data["verdict"] == "found"
    write(tmp_path, "search", verdict="found again")
    assert findings["search"].data["verdict"] == "found again"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"about": {"dictionary": {"sha256": "cd" * 32}}}, "of another dictionary, sha256 cdcdcdcdcd"),
        ({"about": {}}, "of another dictionary"),
        ({"rows": None}, "none of a finding"),
    ],
)
def test_what_cannot_be_shown_is_listed_with_the_reason(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write(tmp_path, "good")
    write(tmp_path, "odd", **changes)
    findings = Findings(tmp_path, SHA)
    good, odd = findings.listed()
    assert good["verdict"] == "found" and message in odd["problem"]
    assert [one.name for one in findings.all()] == ["good"]
    with pytest.raises(CatalogError, match=message):
        findings["odd"]


def test_damage_and_several_findings_in_a_folder_are_told(tmp_path: Path) -> None:
    write(tmp_path, "two")
    write(tmp_path, "two", method="steer")
    (write(tmp_path, "torn") / "search.json").write_text("{")
    (tmp_path / "lab" / "empty").mkdir()
    (tmp_path / "lab" / "a file").write_text("")
    problems = {one["name"]: one["problem"] for one in Findings(tmp_path, SHA).listed()}
    assert set(problems) == {"empty", "torn", "two"}
    assert "holds 2 findings" in problems["two"] and "holds 0" in problems["empty"] and "read" in problems["torn"]
    with pytest.raises(CatalogError, match=r"no finding 'tow'.*Did you mean 'two'"):
        Findings(tmp_path, SHA)["tow"]


def test_images_are_png_of_the_folder_alone(tmp_path: Path) -> None:
    folder = write(tmp_path, "search")
    findings = Findings(tmp_path, SHA)
    assert findings.image("search", "plot.png") == folder / "plot.png"
    for name, file in (
        ("search", "search.json"),
        ("..", "plot.png"),
        ("search", "../search/plot.png"),
        ("search", "x.png"),
    ):
        assert findings.image(name, file) is None
