import dataclasses
import json
import math
from pathlib import Path

import jsonschema
import pytest
import torch

import sae.evaluation
from sae.errors import EvaluationError
from sae.evaluation.latent_scores import LatentScores, load_latent_scores
from sae.evaluation.metric import Definition, Measured, Score
from sae.evaluation.report import Report, Results

SCHEMA = json.loads((Path(sae.evaluation.__path__[0]) / "report_schema.json").read_text())
ABOUT = {
    "dictionary": {"source": "here", "sha256": "a" * 64, "kind": "topk", "d_in": 4, "d_sae": 8},
    "store": {"sha256": "b" * 64, "inputs": "fingerprint"},
    "subject": {"id": "tiny", "weights": None},
    "hookpoint": "blocks.0.mlp.hook_post",
    "seed": 0,
}


def definition(name: str, **changes: object) -> Definition:
    settings = {"version": 1, "better": "higher", "unit": "labels", "bounds": (0.0, 1.0), "chance": 0.5, "paired": True}
    return Definition(name=name, text="A test.", **{**settings, **changes})  # type: ignore[arg-type]


PAIRED = definition("toy_auc")
UNPAIRED = definition("toy_rate", unit="latents", paired=False, better="lower", chance=None)


def spread(n: int, mean: float, seed: int, scale: float = 0.1) -> torch.Tensor:
    return mean + scale * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def row_score(value: float) -> Score:
    return Score(name="toy_fvu", version=1, value=value, n=9, unit="vectors", better="lower", interval=(0.1, 0.3))


@pytest.fixture
def report() -> Report:
    own = spread(40, 0.7, 0)
    results = {
        "dictionary": Results(
            description="what is evaluated",
            measured=[Measured(PAIRED, own), Measured(UNPAIRED, spread(80, 0.5, 1))],
            row_scores=[row_score(0.2)],
        ),
        "neurons": Results(
            description="raw coordinates",
            measured=[Measured(PAIRED, own - spread(40, 0.05, 2, 0.01)), Measured(UNPAIRED, spread(60, 0.3, 3))],
            row_scores=[row_score(math.inf)],
        ),
        "random": Results(description="directions", measured=[Measured(PAIRED, own + spread(40, 0, 4, 0.01))]),
    }
    return Report.of(ABOUT, results, {"labels": [1]}, seed=7)


def test_differences_and_verdicts(report: Report) -> None:
    found = {(one.metric, one.control): one for one in report.differences}
    assert {key: one.verdict for key, one in found.items()} == {
        ("toy_auc", "neurons"): "higher",
        ("toy_rate", "neurons"): "higher",
        ("toy_auc", "random"): "not distinguishable",
    }
    paired = found["toy_auc", "neurons"]
    assert paired.value == pytest.approx(0.05, abs=0.005)
    # Item by item the spread over labels, ten times that of the differences, drops out.
    assert paired.interval is not None and paired.interval[1] - paired.interval[0] < 0.01
    assert paired.value == pytest.approx(report["toy_auc"].value - report.controls["neurons"].scores[1].value)


def test_too_few_items_are_not_distinguishable() -> None:
    few = {
        "dictionary": Results(description="", measured=[Measured(PAIRED, torch.ones(5).double())]),
        "constant": Results(description="", measured=[Measured(PAIRED, torch.zeros(5).double())]),
    }
    (difference,) = Report.of(ABOUT, few, {}).differences
    assert difference.value == 1 and difference.interval is None and difference.verdict == "not distinguishable"


def test_many_latents_are_compared_with_few_neurons() -> None:
    results = {
        "dictionary": Results(description="", measured=[Measured(UNPAIRED, spread(5000, 0.5, 0))]),
        "neurons": Results(description="", measured=[Measured(UNPAIRED, spread(50, 0.3, 1))]),
    }
    (difference,) = Report.of(ABOUT, results, {}).differences
    assert difference.verdict == "higher" and difference.value == pytest.approx(0.2, abs=0.05)


def test_what_is_undefined_for_all_items_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    nothing = Measured(PAIRED, torch.full((20,), torch.nan).double())
    results = {"dictionary": Results(description="", measured=[nothing, Measured(UNPAIRED, spread(20, 0, 0))])}
    with caplog.at_level("WARNING"):
        report = Report.of(ABOUT, results, {})
    assert [score.name for score in report.scores] == ["toy_rate"]
    assert "toy_auc of dictionary: undefined for all 20 items" in caplog.text


def test_rows_name_the_strongest_control(report: Report) -> None:
    fvu, auc, rate = report.rows()
    assert fvu[0] == "toy_fvu" and fvu[3:] == ("neurons inf", "")
    assert auc[3].startswith("random 0.") and auc[4] == "not distinguishable from random"
    assert rate[3].startswith("neurons 0.") and rate[4] == "higher than neurons"
    header, rows = report.control_rows()
    assert header == ("metric", "dictionary", "neurons", "random")
    assert rows[2][0] == "toy_rate" and rows[2][3] == ""
    assert report.strongest(dataclasses.replace(report["toy_auc"], better="neither")) is None


def test_the_file_is_valid_and_reads_back(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report.save(path)
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    data = json.loads(path.read_text(), parse_constant=pytest.fail)
    jsonschema.validate(data, SCHEMA)
    again = Report.find(str(tmp_path))
    assert again.scores == report.scores and again.differences == report.differences
    assert again.about["bootstrap"] == {"level": 0.95, "most_draws": 1000, "seed": 7}
    assert again.details == {"labels": [1]}
    # A value that is not finite is null in the file, as JSON has no word for it.
    assert math.isnan(again.controls["neurons"].scores[0].value)
    again.save(path)
    assert json.loads(path.read_text()) == data


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.pop("format_version"),
        lambda data: data.update(format_version=1),
        lambda data: data["about"]["dictionary"].update(sha256="short"),
        lambda data: data["scores"][0].pop("version"),
        lambda data: data["scores"][0].update(value="0.5"),
        lambda data: data["scores"][0].update(interval=[0.1]),
        lambda data: data["differences"][0].update(verdict="better"),
        lambda data: data["controls"]["neurons"].update(note="x"),
    ],
)
def test_the_schema_rejects_what_is_no_report(report: Report, tmp_path: Path, spoil) -> None:
    report.save(tmp_path / "report.json")
    data = json.loads((tmp_path / "report.json").read_text())
    spoil(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)


def test_what_cannot_be_read_is_named(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(EvaluationError, match="no such report"):
        Report.load(path)
    path.write_text('{"format_version": 1}')
    with pytest.raises(EvaluationError, match="format version 1, this reads 2"):
        Report.load(path)
    path.write_text("{")
    with pytest.raises(EvaluationError, match="not a report"):
        Report.load(path)
    with pytest.raises(EvaluationError, match=r"no score 'toy_ac'\. Did you mean 'toy_auc'"):
        report["toy_ac"]


def test_scores_of_latents_lie_beside_the_report(tmp_path: Path) -> None:
    values = spread(8, 0.5, 0)
    values[3] = torch.nan
    measured = [Measured(UNPAIRED, values), Measured(PAIRED, spread(40, 0.5, 1))]
    about = {"dictionary": "a" * 64, "hookpoint": "here"}
    best = torch.arange(8)
    LatentScores.of(measured, about, {"best_label": best}).save(tmp_path / "latents.safetensors")
    again = load_latent_scores(tmp_path / "latents.safetensors")
    assert set(again.values) == {"toy_rate"} and again.versions == {"toy_rate": 1} and again.about == about
    torch.testing.assert_close(again.values["toy_rate"], values.float(), equal_nan=True)
    assert torch.equal(again.numbers["best_label"], best)
    with pytest.raises(EvaluationError, match="differ in their number of latents"):
        LatentScores.of(measured, about, {"best_label": best[:5]})
    (tmp_path / "broken.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(EvaluationError, match="not a readable safetensors file"):
        load_latent_scores(tmp_path / "broken.safetensors")
