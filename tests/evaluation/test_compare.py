import csv
import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from sae.errors import EvaluationError
from sae.evaluation.compare import Comparison, compare
from sae.evaluation.compare_pictures import pareto_picture, profile_picture
from sae.evaluation.metric import Definition, Measured, Score
from sae.evaluation.pictures import controls_picture, label_scatter, style
from sae.evaluation.report import Report, Results

AUC = Definition(
    name="label_auc", version=9, better="higher", unit="labels", bounds=(0.0, 1.0), chance=0.5, paired=True, text="Toy."
)
N_LABELS = 30


def auc(mean: float, seed: int) -> Measured:
    noise = 0.05 * torch.randn(N_LABELS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Measured(AUC, (mean + noise).clamp(0, 1))


def row_scores(fvu: float, l0: float) -> list[Score]:
    lower = Score(
        name="fvu", version=1, value=fvu, n=9, unit="vectors", better="lower", interval=(fvu * 0.9, fvu * 1.1)
    )
    return [lower, Score(name="l0", version=1, value=l0, n=9, unit="vectors", better="neither")]


def make(seed: int, d_sae: int = 64, fvu: float = 0.2, mean: float = 0.8) -> Report:
    about = {
        "dictionary": {"sha256": f"{seed:x}" * 64, "kind": "topk", "d_in": 8, "d_sae": d_sae},
        "store": {"sha256": "b" * 64, "inputs": "fingerprint"},
        "subject": {"id": "builtin:tiny", "weights": "c" * 64},
        "hookpoint": "blocks.0.mlp.hook_post",
        "seed": 0,
    }
    results = {
        "dictionary": Results(description="", measured=[auc(mean, seed)], row_scores=row_scores(fvu, 4.0 * seed)),
        "neurons": Results(description="", measured=[auc(0.7, 0)], row_scores=row_scores(0.0, 8.0)),
        "shuffled labels": Results(description="", measured=[auc(0.5, 1)]),
    }
    units = {who: result.measured[0].values.tolist() for who, result in results.items()}
    labels = {
        who: [{"label": f"{'ab'[i % 2]}={i}", "auc": value, "unit": 0} for i, value in enumerate(values)]
        for who, values in units.items()
    }
    return Report.of(about, results, {"labels": labels})


def altered(report: Report, section: str, **changes: object) -> Report:
    return dataclasses.replace(report, about=report.about | {section: report.about[section] | changes})


@pytest.fixture
def comparison() -> Comparison:
    return compare([make(1, 64, 0.3, 0.7), make(2, 128, 0.2, 0.8), make(3, 128, 0.25, 0.9)])


def test_dictionaries_stand_side_by_side_with_the_neurons_last(comparison: Comparison, tmp_path: Path) -> None:
    header, rows = comparison.rows()
    assert header == ("metric", "topk 64", "topk 128 222222", "topk 128 333333", "neurons")
    assert [row[0] for row in rows] == ["fvu", "l0", "label_auc"]
    assert rows[0][1] == "0.3 [0.27, 0.33]" and rows[0][4] == "0 [0, 0]" and rows[1][2] == "8"
    comparison.save_table(tmp_path / "comparison.csv")
    with (tmp_path / "comparison.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 12
    assert table[0]["dictionary"] == "topk 64" and float(table[0]["low"]) == pytest.approx(0.27)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (altered(make(2, 128), "store", sha256="d" * 64), "topk 64 and topk 128 differ in store: bbb.* and ddd"),
        (altered(make(2, 128), "store", inputs="other"), "differ in inputs: fingerprint and other"),
        (altered(make(2, 128), "subject", id="gpt2"), "differ in subject: builtin:tiny and gpt2"),
        (altered(make(2, 128), "subject", weights="e" * 64), "differ in weights of the subject"),
        (dataclasses.replace(make(2, 128), about=make(2, 128).about | {"hookpoint": "x"}), "differ in hookpoint"),
        (dataclasses.replace(make(2, 128), about=make(2, 128).about | {"seed": 5}), "differ in seed of the halves"),
        (
            dataclasses.replace(make(2, 128), scores=[dataclasses.replace(row_scores(0.1, 2)[0], version=2)]),
            "differ in version of fvu: 1 and 2",
        ),
        (make(1), "topk 64 111111 is given 2 times"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(other: Report, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        compare([make(1), other])


def test_one_report_is_not_a_comparison() -> None:
    with pytest.raises(EvaluationError, match="1 report; at least 2"):
        compare([make(1)])


def written(png: Path) -> list[dict[str, str]]:
    assert png.with_suffix(".pdf").stat().st_size > 0
    with Image.open(png) as image:
        assert image.width >= 800
    with png.with_suffix(".csv").open() as file:
        return list(csv.DictReader(file))


def test_the_pareto_picture_shows_every_pair_that_is_there(comparison: Comparison, tmp_path: Path) -> None:
    rows = written(pareto_picture(comparison, tmp_path / "pareto"))
    assert [(row["x_metric"], row["y_metric"]) for row in rows] == [("l0", "fvu")] * 3 + [("fvu", "label_auc")] * 3
    assert [float(row["x"]) for row in rows[:3]] == [4, 8, 12]
    nothing = Comparison({name: dataclasses.replace(one, scores=[]) for name, one in comparison.reports.items()})
    with pytest.raises(EvaluationError, match="pareto_picture"):
        pareto_picture(nothing, tmp_path / "none")
    with pytest.raises(EvaluationError, match="profile_picture"):
        profile_picture(nothing, tmp_path / "none")


def test_the_profile_runs_from_worse_to_better(comparison: Comparison, tmp_path: Path) -> None:
    rows = written(profile_picture(comparison, tmp_path / "profile"))
    assert {row["metric"] for row in rows} == {"fvu", "label_auc"}
    assert {row["who"] for row in rows} == {*comparison.reports, "neurons"}
    assert float(rows[0]["worst"]) == pytest.approx(0.33) and float(rows[0]["best"]) == 0


def test_pictures_of_one_report(tmp_path: Path) -> None:
    report = make(1)
    rows = written(label_scatter(report, tmp_path / "labels"))
    assert len(rows) == N_LABELS and rows[0]["label"] == "a=0"
    rows = written(controls_picture(report, ["label_auc", "fvu"], tmp_path / "controls"))
    assert [(row["metric"], row["who"]) for row in rows] == [
        ("label_auc", "dictionary"),
        ("label_auc", "neurons"),
        ("label_auc", "shuffled labels"),
        ("fvu", "dictionary"),
        ("fvu", "neurons"),
    ]
    assert rows[2]["dictionary_is"] == "higher"
    with pytest.raises(EvaluationError, match="no label scores"):
        label_scatter(dataclasses.replace(report, details={}), tmp_path / "none")


def test_looks_of_many_things_differ() -> None:
    looks = [tuple(style(number).items()) for number in range(49)]
    assert len(set(looks)) == 49
