"""The search finds latents that were planted, and its figures are those of brute force."""

import json
from itertools import combinations
from pathlib import Path

import pytest
import torch
from toy_joint import LAYER, NAMES, PARTS, bench, with_few

from sae.errors import ConfigError, InputsError
from sae.features.live.words import Words
from sae.inputs.concepts import ConceptInputs, World
from sae.lab.concepts import Concepts, beside, compared
from sae.lab.words import search as method
from sae.lab.words.joint import JointSpace, blank
from sae.lab.words.search import Config, drawn_hits, search
from sae.lab.workbench import Workbench
from sae.subjects.load import load
from sae.tensors import Batch


def test_the_nearest_come_first_and_what_points_nowhere_last() -> None:
    places = torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0], [-1.0, 0.2]])
    top, cosines = search(places, torch.tensor([[2.0, 0.0]]), 10)
    assert top[:, 0].tolist() == [1, 2, 3, 0]
    assert cosines[:2, 0].tolist() == pytest.approx([1, 0.5**0.5])


@pytest.mark.parametrize("hookpoint", ["visual.embedding", LAYER])
def test_planted_latents_are_found_by_name_and_by_phrase(hookpoint: str) -> None:
    space = JointSpace.of(bench(hookpoint))
    (places,) = space.places([space.bench.latents])
    top, _ = search(places, space.words.towards(NAMES[:6]), 1)
    assert top[0].tolist() == list(range(6))
    both, _ = search(places, space.words.towards(["the cat and the owl"]), 2)
    assert set(both[:, 0].tolist()) == {0, 5}


def test_hits_of_drawn_units_are_those_of_brute_force() -> None:
    detects = torch.rand(7, 5, generator=torch.Generator().manual_seed(0)) > 0.8
    drawn = [int(detects[list(chosen)].any(0).sum()) for chosen in combinations(range(7), 3)]
    assert drawn_hits(detects, 3) == pytest.approx(sum(drawn) / len(drawn))
    assert drawn_hits(detects, 99) == int(detects.any(0).sum())


def test_detectors_are_chosen_on_one_half_and_scored_on_the_other() -> None:
    made = bench()
    concepts = Concepts.of(JointSpace.of(made))
    matched, scored = made.latents.auc
    torch.testing.assert_close(concepts.auc(made.latents.responses), scored)
    assert concepts.detectors(made.latents.responses).tolist() == matched.argmax(0).tolist()


def test_a_whole_run_says_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    found = method.run(Config(dictionary="toy", store=tmp_path, n_top=2))
    assert [row["phrase"] for row in found.rows] == list(NAMES)
    whole = found.figures["latents, activation, path"]
    assert whole >= 6 / len(NAMES) > found.figures["latents, activation, drawn"]
    assert found.figures["latents, boosted, path, rises most"] >= 6 / len(NAMES)
    assert (
        found.figures["latents, boosted, path, mean rise"] > found.figures["latents, boosted, drawn, mean rise"] + 0.2
    )
    assert "phrases" not in found.verdict and "too few" not in found.verdict
    found.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "search.json").read_text())["verdict"] == found.verdict
    assert (tmp_path / "out" / "lab-search.png").stat().st_size > 5000
    assert PARTS.keys() < set(NAMES)


@pytest.mark.parametrize("hookpoint", ["visual.embedding", LAYER])
def test_any_phrase_is_boosted_among_the_classes_and_the_other_phrases(
    hookpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(hookpoint)
    monkeypatch.setattr(Workbench, "open", lambda config: made)
    phrases = ("owl", "big cat", "sun and owl")
    found = method.run(Config(dictionary="toy", store=tmp_path, phrases=phrases, n_top=2))
    assert [row["phrase"] for row in found.rows] == list(phrases)
    assert set(found.rows[1]["latents"].split()) == {"0", "4"} and found.rows[1]["auc, activation"] == ""

    space, image = JointSpace.of(made), Batch(first_example=0, images=blank(made.subject, made.inputs))
    texts, x = [*NAMES, "big cat", "sun and owl"], made.subject.run(image, [hookpoint])[hookpoint]
    codes, maximum = made.dictionary.encode(x[0]).dense(), made.latents.responses.maximum

    def rises(latent: int) -> dict[str, float]:
        wanted = codes.clone()
        wanted[:, latent] = maximum[latent]
        changed = x + ((wanted - codes) @ made.dictionary.W_dec)[None]
        before, after = (made.subject.forward(image, {hookpoint: lambda _, y=y: y}).image[0] for y in (x, changed))
        return dict(zip(texts, (space.words.towards(texts) @ (after - before)).tolist(), strict=True))

    for row in found.rows:
        risen = rises(int(row["latents"].split()[0]))
        assert row["rise"] == pytest.approx(risen[row["phrase"]], abs=2e-4)
        assert row["rank_of_rise"] == sum(rise >= risen[row["phrase"]] - 1e-6 for rise in risen.values())
    assert found.rows[0]["rank_of_rise"] == 1 and found.rows[1]["rank_of_rise"] > 1, "half of a phrase raises its word"
    assert found.figures["phrases, latents, boosted, path, mean rise"] == pytest.approx(
        sum(row["rise"] for row in found.rows) / 3, abs=1e-3
    )
    assert found.figures["phrases, latents, boosted, drawn, mean rise"] == pytest.approx(
        sum(row["drawn_rise"] for row in found.rows) / 3, abs=1e-3
    )
    assert found.figures["n_texts"] == len(NAMES) + 2 and "Of the 3 phrases asked for, among 10 texts" in found.verdict
    named = method.run(Config(dictionary="toy", store=tmp_path, n_top=2)).figures
    assert named == {name: found.figures[name] for name in named}, (
        "what is said of the classes is not changed by phrases"
    )


def test_concepts_with_too_few_examples_count_as_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(dictionary="toy", store=tmp_path)
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    whole = method.run(config).figures
    monkeypatch.setattr(Workbench, "open", lambda config: with_few(bench(), "owl", "cat"))
    found = method.run(config)
    assert found.figures["n_concepts"] == len(NAMES) and found.figures["concepts with too few examples"] == 2
    for share in ("latents, activation, path", "latents, activation, any unit", "latents, pre-activation, any unit"):
        assert found.figures[share] == whole[share] - 2 / len(NAMES), share
    assert "2 of the concepts had too few examples" in found.verdict
    rows = {row["phrase"]: row for row in found.rows}
    assert rows["owl"]["auc, activation"] == "" and rows["owl"]["rank_of_rise"] == 1


def test_the_verdict_says_so_where_latents_are_behind_neurons() -> None:
    names = ("latents", "neurons", "random_directions")
    shares = {("activation", "path"): (0.33, 0.50, 0.3), ("pre-activation", "path"): (0.94, 0.50, 0.8)}
    shares |= {("activation", "covariance"): (0.33, 0.65, 0.4), ("pre-activation", "covariance"): (0.93, 0.65, 0.84)}
    figures = {
        f"{name}, {reading}, {way}": share
        for (reading, way), of in shares.items()
        for name, share in zip(names, of, strict=True)
    }
    figures |= {f"latents, {reading}, any unit": 0.36 for reading in ("activation", "pre-activation")}
    for way in ("path", "drawn"):
        figures |= {f"latents, boosted, {way}, {what}": 0.2 for what in ("rises most", "mean rise")}
    said = method._verdict(figures | {"n_concepts": 239, "concepts with too few examples": 0}, "path")
    assert "by its activation, where any latent does for 36%: less than the best control, neurons with 50%" in said
    assert "(65% by covariance)" in said and "94%: more than the best control, random directions with 80%" in said


def test_a_word_that_the_subject_never_saw_is_refused_with_the_nearest_one() -> None:
    subject = load("builtin:concepts-clip-rn")
    words = Words(subject, ConceptInputs(World(), "score", 4))
    with pytest.raises(InputsError, match=r"never trained on the word 'ballon'.* Did you mean 'balloon'"):
        words.towards(["a red ballon"])
    with pytest.raises(InputsError, match="empty"):
        words.towards([" "])
    with pytest.raises(InputsError, match=r"no class is called 'catt'.* Did you mean 'cat'"):
        words.number("catt")
    assert words.towards(["a red balloon"]).norm() == pytest.approx(1, abs=1e-4)


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n_top"):
        Config(dictionary="toy", store=tmp_path, n_top=0)


@pytest.mark.parametrize(
    ("share", "control", "n", "said"),
    [(0.7, 0.2, 239, "more"), (0.2, 0.7, 239, "less"), (0.20, 0.16, 239, "not"), (8 / 12, 4 / 12, 12, "not")],
)
def test_a_share_is_told_from_a_control_only_beyond_chance(share: float, control: float, n: int, said: str) -> None:
    assert compared(share, control, n).startswith(said)


def test_a_control_of_few_things_is_told_from_only_by_a_lot() -> None:
    assert compared(0.05, 0.0, 1024) == compared(0.05, 0.0, 1024, 1024) == "more than"
    assert compared(0.05, 0.0, 1024, 20) == "not distinguishable from"
    assert compared(0.0, 1.0, 3, 3) == "less than" and compared(0.0, 0.0, 5) == "not distinguishable from"
    told = beside(0.2, 500, {"neurons": (0.01, 500), "random directions": (0.02, 500), "dealt": (0.2, 9)})
    assert told == "more than neurons (1.0%) and random directions (2.0%), not distinguishable from dealt (20.0%)"
