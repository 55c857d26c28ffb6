"""Steering while somebody watches, on planted classes and on tiny subjects: what is answered, and what is refused."""

import base64
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from live_catalogs import image_catalog, picture_bytes, steering, text_catalog
from planted import N_CLASSES, bench, latent_of

from sae import cli
from sae.errors import ConfigError, DictionaryError, InputsError
from sae.features.findings import Findings
from sae.features.judging.labelling import Labelling
from sae.features.live.loaded import Loaded
from sae.lab.change.doses import Bed
from sae.lab.change.live import DOSES, N_DOSES, SteerAsk
from sae.lab.change.positions import At
from sae.tensors import Batch


def planted() -> SteerAsk:
    """Return a panel for images of four classes, each with a latent that is 4 on it and 1 on the next one's images."""
    made = bench()
    loaded: Any = SimpleNamespace(
        dictionary=made.dictionary, subject=made.subject, inputs=made.inputs, reads_images=True,
        strongest=[4.0] * N_CLASSES, share=lambda latent, value: value / 4,
    )  # fmt: skip
    return SteerAsk(loaded, made)


def of_class(ask: SteerAsk, concept: int) -> Batch:
    images = torch.full((1, 3, 1, 1), concept, dtype=torch.uint8)
    return Batch(first_example=0, images=images)


def bed(ask: SteerAsk, concept: int, kind: Any) -> Bed:
    return Bed(ask.loaded.subject, ask._answers, of_class(ask, concept), "visual.place", "visual.place", kind)


def test_adding_a_latent_raises_its_class_by_the_planted_amount() -> None:
    ask = planted()
    found = ask.answer(bed(ask, 0, "add"), ask.steering(latent_of(2), "add"), 2.0)
    assert found["answers"][0]["name"] == "class 2" and found["held"] == {"value": 0.0, "share": 0.0, "n": 0, "of": 3}
    # Each of the three positions gets 2 * 4 of the class's direction, beside 4 of its own class and 1 of the next.
    embedding = torch.nn.functional.normalize(torch.tensor([4.0, 1.0, 24.0, 0.0]), dim=0)
    expected = (torch.tensor(2.0).exp() * embedding).softmax(0)
    after = {one["name"]: one["after"] for one in found["answers"]}
    assert [after[f"class {n}"] for n in range(4)] == pytest.approx(expected.tolist(), rel=1e-2)
    before = torch.tensor(
        [next(one["before"] for one in found["answers"] if one["name"] == f"class {n}") for n in range(4)]
    )
    assert found["kl"] == pytest.approx(float((before * (before / expected).log()).sum()), rel=2e-2)


def test_removing_a_latent_lowers_its_class_and_a_silent_one_changes_nothing() -> None:
    ask = planted()
    own = ask.answer(bed(ask, 0, "remove"), ask.steering(latent_of(0), "remove"), 1.0)
    by_name = {one["name"]: one for one in own["answers"]}
    assert by_name["class 0"]["after"] < by_name["class 0"]["before"] and own["held"]["n"] == 1
    silent = ask.answer(bed(ask, 0, "scale"), ask.steering(latent_of(3), "scale"), 3.0)
    assert silent["kl"] == 0 and all(one["before"] == one["after"] for one in silent["answers"])


def test_a_change_at_one_position_is_the_run_with_only_that_one_changed() -> None:
    ask = planted()
    assert ask.about["positions"] == {"first": 0, "last": 2, "cls": False}
    one = Bed(ask.loaded.subject, ask._answers, of_class(ask, 0), "visual.place", "visual.place", "add", At.of("2"))
    found = ask.answer(one, ask.steering(latent_of(2), "add"), 2.0)
    embedding = torch.nn.functional.normalize(torch.tensor([4.0, 1.0, 8.0, 0.0]), dim=0)
    after = {one["name"]: one["after"] for one in found["answers"]}
    expected = (torch.tensor(2.0).exp() * embedding).softmax(0).tolist()
    assert [after[f"class {n}"] for n in range(4)] == pytest.approx(expected, rel=1e-2)
    own = ask.steering(latent_of(0), "remove")
    first, last = (replace(one, kind="remove", at=At.of(words)) for words in ("0", "-1"))
    assert ask.answer(first, own, 1.0)["held"] == {"value": 4.0, "share": 1.0, "n": 1, "of": 1}
    silent = ask.answer(last, own, 1.0)
    assert silent["kl"] == 0 and silent["held"]["n"] == 0
    assert max(ask.curve(first, own)["kl"]) > 0 and not any(ask.curve(last, own)["kl"])


@pytest.mark.parametrize("kind", ["add", "clamp", "scale", "remove"])
def test_the_curve_is_the_answer_at_every_dose(kind: Any) -> None:
    ask = planted()
    steering = ask.steering(latent_of(0), kind)
    found = ask.curve(bed(ask, 0, kind), steering)
    assert len(found["strengths"]) == N_DOSES and (found["strengths"][0], found["strengths"][-1]) == DOSES[kind][:2]
    assert found["lines"][0]["name"] == "class 0" and found["control"]["n"] == N_CLASSES - 1
    for strength, value, kl in zip(found["strengths"], found["lines"][0]["values"], found["kl"], strict=True):
        one = ask.answer(bed(ask, 0, kind), steering, strength)
        assert {a["name"]: a["after"] for a in one["answers"]}["class 0"] == pytest.approx(value) and one["kl"] == kl
    low, high = found["control"]["low"], found["control"]["high"]
    assert all(a <= b for a, b in zip(low, high, strict=True)) and 0 <= found["control"]["own"] <= 1
    neutral = found["strengths"].index(DOSES[kind][2])
    if kind != "clamp":
        assert low[neutral] == high[neutral] == found["lines"][0]["values"][neutral] and found["kl"][neutral] == 0


def test_a_latent_that_never_fired_has_no_dose_to_add() -> None:
    ask = planted()
    ask.loaded.strongest[1] = 0.0  # type: ignore[index]
    with pytest.raises(ConfigError, match="latent 1: never fires"):
        ask.steering(1, "add")
    assert ask.steering(1, "remove").unit == 1
    with pytest.raises(DictionaryError, match="no latent 4"):
        ask.steering(4, "add")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return text_catalog(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return image_catalog(tmp_path_factory.mktemp("image"))


def firing(loaded: Loaded) -> int:
    return max(range(len(loaded.strongest)), key=lambda one: loaded.strongest[one])


def test_a_text_is_written_on_and_nothing_changes_at_dose_zero(text: Loaded) -> None:
    ask = steering(text)
    assert ask.about["takes"] == "text" and ask.about["writes_on"]
    question = {"latent": firing(text), "kind": "add", "strength": 0, "text": "The cat"}
    still = ask(question)
    assert still["written"]["before"] == still["written"]["after"] and still["kl"] == 0
    moved = ask(question | {"strength": 4})
    assert moved["written"]["before"] == still["written"]["before"] and moved["kl"] > 0
    assert sum(one["after"] for one in moved["answers"]) <= 1
    assert ask.about["positions"] is None
    for at, held in (("all", still["held"]["of"]), ("-1", 1), ("0:2", 1), ("firing 1:", 2)):
        assert ask(question | {"at": at})["held"]["of"] == held
    last = ask(question | {"strength": 4, "at": "-1"})
    assert last["written"]["after"] != "" and last["kl"] > 0
    curve = ask(question | {"curve": True})
    assert len(curve["kl"]) == N_DOSES and curve["control"]["n"] > 0


def test_a_picture_is_answered_by_the_classes(image: Loaded) -> None:
    ask = steering(image)
    assert ask.about["takes"] == "image" and not ask.about["writes_on"]
    assert ask.about["positions"] == {"first": 0, "last": 16, "cls": True}
    question = {"latent": firing(image), "kind": "clamp", "strength": 1.5, "at": "cls -1", "image": ""}
    found = ask(question | {"image": base64.b64encode(picture_bytes()).decode()})
    assert {one["name"] for one in found["answers"]} == {"cat", "dog"} and "written" not in found
    assert sum(one["after"] for one in found["answers"]) == pytest.approx(1, abs=1e-2)
    with pytest.raises(InputsError, match="picture"):
        ask(question)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"kind": "ad"}, ConfigError, "Did you mean 'add'"),
        ({"kind": 3}, InputsError, "kind: must be str"),
        ({"latent": "1"}, InputsError, "latent: must be int"),
        ({"latent": 99}, DictionaryError, "no latent 99"),
        ({"at": 3}, InputsError, "at: must be str"),
        ({"at": "here"}, ConfigError, "at: 'here' is no position; allowed: all, firing, cls, numbers"),
        (
            {"at": "99"},
            ConfigError,
            "at: 99 is no position that may change: there are 3, of which these may: 1 to 2",
        ),
        ({"strength": "1"}, InputsError, "strength: must be"),
        ({"strength": float("nan")}, ConfigError, "must be finite"),
        ({"text": ""}, InputsError, "the text is empty"),
        ({"text": None}, InputsError, "text: must be str"),
    ],
)
def test_what_cannot_be_steered_is_told(
    text: Loaded, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    question = {"latent": firing(text), "kind": "add", "strength": 1, "text": "The cat"}
    with pytest.raises(error, match=message):
        steering(text)(question | changes)


def test_a_subject_without_answers_is_not_steered(text: Loaded, tmp_path: Path) -> None:
    subject = SimpleNamespace(kind="language", predicts_next_token=False)
    assert SteerAsk.of(SimpleNamespace(subject=subject, dictionary=text.dictionary, inputs=None), tmp_path) is None  # type: ignore[arg-type]
    clip = SimpleNamespace(kind="clip")
    assert SteerAsk.of(SimpleNamespace(subject=clip, dictionary=text.dictionary, inputs=None), tmp_path) is None  # type: ignore[arg-type]


def test_commands_keep_findings_in_the_catalog_and_label_text_without_labels(
    text: Loaded, image: Loaded, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog, latent = text.catalog.path, firing(text)
    of = ["--dictionary", str(catalog.parent / "dictionary"), "--store", str(catalog.parent / "store")]
    assert cli.main(["lab", "steer", *of, "--catalog", str(catalog), "--latent", str(latent), "--n-examples", "4"]) == 0
    label = ["lab", "label", *of, "--unit", f"latent:{latent}", "--categories", "a name", "other", "--n-each", "4"]
    assert cli.main([*label, "--catalog", str(catalog)]) == 0
    assert "nobody has labelled any" in capsys.readouterr().out
    labelling = Labelling(catalog / "lab" / f"label-latent-{latent}")
    for slot, shown in enumerate(labelling.slots):
        assert 0 <= shown["at"] < len(shown["tokens"]) <= 33
        labelling.label("Ada", slot, int("a" in shown["tokens"][shown["at"]]))
    assert cli.main([*label, "--catalog", str(catalog)]) == 0
    findings = Findings(catalog, text.dictionary.hash)
    assert {one["name"] for one in findings.of("latent", latent)} >= {
        f"steer-latent-{latent}",
        f"label-latent-{latent}",
    }
    assert "by raters who did not see" in findings[f"label-latent-{latent}"].data["verdict"]
    assert cli.main([*label, "--catalog", str(image.catalog.path)]) == 2
    assert "catalog: " in (told := capsys.readouterr().err) and "not of <topk" in told
