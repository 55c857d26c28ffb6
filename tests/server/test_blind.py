"""Blind tests of explanations in a real browser: what is asked, what is kept, and what cannot be seen."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import filed, served
from toy_catalog import SCRIPT, write_toy_catalog

from sae.features.catalog import Catalog
from sae.features.explanations import Explanation, Explanations
from sae.features.judging.agreement import Agreement

pytestmark = pytest.mark.browser
CARD = 5


@pytest.fixture(params=["text", "image"])
def rated(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A catalog of its own with one explanation, and where it is served; asked for before a tab, it outlives it."""
    folder = write_toy_catalog(tmp_path / "catalog", request.param, n_latents=20)
    one = Explanations(folder).add("latent", CARD, f"kites {SCRIPT}", "Ada")
    for address in served(folder):
        yield folder, one, address


def begin(tab: Any, address: str, one: Explanation, rater: str) -> None:
    tab.goto(f"{address}#/blind/latent/{CARD}/{one.id}")
    tab.click("text=Begin")
    tab.fill('dialog input[name="author"]', rater)
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".questions")


def asked(tab: Any, examples: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the example that the page shows, found by what can be seen of it."""
    shown = tab.locator(".shown")
    if examples[0].get("tokens"):
        text = shown.locator("bdi").first.text_content()
        (found,) = [one for one in examples if "".join(one["tokens"]).replace("\n", "↵") == text]
        assert shown.locator("mark").text_content() == found["tokens"][20].replace("\n", "↵")
    else:
        place = shown.locator("img").get_attribute("src")
        found = next(one for one in examples if one["image"] == place)
    return found


def test_two_raters_answer_all_and_both_are_kept(rated: Any, browser: Any, tab: Any) -> None:
    folder, one, address = rated
    examples = Catalog.open(folder)[CARD]["held_out"]
    begin(tab, address, one, "Bob")
    assert tab.inner_text(".blind h1") == f"kites {SCRIPT}"
    for _ in examples:
        tab.keyboard.press("y")
    tab.wait_for_selector("text=as the score of Bob")
    assert tab.inner_text(".score .big") == "0.500" and "Not distinguishable from chance" in tab.inner_text(".verdict")
    context = browser.new_context()
    second = context.new_page()
    begin(second, address, one, "Cleo")
    answers = []
    for number in range(len(examples)):
        assert second.inner_text(".count") == f"{number + 1} of 12"
        fires = asked(second, examples)["fires"]
        slip = not fires and all(truth or answer == 0 for answer, truth in answers)
        answers.append((float(fires or slip), fires))
        second.keyboard.press("y" if answers[-1][0] else "n")
    second.wait_for_selector("text=as the score of Cleo")
    expected = Agreement.of(*zip(*answers, strict=True))
    scores = {score.rater: score for score in Explanations(folder)[one.id].scores}
    assert scores["Bob"].value == 0.5 and scores["Cleo"].method == "blind" and scores["Cleo"].n == 12
    assert scores["Cleo"].value == pytest.approx(expected.value)
    assert scores["Cleo"].interval == pytest.approx(expected.interval)
    assert (expected.interval[0] > 0.5) == ("Better than chance" in second.inner_text(".verdict"))
    second.reload()
    second.wait_for_selector("text=as the score of Cleo")
    mean = (0.5 + expected.value) / 2
    assert "Bob" in second.inner_text(".raters") and f"Mean for this text: {mean:.3f}" in second.inner_text(".raters")
    assert len(Explanations(folder)[one.id].scores) == 2
    second.goto(f"{address}#/latent/{CARD}")
    assert f"score {mean:.3f} by 2 raters" in second.locator(".said li").first.inner_text()
    context.close()


def test_answers_wait_until_the_rater_comes_back(rated: Any, tab: Any) -> None:
    _, one, address = rated
    begin(tab, address, one, "Bob")
    for key in "yny":
        tab.keyboard.press(key)
    first = tab.inner_html(".shown")
    tab.reload()
    tab.wait_for_selector(".questions")
    assert tab.inner_text(".count") == "4 of 12" and tab.inner_html(".shown") == first
    tab.keyboard.press("u")
    assert tab.inner_text(".count") == "3 of 12"


def test_nothing_on_the_page_tells_what_fires(rated: Any, tab: Any) -> None:
    folder, one, address = rated
    examples = Catalog.open(folder)[CARD]["held_out"]
    begin(tab, address, one, "Bob")
    shapes, order = {True: set(), False: set()}, []
    for _ in range(11):
        found = asked(tab, examples)
        order.append(found["fires"])
        shown = tab.inner_html("main")
        assert "2.5" not in shown and "data-hint" not in shown and "--lit" not in shown and "canvas" not in shown
        assert found.get("about", {}).get("caption", "a caption") not in shown
        # Beside what is shown itself, both kinds are drawn alike.
        tags = "el => [...el.querySelectorAll('*')].map(e => e.tagName + [...e.attributes].map(a => a.name)).join()"
        shapes[found["fires"]].add(
            tab.eval_on_selector(".shown", tags) if "image" in found else tab.locator(".shown mark").count()
        )
        tab.keyboard.press("n")
    assert shapes[True] == shapes[False] and len(shapes[True]) == 1
    assert order not in (sorted(order), sorted(order, reverse=True))


def test_a_score_of_an_earlier_text_is_not_one_of_this(rated: Any, tab: Any) -> None:
    folder, one, address = rated
    said = Explanations(folder)
    said.score(one.id, "Bob", one.revision, 0.9, 12, (0.7, 1.0), "blind")
    edited = said.edit(one.id, "toys", "Ada", one.revision)
    begin(tab, address, edited, "Bob")
    assert "You have met these examples" in tab.inner_text(".questions")
    for _ in range(12):
        tab.keyboard.press("n")
    tab.wait_for_selector("text=as the score of Bob")
    assert "had met the examples" in tab.inner_text(".raters") and "of an earlier text" in tab.inner_text(".raters")
    assert said[one.id].score == 0.5


def test_a_page_from_files_tests_without_keeping(rated: Any, tab: Any, tmp_path: Path) -> None:
    folder, one, _ = rated
    tab.goto(f"{filed(folder, tmp_path)}#/blind/latent/{CARD}/{one.id}")
    tab.wait_for_selector(".questions")
    for _ in range(12):
        tab.keyboard.press("n")
    tab.wait_for_selector("text=so the score is not kept")
    assert tab.inner_text(".score .big") == "0.500"
    assert "scores" in json.dumps(one.to_json()) and not Explanations(folder)[one.id].scores


def test_what_cannot_be_tested_says_why(rated: Any, tab: Any) -> None:
    folder, _, address = rated
    tab.goto(f"{address}#/blind/latent/{CARD}/none")
    tab.wait_for_selector("text=There is no such explanation")
    neuron = Explanations(folder).add("neuron", 1, "a neuron", "Ada")
    tab.goto(f"{address}#/blind/neuron/1/{neuron.id}")
    tab.wait_for_selector("text=no held-out examples")
    tab.goto(f"{address}#/neuron/1")
    tab.wait_for_selector(f'.said [data-id="{neuron.id}"]')
    assert tab.locator("text=test it blind").count() == 0
