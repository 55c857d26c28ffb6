"""The latents behind an audit: by prompts and images, those that speak and lean, and fairness without them."""

import csv
import dataclasses
import json
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from toy_judged import D_JOINT, MARK, NAMES, ToyFaces, bench

from sae.errors import ConfigError, InputsError
from sae.inputs.base import Labelled, Varied
from sae.inputs.configs import ImageInputsConfig
from sae.inputs.images import ImageInputs
from sae.lab.bias.associated import Association, association_figures, association_rows, associations
from sae.lab.bias.audit import Config, finding
from sae.lab.bias.decision import contributions
from sae.lab.bias.labels import AlsoLabelled, with_labels
from sae.lab.bias.population import pairs, population
from sae.lab.bias.removing import Knowing, fairness_left
from sae.lab.bias.speaking import Speaking, speaking_rows
from sae.lab.bias.table import Audit
from sae.lab.bias.wording import Wording, read_phrases

CAT = NAMES.index("cat")


@cache
def known(lean: float, mark: float) -> Knowing:
    made = bench(lean, mark=mark)
    return Knowing(made.dictionary, population(made, None, ["mark"]), 0)


def yes(knowing: Knowing) -> int:
    return knowing.judged.values.index("mark=yes")


def test_prompts_and_images_find_the_latent_of_the_mark() -> None:
    knowing = known(0.4, 0.5)
    words = Wording.of(bench(0.4), knowing.judged)
    assert words.values == ("mark=yes",), "the absence of a mark has no words"
    found = associations(knowing, words)
    of_kind = {one.kind: one for one in found if one.value == "mark=yes"}
    latents = of_kind["latents"]
    assert latents.ranked("prompts", 1) == latents.ranked("images", 1) == [MARK]
    assert latents.prompts[MARK] > 0.9 > latents.prompts[of_kind["latents"].ranked("prompts", 2)[1]] + 0.5
    others = [one for kind, one in of_kind.items() if kind != "latents"]
    assert all(float(one.prompts.max()) < float(latents.prompts[MARK]) for one in others)
    assert latents.auc(MARK) == pytest.approx(1)
    rows = association_rows(list(of_kind.values()), {MARK: "mark=yes"})
    assert [row["called"] for row in rows if row["unit"] == MARK and row["kind"] == "latents"] == ["mark=yes"] * 2
    figures = association_figures(found, ["mark=yes"])
    assert figures["judgements themselves by prompts, latents: auc of the best"] > 0.99
    assert figures["judgements themselves by prompts, neurons: auc of the best"] < 0.95
    assert figures["mark=yes: auc of the best of latents by prompts"] == pytest.approx(1)


def test_agreement_is_that_of_the_two_orders_over_units_that_fire() -> None:
    cosine = torch.linspace(-1, 1, 40)
    alive = torch.ones(40, dtype=torch.bool)
    alive[-1] = False
    area = torch.where(alive, 0.5 + cosine / 4, 0.0)
    agreeing = Association("mark=yes", "latents", alive, cosine, (area, area))
    opposed = dataclasses.replace(agreeing, images=(area, 1 - area))
    assert agreeing.agreement is not None and agreeing.agreement.mean == pytest.approx(1)
    assert opposed.agreement is not None and opposed.agreement.mean == pytest.approx(-1)
    assert agreeing.ranked("prompts", 2) == agreeing.ranked("images", 2) == [38, 37], "a dead unit is not ranked"
    words = dataclasses.replace(agreeing, images=None)
    assert words.agreement is None and words.ranked("images") == [] and words.auc(3) is None


def test_words_stand_against_the_other_values_of_their_family() -> None:
    made, judged = bench(), known(0.0, 0.5).judged
    own = {"look=marked": ["mark", "mark mark"], "look=bare": ["bare"], "mark=yes": ["bare"]}
    words = Wording.of(made, judged, own)
    assert words.values == ("look=marked", "look=bare", "mark=yes")
    torch.testing.assert_close(words.contrast[0], -words.contrast[1], atol=1e-5, rtol=0)
    # Phrases of one's own take the place of the label's.
    torch.testing.assert_close(words.contrast[2], words.towards[1])
    assert int(words.association(made.dictionary.W_dec)[:, 0].argmax()) == MARK
    assert words.association(made.dictionary.W_dec).shape == (D_JOINT, 3)


def test_the_latent_that_leans_speaks_and_knows_the_mark() -> None:
    knowing = known(0.4, 0.5)
    judged, value = knowing.judged, yes(knowing)
    found = Speaking.of(knowing, "latents", 2, 0)
    assert found.units[CAT].tolist() == [CAT, MARK]
    assert found.there.beyond_chance[CAT, :, value].tolist() == [False, True], (
        "a cat's own latent says nothing of its mark"
    )
    assert found.there.by_chance < 0.5
    here = (judged.judged == CAT) & ~judged.sample.match
    towards = judged.judge.classifier[CAT] - judged.judge.classifier.mean(0)
    parts = contributions(judged.judge, knowing.dictionary, judged.x[here], towards)[0]
    torch.testing.assert_close(found.adds[CAT], parts.mean(0)[[CAT, MARK]], atol=1e-4, rtol=0)
    torch.testing.assert_close(found.active[CAT], (parts != 0).float().mean(0)[[CAT, MARK]])
    own = knowing.units["latents"].responses.columns(found.units[CAT])[judged.judged == CAT]
    has = judged.has[judged.judged == CAT, value]
    for rank in range(2):
        more, less = own[has, rank][:, None], own[~has, rank][None]
        wins = (more > less).double() + 0.5 * (more == less).double()
        assert float(found.there.auc[CAT, rank, value]) == pytest.approx(float(wins.mean()), abs=1e-5)
    rows = speaking_rows({"latents": found}, knowing, Wording.of(bench(0.4), judged), {})
    told = [(row["unit"], row["beyond chance where judged so"]) for row in rows if row["judgement"] == "cat"]
    assert told == [(CAT, False), (MARK, True)]


def test_nothing_is_known_of_looks_that_are_dealt_out() -> None:
    knowing = known(0.4, 0.5)
    order = torch.randperm(len(knowing.judged.truth), generator=torch.Generator().manual_seed(1))
    dealt = dataclasses.replace(knowing.judged, has=knowing.judged.has[order])
    found = Speaking.of(Knowing(knowing.dictionary, dealt, 0), "latents", 3, 0)
    assert not found.there.beyond_chance.any() and not found.anywhere.beyond_chance.any()


def test_a_latent_may_go_with_a_look_by_its_judgement_alone() -> None:
    made = bench(0.0, of_cats=0.95)
    knowing = Knowing(made.dictionary, population(made, None, ["mark"]), 0)
    found = Speaking.of(knowing, "latents", 1, 0)
    assert found.units[CAT].tolist() == [CAT]
    assert found.anywhere.beyond_chance[CAT].any(), "most cats are marked"
    assert not found.there.beyond_chance[CAT].any()


def test_fairness_comes_back_without_the_latent_that_leans_and_not_without_others() -> None:
    knowing = known(2.0, 1.5)
    assert (knowing.judged.judged == CAT)[knowing.judged.has[:, yes(knowing)]].all(), "whatever is marked is a cat"
    speaking = {kind: Speaking.of(knowing, kind, 1, 0).units[CAT].tolist() for kind in ("latents", "neurons")}
    assert speaking["latents"] == [MARK]
    after = fairness_left(knowing, None, (CAT, yes(knowing)), speaking, 1, 0)
    for definition in ("demographic parity", "equalised odds"):
        gap = {way: one.gaps[definition].value for way, one in after.items()}
        assert gap["nothing"] > 0.8
        assert abs(gap["speaking latents"]) < 0.1 and abs(gap["latents"]) < 0.1
        assert gap["random latents"] > 0.5
    assert after["nothing"].accuracy < 0.8 and after["speaking latents"].accuracy == 1
    assert after["nothing"].rate > 0.35 > after["speaking latents"].rate
    assert after["speaking latents"].effect != after["speaking latents"].effect, "no pictures, so no effect"
    drawn = after["random latents"].gaps["demographic parity"]
    assert drawn.low <= drawn.value <= drawn.high
    whole = {way: one.gaps["base rate"].value for way, one in after.items()}
    assert len({round(value, 6) for value in whole.values()}) == 1, "nothing a judge can change"


def test_what_the_look_does_to_the_judgement_is_gone_with_its_latent() -> None:
    made, knowing = bench(0.4), known(0.4, 0.5)
    shown = pairs(made, knowing.judged, ["mark"], 12)["mark"]
    speaking = {"latents": [MARK], "neurons": [0]}
    after = fairness_left(knowing, shown, (CAT, yes(knowing)), speaking, 1, 0)
    assert after["nothing"].effect > 0.5 > 10 * abs(after["speaking latents"].effect)
    assert after["random latents"].effect > 0.6 * after["nothing"].effect


def test_subjects_without_such_labels_are_audited_by_prompts(tmp_path: Path) -> None:
    made = bench(0.4)
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"look": {"marked": ["mark"], "bare": ["bare"]}}))
    config = Config(dictionary="toy", store=tmp_path, prompts=prompts, n_removed=2)
    judged = population(made, None, config.sensitive)
    found = finding(made, Audit.of(judged, pairs(made, judged, (), 12), 0), config)
    assert judged.values == () and found.figures["words"] == 2
    assert found.figures["look=marked: cosine of the best of latents by prompts"] > 0.9
    assert {row["by words"] for row in found.rows if row["value"] == "look=marked"} == {MARK}
    assert {row["judgement"] for row in found.rows} == set(NAMES) and len({tuple(row) for row in found.rows}) == 1
    speaks = [row for row in found.pictures["lab-audit-speaking"].rows if row["judgement"] == "cat"]
    marked = next(row for row in speaks if row["unit"] == MARK and row["kind"] == "latents")
    assert marked["words"].startswith("look=") and abs(marked["cosine"]) > 0.9 and marked["knows where judged so"] == ""
    assert f"The words of look=marked are written most by latent {MARK}" in found.verdict
    assert "known as words alone" in found.verdict and "One decision: Judged" in found.verdict
    found.save(tmp_path / "out")
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {
        "lab-audit-prompts", "lab-audit-speaking", "lab-decision",
    }  # fmt: skip


def test_phrases_of_ones_own_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"age": ["young man", "old man"], "fur": {"red": ["red fur", "ginger"]}}))
    assert read_phrases(path) == {
        "age=young man": ["young man"], "age=old man": ["old man"], "fur=red": ["red fur", "ginger"],
    }  # fmt: skip
    for content, message in (
        ("[]", "not families and their phrases"),
        ('{"age": {"old": "old man"}}', "age: not values and lists of phrases"),
        ('{"age": {"old": []}}', "age: not values and lists of phrases"),
        ("{", "cannot be read as JSON"),
    ):
        path.write_text(content)
        with pytest.raises(ConfigError, match=message):
            read_phrases(path)
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        read_phrases(tmp_path / "missing.json")
    with pytest.raises(InputsError, match="the phrase is empty"):
        Wording.of(bench(), known(0.0, 0.5).judged, {"age=old": [" "]})


class AtPaths(ToyFaces):
    """The same pictures, each at a path."""

    def references(self, start: int, stop: int) -> list[dict[str, str]]:
        return [{"path": f"faces/{number}.png"} for number in range(start, stop)]


def test_labels_of_a_file_stand_beside_those_of_the_inputs(tmp_path: Path) -> None:
    inputs = AtPaths()
    made = dataclasses.replace(bench(), inputs=inputs)
    told = {f"faces/{one}.png": ["bare", "marked"][inputs.mark[one]] for one in range(500)}
    as_json, as_csv = tmp_path / "labels.json", tmp_path / "labels.csv"
    as_json.write_text(json.dumps({path: {"tint": value} for path, value in told.items()}))
    with as_csv.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "tint"), *told.items(), ("faces/500.png", "")])
    for path in (as_json, as_csv):
        new = with_labels(made, path)
        found = new.inputs.labels(0, 600)  # type: ignore[attr-defined]
        assert new.inputs.label_names["tint"] == ["bare", "marked"]  # type: ignore[attr-defined]
        assert (found["tint"][:500] == inputs.mark[:500]).all() and (found["tint"][500:] == -1).all()
        assert (found["thing"] == inputs.thing).all() and len(new.inputs) == 600
        # The sample is taken anew from the store with these; here there is none.
        sample = dataclasses.replace(bench().sample, labels=found, factors=found, label_names=new.inputs.label_names)  # type: ignore[attr-defined]
        new.__dict__["sample"] = sample
        judged, by_mark = population(new, None, ["tint"]), population(bench(), None, ["mark"])
        assert judged.values == ("tint=bare", "tint=marked") and judged.shown.sum() == 2 * 500
        assert (judged.has[:500] == by_mark.has[:500]).all()


def test_pictures_of_a_folder_are_named_by_their_paths(tmp_path: Path) -> None:
    for number, name in enumerate(("cats/a.png", "cats/b.png", "dogs/c.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / name)
    frame = torch.zeros(3, 4, 4, dtype=torch.uint8)
    folder = ImageInputs(ImageInputsConfig(path=tmp_path), lambda _: frame)
    labelled = AlsoLabelled(folder, {"cats/b.png": {"fur": "red"}, "dogs/c.png": {"fur": "black"}}, "furs")
    assert isinstance(labelled, Labelled) and not isinstance(labelled, Varied)
    assert {family: list(names) for family, names in labelled.label_names.items()} == {
        "class": ["cats", "dogs"],
        "fur": ["black", "red"],
    }
    paths = [one["path"] for one in folder.references(0, 3)]
    furs = dict(zip(paths, labelled.labels(0, 3)["fur"].tolist(), strict=True))
    assert furs == {"cats/a.png": -1, "cats/b.png": 1, "dogs/c.png": 0}
    assert labelled.classes == folder.classes and labelled.batch(0, 2).images is not None
    with pytest.raises(ConfigError, match=r"no picture 'cats/d.png'.* Did you mean 'cats/"):
        AlsoLabelled(folder, {"cats/d.png": {"fur": "red"}}, "furs")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "path,tint\nfaces/6000.png,bare\n", "no picture 'faces/6000.png'.* Did you mean 'faces/600?"),
        ("a.csv", "file,tint\nfaces/1.png,bare\n", "no column 'path'"),
        ("a.csv", "path,mark\nfaces/1.png,bare\n", "there are labels 'mark' already"),
        ("a.json", '{"faces/1.png": "bare"}', "'faces/1.png' has no texts by family"),
        ("a.json", "[]", "has no texts by family"),
        ("a.json", "{", "cannot be read"),
    ],
)
def test_files_of_labels_that_do_not_fit_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        with_labels(dataclasses.replace(bench(), inputs=AtPaths()), tmp_path / name)


def test_pictures_without_paths_take_no_labels_from_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"faces/1.png": {"tint": "bare"}}')
    with pytest.raises(ConfigError, match="do not lie at paths"):
        with_labels(bench(), tmp_path / "a.json")
