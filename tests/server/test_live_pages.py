"""Questions to a loaded subject, over HTTP and in a real browser."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from conftest import filed, served
from live_catalogs import COLOURS, image_catalog, picture_bytes, text_catalog
from starlette.testclient import TestClient
from toy_catalog import write_toy_catalog

from sae.errors import CatalogError
from sae.features.catalog import Catalog
from sae.features.live.asks import asks_of
from sae.features.live.loaded import Loaded
from sae.features.live.opening import open_loaded
from sae.server import live as module
from sae.server.app import create_app

ORIGIN = "http://127.0.0.1:8000"
HERE = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}
CONTRAST = (Path(__file__).parent / "contrast.js").read_text()
LIT = "all => all.filter(e => e.style.getPropertyValue('--lit') > 0).map(e => Number(e.dataset.token))"
PIXEL = "[...document.querySelector('.pictured canvas').getContext('2d').getImageData(16, 16, 1, 1).data]"
SENTENCE = "The cat sat\non the <b>mat</b>"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return text_catalog(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return image_catalog(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def text_live(text: Loaded) -> Iterator[str]:
    yield from served(text.catalog.path, asks_of(text))


@pytest.fixture(scope="module")
def image_live(image: Loaded) -> Iterator[str]:
    yield from served(image.catalog.path, asks_of(image))


@pytest.fixture(scope="module")
def client(text: Loaded) -> TestClient:
    return TestClient(create_app(text.catalog, asks_of(text)), base_url=ORIGIN, raise_server_exceptions=False)


def pictures(folder: Path, name: str, n: int) -> list[str]:
    files = []
    for number in range(n):
        colour = tuple(min(255, channel + 3 * number) for channel in COLOURS[name])
        files.append(folder / f"{name}{number}.png")
        files[-1].write_bytes(picture_bytes(colour))  # type: ignore[arg-type]
    return [str(file) for file in files]


def go(tab: Any, address: str, hash: str) -> None:
    tab.goto(address + hash)
    tab.wait_for_selector(f"main[data-shown={json.dumps(hash)}]:not([aria-busy])")


def test_questions_are_named_and_answered(client: TestClient, text: Loaded) -> None:
    about = client.get("/api/live").json()
    assert set(about) == {"sentence", "contrast", "circuit"} and about["contrast"]["takes"] == "texts"
    answer = client.post("/api/live/sentence", headers=HERE, json={"text": "The cat"})
    assert answer.status_code == 200 and answer.json() == json.loads(
        json.dumps(asks_of(text)["sentence"].answer("The cat"))
    )


def test_serving_with_the_store_loads_the_subject(text: Loaded, image: Loaded) -> None:
    stores = [one.catalog.path.parent / "store" for one in (text, image)]
    assert list(asks_of(open_loaded(text.catalog, stores[0]))) == ["sentence", "contrast", "circuit"]
    with pytest.raises(CatalogError, match="was not made from"):
        open_loaded(text.catalog, stores[1])


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("sentence", b'{"text": ""}', 400),
        ("sentence", b'{"text": "' + b"mat " * 300 + b'"}', 400),
        ("sentence", b'{"text": "\\ud800"}', 400),
        ("sentence", b"[1]", 400),
        ("sentence", b"{", 400),
        ("contrast", b'{"a": {"texts": ["x"]}}', 400),
        ("image", b'{"image": ""}', 404),
        ("..%2fabout", b"{}", 404),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_reason(
    client: TestClient, name: str, body: bytes, status: int
) -> None:
    answer = client.post(f"/api/live/{name}", content=body, headers=HERE | {"Content-Type": "application/json"})
    assert answer.status_code == status and (status == 404 or answer.json()["error"])


@pytest.mark.parametrize("content", [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF89a", b""])
def test_what_is_no_picture_is_refused(image: Loaded, content: bytes) -> None:
    client = TestClient(create_app(image.catalog, asks_of(image)), base_url=ORIGIN, raise_server_exceptions=False)
    body = {"image": base64.b64encode(content).decode()}
    answer = client.post("/api/live/image", headers=HERE, json=body)
    assert answer.status_code == 400 and "picture" in answer.json()["error"]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Host": "rebound.example", "Origin": "http://rebound.example"}, 400),
    ],
)
def test_other_sites_may_not_ask(client: TestClient, changed: dict[str, str], status: int) -> None:
    headers = HERE | {"Content-Type": "application/json"} | changed
    assert client.post("/api/live/sentence", content=b'{"text": "a"}', headers=headers).status_code == status


def test_questions_too_large_are_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_QUESTION_BYTES", 1000)
    assert client.post("/api/live/sentence", headers=HERE, json={"text": "a" * 2000}).status_code == 413


def test_without_a_subject_there_is_nothing_to_ask(tmp_path: Path) -> None:
    client = TestClient(create_app(Catalog.open(write_toy_catalog(tmp_path, n_latents=5))), base_url=ORIGIN)
    assert client.get("/api/live").json() == {}
    answer = client.post("/api/live/sentence", headers=HERE, json={"text": "a"})
    assert answer.status_code == 404 and "--live STORE" in answer.json()["error"]


@pytest.mark.browser
def test_a_sentence_is_shaded_while_it_is_typed(tab: Any, text_live: str, text: Loaded) -> None:
    go(tab, text_live, "#/ask")
    tab.locator("textarea").press_sequentially("The c")
    tab.fill("textarea", SENTENCE)
    expected = asks_of(text)["sentence"].answer(SENTENCE)
    tab.wait_for_function("n => document.querySelectorAll('.tokens .token').length === n", arg=len(expected["tokens"]))
    assert tab.text_content(".tokens .unread") == "<bos>" and "<b>" in tab.text_content(".tokens")
    assert tab.locator(".tokens b").count() == 0
    place = 3
    tab.click(f'[data-token="{place}"]')
    fired = [(at[2] or 0, one) for one in expected["latents"] for at in one["at"] if at[0] == place]
    best = max(fired, key=lambda pair: pair[0])[1]
    first = tab.locator(".choice li").first
    assert first.get_attribute("data-latent") == str(best["index"])
    assert first.locator("a").get_attribute("href") == f"#/latent/{best['index']}"
    first.locator(".lamp").click()
    assert f"Shaded by latent {best['index']}" in tab.inner_text(".shading")
    lit = tab.eval_on_selector_all(".tokens [data-token]", LIT)
    assert lit == [position for position, value, _ in best["at"] if value / best["max"] >= 0.0005]
    tab.focus(f'[data-token="{place}"]')
    tab.keyboard.press("ArrowRight")
    assert tab.get_attribute(f'[data-token="{place + 1}"]', "aria-pressed") == "true"
    assert tab.evaluate("document.activeElement.dataset.token") == str(place + 1)


@pytest.mark.browser
def test_a_sentence_is_in_the_address_and_opens_again(tab: Any, text_live: str) -> None:
    go(tab, text_live, "#/ask")
    tab.fill("textarea", "A dog & a cat")
    tab.wait_for_selector(".tokens .token")
    address = tab.url
    assert address.endswith("#/ask?sentence=A+dog+%26+a+cat")
    tab.goto("about:blank")
    tab.goto(address)
    tab.wait_for_selector(".tokens .token")
    assert tab.input_value("textarea") == "A dog & a cat"
    tab.click(".choice a >> nth=0")
    tab.wait_for_selector(".card h1")


@pytest.mark.browser
def test_a_refusal_is_shown_and_the_next_answer_takes_its_place(tab: Any, text_live: str) -> None:
    go(tab, text_live, "#/ask")
    tab.fill("textarea", "The cat sat on the mat. " * 20)
    tab.wait_for_selector(".problem:visible")
    assert "at most 64" in tab.inner_text(".problem") and not tab.is_visible(".sentence")
    tab.fill("textarea", "The cat")
    tab.wait_for_selector(".tokens .token")
    assert not tab.is_visible(".problem")
    # The browser writes a failed request to its console by itself.
    assert len(tab.complaints) == 1 and "400" in tab.complaints[0]
    tab.complaints.clear()


@pytest.mark.browser
def test_only_the_newest_answer_is_shown(tab: Any, text_live: str) -> None:
    go(tab, text_live, "#/ask")
    seen: list[str] = []

    def slowly(route: Any) -> None:
        seen.append(json.loads(route.request.post_data)["text"])
        if len(seen) == 1:
            tab.fill("textarea", "amused")
            tab.wait_for_timeout(300)
        route.continue_()

    tab.route("**/api/live/sentence", slowly)
    tab.fill("textarea", "The dog ran")
    tab.wait_for_function("() => document.querySelector('.tokens')?.textContent.includes('amused')")
    assert seen == ["The dog ran", "amused"]


@pytest.mark.browser
def test_a_phrase_gets_the_latents_that_stand_for_it(tab: Any, image_live: str, image: Loaded) -> None:
    go(tab, image_live, "#/ask")
    tab.fill(".asked", "cat")
    tab.wait_for_selector(".nearest tbody tr")
    expected = asks_of(image)["phrase"].answer("cat")["latents"]
    shown = tab.eval_on_selector_all(".nearest tbody tr", "rows => rows.map(row => Number(row.dataset.latent))")
    assert shown == [one["index"] for one in expected][: len(shown)] and len(shown) == 20
    assert "of 1 other words" in tab.inner_text(".finding")
    assert tab.evaluate("location.hash") == "#/ask?phrase=cat"
    tab.click('.orders button:text-is("dog")')
    tab.wait_for_function("() => location.hash === '#/ask?phrase=dog'")


@pytest.mark.browser
def test_a_picture_shows_where_latents_fire(tab: Any, image_live: str, image: Loaded, tmp_path: Path) -> None:
    go(tab, image_live, "#/ask?image=")
    (file,) = pictures(tmp_path, "cat", 1)
    tab.set_input_files('input[type="file"]', file)
    tab.wait_for_selector(".choice li")
    expected = asks_of(image)["image"].answer(Path(file).read_bytes())
    shown = tab.eval_on_selector_all(".choice li", "rows => rows.map(row => Number(row.dataset.latent))")
    assert shown == [one["index"] for one in expected["latents"]][: len(shown)]
    tab.wait_for_function("() => document.querySelector('.pictured .picture canvas').width === 32")
    colour = tab.evaluate(
        "[...document.querySelector('.pictured canvas').getContext('2d').getImageData(16, 16, 1, 1).data]"
    )
    assert colour[:3] == list(COLOURS["cat"])
    veil = tab.locator(".pictured .veil")
    assert (veil.get_attribute("width"), veil.get_attribute("height")) == ("4", "4")
    tab.click(".choice .lamp >> nth=1")
    assert f"latent {shown[1]} fires" in tab.inner_text(".pictured")
    (tmp_path / "bad.png").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    tab.set_input_files('input[type="file"]', str(tmp_path / "bad.png"))
    tab.wait_for_selector(".problem:visible")
    assert "no picture" in tab.inner_text(".problem") and not tab.is_visible(".pictured")
    tab.complaints.clear()


@pytest.mark.browser
def test_texts_are_contrasted(tab: Any, text_live: str) -> None:
    go(tab, text_live, "#/contrast")
    tab.click("text=Compare")
    assert "Set A is empty" in tab.inner_text(".problem")
    texts = {"A": ["The cat", "the cat sat", "cat"], "B": ["A dog", "dog ran", "a dog"]}
    for name, lines in texts.items():
        tab.fill(f'[aria-label="texts of set {name}"]', "\n".join(lines) + "\n\n")
    tab.click("text=Compare")
    tab.wait_for_selector(".differences")
    assert "no effect can be told from chance" in tab.inner_text(".finding") and "0.1" in tab.inner_text(".finding")
    assert tab.locator(".differences .passes").count() == 0 and tab.locator(".differences .threshold").count() == 0
    tab.click(".rug-button >> nth=0")
    assert all(line in tab.inner_text(".opened") for line in (*texts["A"], *texts["B"]))
    tab.click(".rug-button >> nth=0")
    assert tab.locator(".opened").count() == 0
    address = tab.url
    tab.goto("about:blank")
    tab.goto(address)
    tab.wait_for_selector(".differences")
    assert tab.input_value('[aria-label="texts of set B"]') == "\n".join(texts["B"]) + "\n\n"


@pytest.mark.browser
def test_dropped_pictures_are_contrasted(tab: Any, image_live: str, tmp_path: Path) -> None:
    go(tab, image_live, "#/contrast")
    for name, concept in (("A", "cat"), ("B", "dog")):
        tab.set_input_files(f".set-{name.lower()} input[type=file]", pictures(tmp_path, concept, 8))
        tab.wait_for_function(f"() => document.querySelectorAll('.set-{name.lower()} .thumbs li').length === 8")
    tab.click("text=Compare")
    tab.wait_for_selector(".differences .passes")
    assert "beyond chance" in tab.inner_text(".finding")
    assert tab.locator(".differences .control").count() == 2 and tab.locator(".differences .threshold").count() > 4
    tab.click(".rug-button >> nth=0")
    assert tab.locator(".opened .thumb canvas").count() == 16
    assert "fires in" in tab.inner_text(".opened")


@pytest.mark.browser
def test_labelled_examples_are_contrasted_from_the_address(tab: Any, image_live: str) -> None:
    query = urlencode({"a_label": "class=dog", "b_label": "class!=dog", "limit": 12})
    tab.goto(f"{image_live}#/contrast?{query}")
    tab.wait_for_selector(".differences .passes")
    assert tab.input_value('[aria-label="value of set A"]') == "dog"
    assert tab.input_value('[aria-label="is or is not, set B"]') == "!="
    tab.click(".rug-button >> nth=0")
    assert "of 12, strongest first" in tab.inner_text(".opened")


@pytest.mark.browser
def test_without_a_subject_pages_say_how_to_load_it(
    tab: Any, text_page: str, text_catalog: Path, tmp_path: Path
) -> None:
    for hash in ("#/ask", "#/contrast"):
        go(tab, text_page, hash)
        assert f"sae serve {text_catalog} --live STORE" in tab.inner_text(".missing-subject")
    go(tab, filed(text_catalog, tmp_path), "#/ask")
    assert "These pages are files" in tab.inner_text(".missing-subject")
    assert "sae serve CATALOG --live STORE" in tab.inner_text(".missing-subject")


@pytest.mark.browser
def test_search_leads_to_questions(tab: Any, image_live: str) -> None:
    go(tab, image_live, "#/search?q=cat")
    tab.click("text=latents that stand for it")
    tab.wait_for_selector(".nearest tbody tr")
    assert tab.input_value(".asked") == "cat"
    tab.click(".places a >> nth=1")
    tab.wait_for_selector(".contrast")
    assert tab.locator(".places [aria-current]").inner_text() == "Contrast"


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_of_questions_fit_their_window(tab: Any, image_live: str, text_live: str, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 900})
    sentence = urlencode({"sentence": "supercalifragilistic" * 2 + "\n" + "mat " * 4})
    pages = [(f"{text_live}#/ask?{sentence}", ".choice li"), (f"{image_live}#/ask?phrase=cat", ".nearest tr")]
    for address, waits in pages:
        tab.goto(address)
        tab.wait_for_selector(waits)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(tab: Any, image_live: str, text_live: str, scheme: str) -> None:
    tab.emulate_media(color_scheme=scheme)
    labels = urlencode({"a_label": "class=dog", "b_label": "class=cat"})
    pages = [
        (f"{text_live}#/ask?sentence=The+cat", ".choice li"),
        (f"{image_live}#/ask?phrase=cat", ".nearest tr"),
        (f"{image_live}#/contrast?{labels}", ".differences"),
    ]
    for address, waits in pages:
        tab.goto(address)
        tab.wait_for_selector(waits)
        assert tab.evaluate(CONTRAST) == []
