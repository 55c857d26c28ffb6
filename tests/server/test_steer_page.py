"""The panel of steering in a real browser: a text or a picture, a dose, and what is answered before and after."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import served
from live_catalogs import image_catalog, picture_bytes, steering, text_catalog

from sae.features.live.asks import asks_of
from sae.features.live.loaded import Loaded

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return text_catalog(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return image_catalog(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def text_live(text: Loaded) -> Iterator[str]:
    yield from served(text.catalog.path, asks_of(text) | {"steer": steering(text)})


@pytest.fixture(scope="module")
def image_live(image: Loaded) -> Iterator[str]:
    yield from served(image.catalog.path, asks_of(image) | {"steer": steering(image)})


def firing(loaded: Loaded) -> int:
    return max(range(len(loaded.strongest)), key=lambda one: loaded.strongest[one])


def odds(value: float) -> str:
    return "<0.001" if value < 0.0005 else f"{value:.3f}"


def answered(loaded: Loaded, **question: Any) -> list[list[str]]:
    """Return what the page is to show: every answer with both its shares."""
    found = steering(loaded)({"latent": firing(loaded)} | question)["answers"]
    return sorted([one["name"], odds(one["before"]), odds(one["after"])] for one in found)


def wait_for(tab: Any, answers: list[list[str]]) -> None:
    """Wait until the page shows these answers."""
    values = "[row.dataset.answer, ...[...row.querySelectorAll('.value')].map(one => one.textContent)]"
    shown = f"[...document.querySelectorAll('[data-answer]')].map(row => {values}).sort()"
    tab.wait_for_function(f"answers => JSON.stringify({shown}) === JSON.stringify(answers.sort())", arg=answers)


def test_a_text_is_steered_from_its_card(tab: Any, text: Loaded, text_live: str) -> None:
    # Before the page asks: a subject answers one at a time.
    more, less, last = (
        answered(text, kind="add", strength=dose, text="The cat sat", at=at)
        for dose, at in ((2.0, "all"), (-3.0, "all"), (-3.0, "-1"))
    )
    tab.goto(f"{text_live}#/latent/{firing(text)}")
    tab.click(".tools >> text=steer")
    tab.wait_for_selector(".before-and-after")
    tab.fill("textarea", "The cat sat")
    wait_for(tab, more)
    tab.wait_for_selector("text=random latents that write as much")
    assert tab.locator(".written .excerpt").count() == 2
    before = tab.get_attribute(".curve-now", "x1")
    tab.locator(".dose").fill("-3")
    wait_for(tab, less)
    assert tab.inner_text("output") == "−3" and tab.get_attribute(".curve-now", "x1") != before
    tab.fill(".at input", "-1")
    wait_for(tab, last)
    assert "at this position" in tab.inner_text(".steered .note")
    tab.fill(".at input", "99")
    tab.wait_for_selector(".problem:visible")
    assert "at: 99 is no position that may change" in tab.inner_text(".problem")
    assert tab.get_attribute(".at input", "aria-invalid") == "true" and not tab.is_visible(".steered")
    tab.fill(".at input", "")
    wait_for(tab, less)
    assert tab.get_attribute(".at input", "aria-invalid") == "false"
    tab.fill("textarea", "The cat sat on the mat. " * 20)
    tab.wait_for_selector(".problem:visible")
    assert "at most 64" in tab.inner_text(".problem") and not tab.is_visible(".steered")
    tab.wait_for_load_state("networkidle")
    assert tab.complaints and all("400" in one for one in tab.complaints)
    tab.complaints.clear()


def test_a_picture_is_there_from_the_start_and_another_takes_its_place(
    tab: Any, image: Loaded, image_live: str, tmp_path: Path
) -> None:
    picture = base64.b64encode(picture_bytes()).decode()
    removed = answered(image, kind="remove", strength=1.0, image=picture)
    tab.goto(f"{image_live}#/steer/latent/{firing(image)}")
    tab.wait_for_selector("[data-answer=cat]")
    assert tab.locator("[data-answer]").count() == 2 and tab.locator(".choices img").count() > 0
    tab.click(".doses >> text=remove")
    assert "numbers such as 3 -1 or ranges such as 0:4 from 0 to 16, the class token and then" in tab.inner_text(".at")
    assert "so large a share of its activation" in tab.inner_text(".doses")
    assert tab.get_attribute(".dose", "max") == "2" and tab.inner_text("output") == "1"
    (tmp_path / "red.png").write_bytes(picture_bytes())
    tab.set_input_files("input[type=file]", tmp_path / "red.png")
    wait_for(tab, removed)


def test_without_the_subject_the_page_says_what_loads_it(tab: Any, text: Loaded) -> None:
    for address in served(text.catalog.path):
        tab.goto(f"{address}#/steer/latent/1")
        tab.wait_for_selector(".missing-subject")
        assert "--live STORE" in tab.inner_text(".missing-subject")
        tab.goto(f"{address}#/latent/1")
        tab.wait_for_selector(".tools")
        assert tab.locator(".tools >> text=steer").count() == 0
        tab.goto("about:blank")  # so that nothing is still asked for when the server stops
