"""The pages in a real browser."""

from pathlib import Path
from typing import Any

import pytest
from conftest import filed
from toy_catalog import EMOJI, SCRIPT

from sae.features.catalog import Catalog

pytestmark = pytest.mark.browser


def go(tab: Any, address: str, hash: str = "#/") -> None:
    tab.goto(address + hash)
    shown(tab, hash)


def shown(tab: Any, hash: str) -> None:
    tab.wait_for_selector(f'main[data-shown="{hash}"]:not([aria-busy])')


def test_the_overview_shows_facts_scores_map_and_table(tab: Any, text_page: str) -> None:
    go(tab, text_page)
    assert "700" in tab.inner_text(".facts") and "31.8" in tab.inner_text(".facts")
    assert "neurons 0.840" in tab.inner_text(".report") and "worse" in tab.inner_text(".report")
    assert tab.locator(".map canvas").count() == 1
    assert tab.locator(".rows .row").count() < 60, "rows out of sight are not drawn"


def test_the_table_sorts_and_filters(tab: Any, text_page: str, text_catalog: Path) -> None:
    columns = Catalog.open(text_catalog).latents.columns
    go(tab, text_page)
    first = tab.locator('.rows [aria-rowindex="1"] .index')
    tab.wait_for_selector(".rows .row")
    assert first.inner_text() == str(columns["rate"].argmax())
    tab.click('[role=columnheader] button:text-is("strongest")')
    assert first.inner_text() == str(columns["max"].argmax())
    tab.click('[role=columnheader] button:text-is("strongest")')
    assert first.inner_text() == str(columns["max"].argmin())
    tab.fill('[aria-label="filter max"]', ">12")
    tab.fill('[aria-label="filter label_auc"]', "0.8..0.9")
    passing = (columns["max"] >= 12) & (columns["label_auc"] >= 0.8) & (columns["label_auc"] <= 0.9)
    assert tab.inner_text(".table > .note") == f"{passing.sum()} of 700 cards"
    tab.fill('[aria-label="filter max"]', "much")
    assert tab.get_attribute('[aria-label="filter max"]', "aria-invalid") == "true"


def test_the_table_filters_by_words_and_walks_by_keys(tab: Any, text_page: str) -> None:
    go(tab, text_page)
    tab.fill('[aria-label="filter by words"]', "docstring 17")
    tab.locator(".table > .note", has_text=" of 700").wait_for()
    tab.locator(".rows .title", has_text="docstring").first.wait_for()
    titles = tab.locator(".rows .title").all_inner_texts()
    assert titles and all("docstring" in title and "17" in title for title in titles)
    tab.focus(".viewport")
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        tab.keyboard.press(key)
    tab.wait_for_selector(".card h1")
    assert tab.inner_text(".card h1") == titles[1]


def test_scrolling_draws_the_last_row(tab: Any, text_page: str) -> None:
    go(tab, text_page)
    tab.evaluate("document.querySelector('.viewport').scrollTop = 1e9")
    tab.wait_for_selector('.rows [aria-rowindex="700"]')
    assert tab.locator('.rows [aria-rowindex="1"]').count() == 0


def test_a_click_on_the_map_opens_the_card_under_it(tab: Any, text_page: str, text_catalog: Path) -> None:
    columns = Catalog.open(text_catalog).latents.columns
    x, y = columns["map_x"], columns["map_y"]
    go(tab, text_page)
    box = tab.locator(".map canvas").bounding_box()
    # The leftmost point lies where the whole map's scale puts it, with eight hundredths of the frame left free.
    index = int(x.argmin())
    scale = min(box["width"] / (x.max() - x.min()), box["height"] / (y.max() - y.min())) * 0.92
    right = box["width"] / 2 + (x[index] - (x.min() + x.max()) / 2) * scale
    down = box["height"] / 2 - (y[index] - (y.min() + y.max()) / 2) * scale
    tab.locator(".map canvas").hover(position={"x": float(right), "y": float(down)})
    tab.wait_for_selector(".map-tip:visible")
    tab.locator(".map canvas").click(position={"x": float(right), "y": float(down)})
    shown(tab, f"#/latent/{index}")


def test_keys_go_to_the_next_and_the_previous_card(tab: Any, text_page: str) -> None:
    go(tab, text_page, "#/latent/5")
    for key, index in (("j", 6), ("ArrowRight", 7), ("k", 6), ("ArrowLeft", 5)):
        tab.keyboard.press(key)
        shown(tab, f"#/latent/{index}")
    assert tab.inner_text(".kicker").startswith("latent 5")
    go(tab, text_page, "#/latent/0")
    tab.keyboard.press("k")
    assert tab.evaluate("location.hash") == "#/latent/0"


def test_a_press_opens_the_whole_context(tab: Any, text_page: str) -> None:
    go(tab, text_page, "#/latent/5")
    line = tab.locator(".line").first
    line.focus()
    tab.keyboard.press("Enter")
    assert line.get_attribute("aria-expanded") == "true"
    assert tab.locator(".whole .token").count() == 41
    tab.locator(".whole .token.strongest").hover()
    assert "activation" in tab.inner_text(".hint") and "loss" in tab.inner_text(".hint")


def test_hostile_text_shows_as_text(tab: Any, text_page: str) -> None:
    go(tab, text_page, "#/latent/0")
    tab.locator(".line").first.click()
    assert tab.title() == "latent 0 · builtin:stdlib-1l"
    assert tab.inner_text(".card h1") == SCRIPT
    whole = tab.text_content(".whole")
    assert EMOJI in whole and "مرحبا" in whole and "‹202E›" in whole and "‹0000›" in whole and "__proto__" in whole
    assert "… +9,600" in whole
    assert tab.locator("main script, main img").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_neurons_in_a_card_get_their_titles_and_open(tab: Any, text_page: str) -> None:
    go(tab, text_page, "#/latent/5")
    link = tab.locator(".neurons a").first
    tab.wait_for_selector(".neurons a .index")
    target = link.get_attribute("href")
    link.click()
    shown(tab, target)
    assert "What it mixes" in tab.inner_text(".mixture") and "not resolved" in tab.inner_text(".mixture")


def test_directions_have_a_table_and_cards_that_point_to_latents(tab: Any, text_page: str) -> None:
    go(tab, text_page)
    tab.click('.tabs a:text-is("directions")')
    shown(tab, "#/cards/direction")
    tab.wait_for_selector(".rows .row")
    assert tab.locator(".rows .row").count() == 3
    go(tab, text_page, "#/direction/1")
    told = tab.inner_text(".carried")
    assert "explains 30 % of the variance along it, of a random direction 5 %" in told
    assert "the best 5 explain 50 %, of a random direction 17 %" in told
    assert "by what they read" in tab.inner_text(".neighbours")
    tab.wait_for_selector(".carried a .index")
    target = tab.get_attribute(".carried a >> nth=0", "href")
    tab.click(".carried a >> nth=0")
    shown(tab, target)
    assert target.startswith("#/latent/")


def test_relatives_name_their_dictionary(tab: Any, text_page: str) -> None:
    go(tab, text_page, "#/latent/5")
    headings = tab.locator(".neighbours h3").all_inner_texts()
    assert "parents in topk-256" in headings and "children in topk-4096" in headings


def test_two_cards_side_by_side(tab: Any, text_page: str) -> None:
    go(tab, text_page, "#/latent/5")
    tab.keyboard.press("c")
    tab.keyboard.type("9")
    tab.keyboard.press("Enter")
    shown(tab, "#/compare/latent/5/latent/9")
    boxes = [card.bounding_box() for card in tab.locator(".card").all()]
    assert len(boxes) == 2 and boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]


def test_the_code_of_a_card_finds_it(tab: Any, text_page: str) -> None:
    go(tab, text_page, "#/neuron/3")
    tab.click('[data-tool="code"]')
    names: dict[str, Any] = {}
    exec(tab.inner_text(".quote code"), names)
    assert names["card"].kind == "neuron" and names["card"].index == 3


def test_search_looks_through_words_and_says_where(tab: Any, text_page: str) -> None:
    go(tab, text_page)
    tab.keyboard.press("/")
    tab.keyboard.type("dunder 31")
    tab.keyboard.press("Enter")
    shown(tab, "#/search?q=dunder+31")
    titles = tab.locator(".hits a bdi").all_inner_texts()
    assert titles and all("dunder" in title and "31" in title for title in titles)
    assert tab.locator(".hits mark").first.inner_text() == "dunder"


def test_an_explanation_is_there_after_reloading(tab: Any, text_page: str) -> None:
    go(tab, text_page, "#/latent/8")
    tab.keyboard.press("e")
    tab.keyboard.type("opens <b>brackets</b>")
    tab.click(".say button:text-is('Add')")
    tab.fill("dialog [name=author]", "Ada")
    tab.click("dialog button:text-is('Continue')")
    tab.wait_for_selector(".said .words")
    tab.reload()
    shown(tab, "#/latent/8")
    tab.wait_for_selector(".said .words")
    assert tab.inner_text(".said .words") == "opens <b>brackets</b>"
    tab.click('.said [aria-label="agree"]')
    tab.wait_for_selector('.said [aria-pressed="true"]')
    tab.click(".said button:text-is('edit')")
    tab.fill(".said textarea", "opens a bracket")
    tab.click(".said button:text-is('Save')")
    tab.locator(".said .words", has_text="opens a bracket").wait_for()
    assert "1 earlier text" in tab.inner_text(".said .about") and tab.inner_text(".said .tally") == "1"


def test_images_lie_under_their_heat_map(tab: Any, image_page: str) -> None:
    go(tab, image_page, "#/latent/5")
    picture = tab.locator(".picture").first
    assert picture.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    assert picture.locator("canvas").evaluate("canvas => [canvas.width, canvas.height]") == [4, 4]
    alpha = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 4, 4).data].filter((_, i) => i % 4 === 3)"
    veil = picture.locator("canvas").evaluate(alpha)
    assert min(veil) < 40 < 120 < max(veil), "the veil lifts over the strongest patch"
    tab.mouse.move(2, 2)
    tab.keyboard.press("h")
    assert picture.locator("canvas").evaluate("canvas => getComputedStyle(canvas).opacity") == "0"


@pytest.mark.parametrize("hash", ["#/latent/700", "#/latent/99999999999", "#/circuit/3", "#/latent/-1", "#/../etc"])
def test_what_is_not_there_is_said_so(tab: Any, text_page: str, hash: str) -> None:
    tab.goto(text_page + hash)
    tab.wait_for_selector(".missing-page")
    tab.complaints[:] = [one for one in tab.complaints if "404" not in one]


@pytest.mark.parametrize("hash", ["#/", "#/latent/0", "#/neuron/3", "#/search?q=dunder", "#/compare/latent/0/latent/5"])
@pytest.mark.parametrize("width", [360, 800])
def test_no_page_is_wider_than_the_window(tab: Any, text_page: str, hash: str, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 800})
    go(tab, text_page, hash)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


CONTRAST = (Path(__file__).parent / "contrast.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("hash", ["#/", "#/latent/5", "#/neuron/3", "#/search?q=dunder"])
def test_text_has_the_contrast_of_wcag_aa(tab: Any, image_page: str, text_page: str, hash: str, scheme: str) -> None:
    tab.emulate_media(color_scheme=scheme)
    for page in (image_page, text_page):
        go(tab, page, hash)
        assert tab.evaluate(CONTRAST) == []


def test_the_theme_is_kept(tab: Any, text_page: str) -> None:
    tab.emulate_media(color_scheme="light")
    go(tab, text_page)
    tab.click("#theme")
    tab.reload()
    shown(tab, "#/")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 27)"


def test_the_export_works_from_the_disk(tab: Any, image_catalog: Path, tmp_path: Path) -> None:
    address = filed(image_catalog, tmp_path)
    go(tab, address)
    tab.wait_for_selector(".rows .title a:text-matches('[a-z]')")
    tab.click('.rows [aria-rowindex="1"] a')
    tab.wait_for_selector(".card img")
    assert tab.locator(".picture img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    tab.wait_for_selector(".neighbours a .index")
    assert tab.locator(".say").count() == 0, "nothing can be written into files"
    go(tab, address, "#/search?q=striped")
    assert tab.locator(".hits a").count() > 0


def test_a_card_alone_is_one_page_that_loads_nothing(tab: Any, image_catalog: Path, tmp_path: Path) -> None:
    requests: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    page = tmp_path / "card.html"
    page.write_text(Catalog.open(image_catalog)[0].to_html(), encoding="utf-8")
    tab.goto(page.as_uri())
    assert tab.inner_text("h1") == SCRIPT
    assert tab.locator(".picture img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]


def test_a_card_in_a_notebook_is_a_frame_that_cannot_reach_out(tab: Any, text_catalog: Path, tmp_path: Path) -> None:
    page = tmp_path / "notebook.html"
    page.write_text(
        f"<!doctype html><title>notebook</title>{Catalog.open(text_catalog)[0]._repr_html_()}", encoding="utf-8"
    )
    tab.goto(page.as_uri())
    frame = tab.frame_locator("iframe")
    assert frame.locator("h1").inner_text() == SCRIPT
    assert frame.locator("h1").evaluate("() => origin") == "null"
    assert tab.title() == "notebook"
