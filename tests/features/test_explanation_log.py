"""The log of explanations: nothing is lost, whoever writes at once, and the state is what the acts add up to."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae.errors import CatalogError
from sae.features.explanations import FILE, Explanation, Explanations, StaleEditError

ANY_TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60).filter(str.strip)


def test_what_was_added_is_there_for_another_reader(tmp_path: Path) -> None:
    ours, theirs = Explanations(tmp_path), Explanations(tmp_path)
    added = ours.add("latent", 3, "a kite", "Ada", given=0.7)
    assert theirs.of("latent", 3) == [added] and theirs.of("neuron", 3) == [] and list(theirs) == [added]
    assert added.method == "person" and added.revision == added.id and added.given == 0.7 and added.score is None


def test_an_edit_keeps_the_old_text_and_drops_what_was_given_for_it(tmp_path: Path) -> None:
    said = Explanations(tmp_path)
    first = said.add("latent", 3, "a kite", "model", method="patterns", given=0.7)
    edited = said.edit(first.id, "kites", "Bob", first.revision)
    assert (edited.text, edited.author, edited.given) == ("kites", "Bob", None)
    assert [(old["text"], old["author"]) for old in edited.history] == [("a kite", "model")]


def test_of_two_edits_of_one_text_the_second_is_refused(tmp_path: Path) -> None:
    ours, theirs = Explanations(tmp_path), Explanations(tmp_path)
    first = ours.add("latent", 3, "a kite", "Ada")
    theirs.edit(first.id, "kites", "Bob", first.revision)
    with pytest.raises(StaleEditError, match="'kites' in the meantime"):
        ours.edit(first.id, "toys", "Ada", first.revision)
    assert ours[first.id].text == "kites"


def test_the_last_vote_of_an_author_counts(tmp_path: Path) -> None:
    said = Explanations(tmp_path)
    one, two = said.add("latent", 3, "a kite", "Ada"), said.add("latent", 3, "a bird", "Ada")
    for author, value in (("Ada", 1), ("Bob", 1), ("Ada", -1), ("Cleo", 1), ("Cleo", 0)):
        said.vote(two.id, author, value)
    said.vote(two.id, "Dan", 1)
    assert said[two.id].votes == {"Bob": 1, "Ada": -1, "Dan": 1} and said[two.id].tally == 1
    assert [found.id for found in said.of("latent", 3)] == [two.id, one.id]


def scored(said: Explanations, name: str, rater: str, value: float, revision: str | None = None) -> Explanation:
    return said.score(name, rater, revision or said[name].revision, value, 20, (value - 0.1, value + 0.1), "blind")


def test_the_score_is_the_mean_of_the_raters_of_the_present_text(tmp_path: Path) -> None:
    ours, theirs = Explanations(tmp_path), Explanations(tmp_path)
    first = ours.add("latent", 3, "a kite", "Ada", given=0.99)
    scored(ours, first.id, "Bob", 0.8)
    scored(theirs, first.id, "Cleo", 0.6)
    found = scored(ours, first.id, "Bob", 0.9)
    assert found.score == pytest.approx(0.7), "the second try of a rater, who knows the answers, does not count"
    assert [(score.rater, score.value, score.n, score.interval) for score in found.scores] == [
        ("Bob", 0.8, 20, (0.8 - 0.1, 0.8 + 0.1)),
        ("Cleo", 0.6, 20, (0.6 - 0.1, 0.6 + 0.1)),
    ]
    assert found.to_json()["score"] == found.score and json.dumps(found.to_json())


def test_a_score_stands_for_the_text_that_was_tested(tmp_path: Path) -> None:
    said = Explanations(tmp_path)
    first = scored(said, said.add("latent", 3, "a kite", "Ada").id, "Bob", 0.8)
    edited = said.edit(first.id, "kites", "Ada", first.revision)
    assert edited.score is None and [score.revision for score in edited.scores] == [first.revision]
    late = scored(said, first.id, "Cleo", 0.6, first.revision)
    assert late.score is None, "whoever began before the edit has tested the old text"
    again = scored(said, first.id, "Bob", 0.7)
    assert again.score == 0.7 and [score.again for score in again.scores] == [False, False, True]
    other = said.add("latent", 3, "toys", "Ada")
    assert scored(said, other.id, "Cleo", 0.6).scores[0].again, "the examples of a card are the same for all its texts"
    assert not scored(said, said.add("latent", 4, "a", "Ada").id, "Cleo", 0.6).scores[0].again


def write_many(folder: Path, who: int, shared: str, n: int) -> None:
    said = Explanations(folder)
    for number in range(n):
        said.add("latent", number, f"{who} says {number} " + "x" * 500, f"writer {who}")
        said.vote(shared, f"writer {who}-{number}", 1)
        scored(said, shared, f"rater {who}-{number}", 0.75)


def test_writers_in_several_processes_lose_nothing(tmp_path: Path) -> None:
    said = Explanations(tmp_path)
    shared = said.add("latent", 999, "shared", "Ada").id
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(tmp_path, who, shared, 25)) for who in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert all(writer.exitcode == 0 for writer in writers)
    assert said[shared].tally == 100 and len(said[shared].scores) == 100 and said[shared].score == 0.75
    texts = {one.text.split(" x")[0] for one in said}
    assert texts == {"shared"} | {f"{who} says {number}" for who in range(4) for number in range(25)}
    lines = (tmp_path / FILE).read_text().splitlines()
    assert len(lines) == 301 and all(json.loads(line) for line in lines)


def test_a_line_torn_by_a_crash_costs_that_line_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = Explanations(tmp_path)
    first = said.add("latent", 3, "a kite", "Ada")
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"act": "add", "kind": "lat')
    second = said.add("latent", 3, "a bird", "Bob")
    assert {one.id for one in Explanations(tmp_path)} == {first.id, second.id} == {one.id for one in said}
    assert "is no act and is left out" in caplog.text


@settings(max_examples=30, deadline=None)
@given(text=ANY_TEXT, author=ANY_TEXT)
def test_any_text_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, text: str, author: str) -> None:
    folder = tmp_path_factory.mktemp("said")
    Explanations(folder).add("latent", 3, text, author)
    (read,) = Explanations(folder).of("latent", 3)
    assert (read.text, read.author) == (text, author)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda said: said.add("latents", 3, "a", "Ada"), "Did you mean 'latent'"),
        (lambda said: said.add("latent", 3, " ", "Ada"), "text must be"),
        (lambda said: said.add("latent", 3, "a" * 2001, "Ada"), "1 to 2000 characters"),
        (lambda said: said.add("latent", 3, "\ud800", "Ada"), "text must be"),
        (lambda said: said.add("latent", 3, "a", ""), "author must be"),
        (lambda said: said.add("latent", 3, "a", "Ada", given="high"), "given must be a number"),
        (lambda said: said.vote("none", "Ada", 1), "no explanation 'none'"),
        (lambda said: said.vote("none", "Ada", 5), "must be -1, 0 or 1"),
        (lambda said: said.score("none", "Ada", "", 0.5, 20, (0.4, 0.6), "blind"), "no explanation 'none'"),
    ],
)
def test_what_cannot_be_said(tmp_path: Path, act: Any, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        act(Explanations(tmp_path))
    assert list(Explanations(tmp_path)) == []


@pytest.mark.parametrize(
    ("value", "n", "interval", "revision", "message"),
    [
        (0.5, 20, (0.4, 0.6), "other", "no text of revision 'other'"),
        (0.5, 20, (0.6, 0.4), None, "within its interval"),
        (0.5, 20, 0.4, None, "within its interval"),
        (0.5, 20, (0.4,), None, "within its interval"),
        (1.5, 20, (0.4, 1.6), None, "0 to 1"),
        (float("nan"), 20, (0.4, 0.6), None, "0 to 1"),
        ("0.5", 20, (0.4, 0.6), None, "0 to 1"),
        (0.5, 0, (0.4, 0.6), None, "n must count"),
        (0.5, True, (0.4, 0.6), None, "n must count"),
    ],
)
def test_what_is_no_score(
    tmp_path: Path, value: Any, n: Any, interval: Any, revision: str | None, message: str
) -> None:
    said = Explanations(tmp_path)
    one = said.add("latent", 3, "a kite", "Ada")
    with pytest.raises(CatalogError, match=message):
        said.score(one.id, "Bob", revision or one.revision, value, n, interval, "blind")
    assert said[one.id].scores == ()
