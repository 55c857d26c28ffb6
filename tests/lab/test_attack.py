"""Attacks on a subject whose answer one latent decides: they succeed, and the defence restores it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from live_catalogs import image_catalog
from toy_reader import NAMES, PLACE, SIDE, N, ToyThings, bench, stamp

from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import ConfigError, EvaluationError
from sae.lab.typography import attack, defence, defences, lettered, wild, written
from sae.lab.typography.attack import bed_of
from sae.lab.typography.defence import CLEAN, WORDS, WRITTEN, Point, chosen, curves, point
from sae.lab.typography.lettered import class_of, things
from sae.lab.typography.stroop import CONDITIONS, inked, on_pictures
from sae.lab.typography.written import (
    CHOOSE,
    FIND,
    PARTS,
    SCORE,
    Manner,
    Pairs,
    Reader,
    images_of,
    manners,
    pairs_of,
    right,
)
from sae.tensors import Batch

MANNER = Manner("once", "place")


@pytest.fixture(autouse=True)
def stamped() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lettered, "write", stamp)
        patched.setattr(written, "write", stamp)
        yield


def reader() -> Reader:
    made = bench()
    known = (things(made) & made.sample.match).nonzero()[:, 0]
    return Reader.of(made, images_of(made, known), class_of(made)[known])


def beds() -> dict[str, defence.Bed]:
    made, reads = bench(), reader()
    return {part: bed_of(made.subject, reads, PLACE, pairs_of(made, (), 160, part), MANNER, part) for part in PARTS}


def test_pairs_are_of_their_part_and_no_word_names_its_picture() -> None:
    made = bench()
    for part in PARTS:
        pairs = pairs_of(made, (), 160, part)
        assert (pairs.truth != pairs.word).all() and pairs.word.bincount().tolist() == [160 // N] * N
        assert torch.equal(pairs.images[:, 0, 0, 0].long(), pairs.truth)
        assert (pairs.images[:, 0, -1, -1] == 50).all(), "nothing is written on them yet"
    only = pairs_of(made, ("owl", "key"), 8, SCORE)
    assert {NAMES[word] for word in only.word.tolist()} == {"owl", "key"}


def test_a_manner_writes_at_each_of_its_places_and_counts_pixels() -> None:
    with pytest.MonkeyPatch.context() as patched:
        from sae.inputs import writing

        patched.setattr(written, "write", writing.write)
        plain = torch.full((3, 64, 64), 100, dtype=torch.uint8)
        one, share = Manner("one", "place", 0.2, 0.4, places=((-0.5, -0.5),)).on(plain, "owl")
        changed = (one != plain).any(0)
        assert share == pytest.approx(float(changed.double().mean())) and 0 < share < 0.25
        assert not changed[:, 32:].any() and not changed[32:].any()
        twice, more = Manner("two", "place", 0.2, 0.4, places=((-0.5, -0.5), (0.5, 0.5))).on(plain, "owl")
        assert more == pytest.approx(2 * share, rel=0.1) and (twice != plain).any(0)[32:, 32:].any()
    assert next(one.name for one in manners((0.2,), ("serif",), 0.4)) == "height 0.2"


def test_the_attack_succeeds_where_reading_outweighs_seeing_and_the_probe_is_not_fooled_less() -> None:
    made = bench()
    row = attack.attacked(made.subject, reader(), pairs_of(made, (), 160, SCORE), MANNER)
    assert row["succeeds, zero-shot"] == 1 and row["right, zero-shot"] == 0
    assert row["pixels"] == pytest.approx(1 / SIDE**2, abs=1e-4)


def test_removing_the_latents_that_read_restores_every_answer_and_random_ones_do_not() -> None:
    of, dictionary = beds(), bench().dictionary
    kinds = defences.defences(of[FIND], dictionary, None, 0)
    assert defences.HEADS not in {one.name for one in kinds}, "the toy has no heads"
    found, scored = curves(of[CHOOSE], kinds), curves(of[SCORE], kinds)
    for name in defences.READING[:3]:
        points = {one.amount: one for one in scored[name]}
        assert points[0].success[0] == 1 and points[8].success[0] == 0, name
        assert points[8].clean[0] == points[8].written[0] == 1, name
        best = scored[name][chosen(found[name])]
        assert attack.meets(points[0], best), name
        assert sorted(next(one.latents for one in kinds if one.name == name)[:N]) == list(range(N, 2 * N)), name
    as_active = scored[defences.AS_ACTIVE][chosen(found[defences.AS_ACTIVE])]
    assert as_active.success[0] > 0.5
    assert min(one.success[0] for one in scored[defences.AS_ACTIVE]) > 0.5


def test_effects_are_what_each_latent_adds_to_the_word_against_the_truth() -> None:
    bed, dictionary = beds()[FIND], bench().dictionary
    found = defences.effects(bed, dictionary)
    expected = torch.zeros(dictionary.d_sae)
    for kind, sign in ((WRITTEN, 1), (CLEAN, -1)):
        panel = bed.panels(PLACE)[kind]
        towards = bed.reader.classifier[bed.pairs.word] - bed.reader.classifier[bed.pairs.truth]
        x = panel.x.clone().requires_grad_(True)
        batch = Batch(first_example=0, images=bed.images[kind])
        image = bed.subject.forward(batch, {PLACE: lambda _, x=x: x}, grad=True)
        (grad,) = torch.autograd.grad((image.image * towards).sum(), x)
        codes = dictionary.encode(panel.x.flatten(0, 1)).dense().view(*panel.x.shape[:2], -1)
        expected += sign * (codes * (grad @ dictionary.W_dec.T)).sum((0, 1)) / len(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_latents_that_each_read_one_word_do_not_defend_against_words_that_they_were_not_found_by() -> None:
    of, dictionary = beds(), bench().dictionary
    found = defences.on_unseen_words(of, dictionary)
    assert found["words found by, before"] == found["other words, before"] == found["other words, after"] == 1
    assert found["words found by, after"] == 0 and found["number"] >= N / 2
    one = {part: bed.on_words(torch.tensor([2])) for part, bed in of.items()}
    assert defences.on_unseen_words(one, dictionary) == {}, "one word leaves no other"


def test_the_other_words_have_no_part_in_what_is_removed() -> None:
    of, dictionary = beds(), bench().dictionary
    even = torch.arange(0, N, 2)
    alone = {part: bed if part == SCORE else bed.on_words(even) for part, bed in of.items()}
    assert set(alone[FIND].truth[WORDS].tolist()) == set(alone[FIND].pairs.word.tolist()) == set(even.tolist())
    kinds = defences.readers(alone[FIND], dictionary)
    _, latents = defences.leading(kinds, curves(alone[CHOOSE], kinds))
    scored = point(of[SCORE], "", 1.0, of[SCORE].without_latents(dictionary, latents))
    found = defences.on_unseen_words(of, dictionary)
    both = (found["words found by, after"] + found["other words, after"]) / 2
    assert found["number"] == len(latents) and both == pytest.approx(scored.success[0])


def test_as_active_takes_the_nearest_free_latent() -> None:
    activity = torch.tensor([5.0, 1.0, 4.9, 1.1, 0.0], dtype=torch.float64)
    assert defences.as_active([0, 1], activity) == [2, 3]
    assert defences.as_active([0, 1, 2, 3, 4], activity) == []


def test_components_span_what_words_add() -> None:
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(10, 10, generator=generator)).Q[:2]
    word = torch.arange(60) % 6
    amounts = torch.randn(6, 2, generator=generator)
    components = defences.spelling_components(amounts[word] @ axes, word)
    assert torch.allclose(components[:2].T @ components[:2], axes.T @ axes, atol=1e-4)


def test_a_learnt_subspace_is_orthonormal_and_answers_no_worse_than_its_start() -> None:
    bed = beds()[FIND]
    panels = bed.panels(defence.EMBEDDING)
    clean, over = (panels[kind].x[:, 0] for kind in (CLEAN, WRITTEN))
    start = defences.spelling_components(over - clean, bed.pairs.word)[:2]
    basis = defences.learnt_subspace(bed, clean, over, start)
    assert torch.allclose(basis @ basis.T, torch.eye(2), atol=1e-5)

    def loss(axes: torch.Tensor) -> float:
        total = 0.0
        for x in (clean, over):
            image = torch.nn.functional.normalize(x - (x - clean.mean(0)) @ axes.T @ axes, dim=1)
            scale = torch.tensor(2.0).exp()
            total += float(torch.nn.functional.cross_entropy(scale * image @ bed.reader.classifier.T, bed.pairs.truth))
        return total

    assert loss(basis) < loss(start)


def test_what_costs_too_much_is_not_chosen_and_nothing_is_done_for_nothing() -> None:
    def at(amount: float, success: float, clean: float) -> Point:
        return Point("x", amount, (success,), (clean,), (0.0,), (0.0,))

    assert chosen([at(0, 0.5, 0.9), at(1, 0.3, 0.895), at(2, 0.1, 0.88)]) == 1
    assert chosen([at(0, 0.5, 0.9), at(1, 0.5, 0.9)]) == 0
    assert attack.meets(at(0, 0.5, 0.9), at(1, 0.25, 0.9)) and not attack.meets(at(0, 0.5, 0.9), at(1, 0.2, 0.88))


def test_stroop_on_pictures() -> None:
    made = bench()
    rows = on_pictures(made.subject, reader(), pairs_of(made, (), 80, SCORE), MANNER, 0)
    shown = {row["condition"]: row for row in rows if row["read by"] == "zero-shot"}
    assert list(shown) == list(CONDITIONS)
    assert shown["congruent"]["what is shown"] == shown["neutral"]["what is shown"] == 1
    assert shown["incongruent"]["what is shown"] == 0 and shown["incongruent"]["what is written"] == 1


def test_ink_has_its_colour() -> None:
    with pytest.MonkeyPatch.context() as patched:
        from sae.inputs import writing

        patched.setattr(lettered, "write", writing.write)
        picture = inked("owl", "sans", "red", (32, 48))
    red = picture.permute(1, 2, 0).reshape(-1, 3).float()
    darkest = red[red.sum(1).argmin()]
    assert picture.shape == (3, 32, 48) and darkest[0] > 150 and darkest[1:].max() < 60


def test_in_the_wild_finds_the_pictures_that_say_something_else() -> None:
    made = bench()
    found = wild.in_the_wild(made, reader(), PLACE, list(range(N, 2 * N)), [0])
    wrong = [number for number in range(len(ToyThings())) if number % 10 == 0 and not made.sample.match[number]]
    assert found.items.tolist() == wrong and found.n_with_text == len(wrong)
    assert found.says_text.all() and found.explained.all()
    assert (found.without == found.truth).all() and (found.masked == found.truth).all()
    row = found.rows()[0]
    assert row["answer"] == row["written"] != row["shown"] == row["without the latents"] == row["painted over"]
    untouched = wild.in_the_wild(made, reader(), PLACE, [], [])
    assert torch.equal(untouched.without, untouched.answer)


def test_the_command_on_a_small_model(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        from sae.inputs import writing

        patched.setattr(lettered, "write", writing.write)
        patched.setattr(written, "write", writing.write)
        image_catalog(tmp_path)
        found = attack.run(
            attack.Config(
                dictionary=str(tmp_path / "dictionary"), store=tmp_path / "store", n_pairs=12, n_tried=6,
                heights=(0.4,), fonts=("serif",),
            )
        )  # fmt: skip
    found.save(tmp_path / "found")
    assert found.verdict and np.isfinite(list(found.figures.values())).all()
    assert {row["table"] for row in found.rows} >= {"manner", "word", "stroop", "defence"}
    assert defences.HEADS + ": success" in found.figures
    for name in ("lab-attack", "lab-defence"):
        assert all((tmp_path / "found" / f"{name}.{kind}").stat().st_size for kind in ("png", "pdf", "csv"))


def test_mistakes(tmp_path: Path) -> None:
    common = {"dictionary": "d", "store": tmp_path}
    with pytest.raises(ConfigError, match="shares in"):
        attack.Config(**common, heights=(1.2,))
    with pytest.raises(ConfigError, match="fonts: no font 'comic'"):
        attack.Config(**common, fonts=("comic",))
    made = bench()
    with pytest.raises(EvaluationError, match=r"targets: no class 'owls'.*owl"):
        pairs_of(made, ("owls",), 8, SCORE)
    made.dictionary.provenance["hookpoint"] = "text.embedding"
    with pytest.raises(EvaluationError, match="hookpoint of the image tower"):
        attack.check(made)
    across = TopK(TopKConfig(d_sae=8, k=2), 2 * N + 1, 2 * N + 1)
    across.provenance = {"hookpoint": PLACE, "target_hookpoint": "visual.elsewhere"}
    with pytest.raises(EvaluationError, match=f"a transcoder, from {PLACE} to visual.elsewhere"):
        attack.check(replace(made, dictionary=across))


def test_answers_are_right_where_they_are_the_truth() -> None:
    answers = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    assert right(answers, torch.tensor([1, 1])).tolist() == [[True, False], [False, True]]
    pairs = Pairs(
        torch.zeros(2, 3, 1, 1, dtype=torch.uint8), torch.tensor([0, 0]), torch.tensor([2, 1]), ("a", "b", "c")
    )
    rows = written.by_word({"hit": torch.tensor([1.0, 0.0])}, pairs)
    assert [(row["word"], row["hit"], row["pictures"]) for row in rows] == [("c", 1.0, 1), ("b", 0.0, 1)]
    assert set(defence.KINDS) == {CLEAN, WRITTEN, WORDS}
