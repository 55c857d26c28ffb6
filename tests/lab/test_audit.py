"""An audit finds what pictures and subjects are made to hold, and nothing where they hold nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_judged import MARK, NAMES, bench

from sae.errors import ConfigError, EvaluationError, InputsError
from sae.inputs.concepts import ConceptInputs, World
from sae.lab.bias.audit import Config, finding
from sae.lab.bias.population import pairs, population
from sae.lab.bias.removing import Knowing, left, removals
from sae.lab.bias.table import Audit, latent_titles
from sae.lab.workbench import Workbench


def audited(made: Workbench, among: str | None = None) -> Audit:
    judged = population(made, among, ["mark"])
    return Audit.of(judged, pairs(made, judged, ["mark"], 12), 0)


def test_what_pictures_hold_and_what_the_subject_adds_are_told_apart() -> None:
    inherited, leaning, clean = (audited(bench(*made)) for made in ((0.0, 0.95), (0.4, 0.3), (0.0, 0.3)))
    cat = [(NAMES.index("cat"), clean.judged.values.index("mark=yes"))]
    for audit, as_they_come, caused in ((inherited, cat, []), (leaning, [], cat), (clean, [], [])):
        yes = audit.judged.values.index("mark=yes")
        assert [tuple(one) for one in audit.goes_with.found.nonzero().tolist() if one[1] == yes] == as_they_come
        assert [tuple(one) for one in audit.caused[1].nonzero().tolist() if one[1] == yes] == caused


def test_only_the_items_asked_for_are_judged_and_between_their_own_classes() -> None:
    judged = population(bench(), "kind=alive", ["mark"])
    assert judged.judge.names == NAMES[:4] and len(judged.truth) == 400
    assert judged.values == ("mark=no", "mark=yes")
    assert (judged.judged == judged.truth).all()


def test_the_latent_of_the_mark_is_found_and_taking_it_out_leaves_nothing() -> None:
    made = bench(lean=0.4)
    audit = audited(made)
    judged = audit.judged
    knowing, yes = Knowing(made.dictionary, judged, 0), judged.values.index("mark=yes")
    assert int(knowing.auc("latents", yes)[0].argmax()) == MARK and knowing.auc("latents", yes)[1][MARK] > 0.99
    after = left(knowing, audit.pairs["mark"], yes, 1, 0)
    assert after["nothing"]["moved, nats"] > 10 * after["latents"]["moved, nats"]
    assert after["random latents"]["moved, nats"] > 5 * after["latents"]["moved, nats"]
    assert after["latents"]["accuracy"] == 1
    assert latent_titles(made.latents)[0] == "thing=cat"


def test_a_finding_says_both_and_is_saved(tmp_path: Path) -> None:
    made = bench(0.4, 0.95)
    config = Config(dictionary="toy", store=tmp_path, sensitive=("mark",), per_class=12, n_removed=1)
    found = finding(made, audited(made), config)
    yes = [row["judgement"] for row in found.rows if row["found"] and row["value"] == "mark=yes"]
    assert yes == ["cat"] and found.figures["found with looks dealt out"] < 0.2
    assert found.figures["moved unlike other judgements"] == 2, "the mark and its absence are one and the same"
    first = found.rows[0]
    assert (first["judgement"], first["value"], first["latent"], first["speaks"]) == ("cat", "mark=yes", MARK, 0)
    assert first["low"] < first["effect, nats"] < first["high"] and first["own"] is True
    assert found.figures["cat, mark=yes: demographic parity"] > 0.2
    assert abs(found.figures["cat, mark=yes: equal opportunity"]) < 0.1
    assert "cat with mark=yes" in found.verdict and "One decision: Judged cat" in found.verdict
    found.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["verdict"] == found.verdict
    assert all((tmp_path / "out" / f"{name}.png").stat().st_size > 5000 for name in ("lab-audit", "lab-decision"))


def test_a_value_that_the_half_to_choose_on_lacks_is_left_out_and_said(tmp_path: Path) -> None:
    made = bench()
    marks = np.zeros(len(made.inputs), dtype=np.int64)  # type: ignore[arg-type]
    marks[[one for one in (~made.sample.match).nonzero()[:, 0].tolist() if made.inputs.thing[one] == 0][:3]] = 1  # type: ignore[attr-defined]
    made.inputs.mark = marks  # type: ignore[attr-defined]
    labels = made.inputs.labels(0, len(marks))  # type: ignore[attr-defined]
    made.__dict__["sample"] = replace(made.sample, labels=labels, factors=labels)
    audit = audited(made)
    knowing, yes = Knowing(made.dictionary, audit.judged, 0), audit.judged.values.index("mark=yes")
    assert not knowing.can_choose(yes) and set(left(knowing, audit.pairs["mark"], yes, 1, 0)) == {"nothing"}
    found = finding(made, audit, Config(dictionary="toy", store=tmp_path, sensitive=("mark",), per_class=12))
    assert "Not taken out, since the half to choose on lacks items with or without: mark=" in found.verdict
    assert not any("without latents" in name or value != value for name, value in found.figures.items())


def test_the_neurons_taken_out_are_those_that_tell_a_value_on_either_side() -> None:
    audit, taken = audited(bench(lean=0.4)), []
    knowing = Knowing(bench(lean=0.4).dictionary, audit.judged, 0)
    for value in range(2):
        rows = dict(removals(knowing, value, 1, 0))["best neurons"](audit.judged.x)
        taken.append((rows != audit.judged.x).any(0).nonzero()[:, 0].tolist())
    best = int((knowing.auc("neurons", 0)[0] - 0.5).abs().argmax())
    assert taken == [[best], [best]], "what tells the mark tells its absence as well"


def test_inputs_that_cannot_vary_are_audited_as_they_come(tmp_path: Path) -> None:
    made = bench(0.0, 0.95)
    made.inputs.varied = None  # type: ignore[attr-defined]
    plain = Audit.of(population(made, None, ["mark"]), {}, 0)
    found = finding(made, plain, Config(dictionary="toy", store=tmp_path, sensitive=("mark",)))
    assert "nothing is known of causes" in found.verdict and found.rows[0]["found"]
    assert {row["effect, nats"] for row in found.rows} == {""}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"among": "kind=dead"}, "no value 'dead' of kind. Allowed: alive, not"),
        ({"among": "knd=alive"}, "no label family 'knd'.* Did you mean 'kind'"),
        ({"sensitive": ["marks"]}, "no label family 'marks'.* Did you mean 'mark'"),
        ({"among": "kind=not", "sensitive": ["kind"]}, "no two of the 200 items differ in kind"),
    ],
)
def test_labels_that_are_not_there_are_refused(change: dict, message: str) -> None:
    asked = {"among": None, "sensitive": ["mark"]} | change
    with pytest.raises(EvaluationError, match=message):
        population(bench(), asked["among"], asked["sensitive"])


def test_a_transcoder_of_the_joint_space_is_refused() -> None:
    made = bench()
    made.dictionary.is_transcoder = True
    made.dictionary.provenance = made.dictionary.provenance | {"target_hookpoint": "text.embedding"}
    with pytest.raises(EvaluationError, match=r"writes text\.embedding"):
        population(made, None, ["mark"])


def test_other_places_and_too_few_judgements_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"needs a dictionary of visual\.embedding"):
        population(bench(hookpoint="visual.layer4.0.hook_post"), None, ["mark"])
    with pytest.raises(EvaluationError, match="2 judgements; 4 are needed"):
        audited(bench(), "kind=not").caused  # noqa: B018
    with pytest.raises(ConfigError, match="sensitive"):
        Config(dictionary="toy", store=tmp_path, sensitive=())
    made = bench()
    with pytest.raises(ConfigError, match="example: 5000 is not among"):
        finding(made, audited(made), Config(dictionary="toy", store=tmp_path, sensitive=("mark",), example=5000))


def test_a_role_is_shown_with_other_looks_and_nothing_else_changes() -> None:
    world = World()
    inputs = ConceptInputs(world, "score", 3000, uniform=True)
    labels = inputs.labels(0, 3000)
    judge = next(
        number
        for number in range(3000)
        if inputs.scene(number).concept == "judge" and labels["hair_colour"][number] >= 0
    )
    shown = inputs.varied(judge, "hair_colour")
    assert tuple(shown) == inputs.label_names["hair_colour"]
    images = torch.cat([one.images for one in shown.values()])
    differs = (images != images[:1]).any(1).any(0)
    assert 0 < differs.double().mean() < 0.2, "the hair alone"
    assert tuple(inputs.varied(judge, "glasses")) == ("no", "yes")
    word = next(number for number in range(3000) if inputs.scene(number).facet == "word")
    assert inputs.varied(word, "glasses") == {}
    with pytest.raises(InputsError, match=r"'hairs' cannot be changed alone.* Did you mean 'hair'"):
        inputs.varied(judge, "hairs")
