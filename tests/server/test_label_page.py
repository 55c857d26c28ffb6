"""Labelling blind over HTTP and in a real browser: what is kept, what can be seen, and going on later."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import filed, served
from starlette.testclient import TestClient
from toy_catalog import SCRIPT, write_toy_catalog
from toy_findings import CATEGORIES, ITEM, add_findings, add_labelling

from sae.features.catalog import Catalog
from sae.features.judging.agreement import Kappa
from sae.features.judging.labelling import Labelling
from sae.server.app import create_app

ORIGIN = "http://127.0.0.1:8000"
HERE = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}
PATH = "/api/label/label-latent-3"
LABEL = {"rater": "Ada", "slot": 1, "category": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = add_findings(write_toy_catalog(tmp_path / "catalog", "image", n_latents=10))
    add_labelling(made)
    return made


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    yield from served(folder)


def client(folder: Path) -> TestClient:
    return TestClient(create_app(Catalog.open(folder)), base_url=ORIGIN, raise_server_exceptions=False)


def said(folder: Path) -> dict[str, dict[int, int]]:
    return Labelling(folder / "lab" / "label-latent-3").said()


def begin(tab: Any, address: str, rater: str) -> None:
    tab.goto(f"{address}#/label/label-latent-3")
    tab.click("text=Begin")
    tab.fill('dialog input[name="author"]', rater)
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".questions")


def press(tab: Any, key: str, then: str) -> None:
    """Press a key, and wait until its label is kept and the page shows what comes next."""
    with tab.expect_response(lambda response: response.request.method == "POST" and response.ok):
        tab.keyboard.press(key)
    tab.wait_for_selector(f"text={then}")


def test_labels_are_kept_and_the_key_is_not_told(folder: Path) -> None:
    asked = client(folder)
    assert asked.post(PATH, headers=HERE, json=LABEL).status_code == 200
    told = asked.get(f"{PATH}?rater=Ada").json()
    assert told == {
        "categories": list(CATEGORIES),
        "slots": [{}] * 6,
        "answers": [None, 2, *[None] * 4],
        "agreement": None,
    }
    assert asked.get(f"{PATH}?rater=Bob").json()["answers"] == [None] * 6 and said(folder) == {"Ada": {1: 2}}
    assert asked.get("/lab/label-latent-3/items/000005.png").content.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (LABEL | {"slot": 6}, {}, 400),
        (LABEL | {"category": "0"}, {}, 400),
        (LABEL | {"rater": ""}, {}, 400),
        ([], {}, 400),
        (LABEL | {"rater": "x" * 5000}, {}, 413),
        (LABEL, {"Origin": "https://elsewhere.example"}, 403),
        (LABEL, {"Content-Type": "text/plain"}, 415),
    ],
)
def test_what_is_no_label_is_refused(folder: Path, body: Any, headers: dict[str, str], status: int) -> None:
    all_headers = HERE | {"Content-Type": "application/json"} | headers
    assert client(folder).post(PATH, content=json.dumps(body), headers=all_headers).status_code == status
    assert said(folder) == {}


@pytest.mark.browser
def test_keys_name_items_and_a_rater_goes_on_where_they_stopped(tab: Any, folder: Path, address: str) -> None:
    begin(tab, address, "Ada")
    assert SCRIPT in tab.inner_text(".categories") and tab.title() != "owned"
    press(tab, "1", "2 of 6")
    press(tab, "3", "3 of 6")
    assert said(folder) == {"Ada": {0: 0, 1: 2}}
    tab.reload()
    tab.wait_for_selector("text=3 of 6")
    tab.keyboard.press("u")
    assert tab.inner_text(".count") == "2 of 6"
    assert tab.get_attribute('[data-category="2"]', "aria-pressed") == "true"
    press(tab, "2", "3 of 6")
    for number, key in enumerate("1231", 4):
        press(tab, key, f"{number} of 6" if number < 7 else "All 6 items are labelled.")
    tab.wait_for_selector("text=All 6 items are labelled.")
    answers = said(folder)["Ada"]
    assert answers == {0: 0, 1: 1, 2: 0, 3: 1, 4: 2, 5: 0}
    kappa = Kappa.of([(0, 1), (1, 0)])
    assert tab.inner_text(".score .big") == f"{kappa.value:.2f}".replace("-", "−").rstrip("0").rstrip(".")
    assert "0 of the 2 items that came twice" in tab.inner_text(".result")


@pytest.mark.browser
def test_nothing_on_the_page_tells_the_activation(tab: Any, address: str) -> None:
    sent: list[str] = []
    tab.on("response", lambda response: sent.append(response.text() if "api/label" in response.url else ""))
    begin(tab, address, "Ada")
    for slot in range(len(ITEM)):
        assert tab.get_attribute(".shown img", "src") == f"lab/label-latent-3/items/{slot:06d}.png"
        shown = tab.inner_html("main")
        assert not any(word in shown for word in ("data-hint", "canvas", "--lit", "level", "example"))
        if slot < len(ITEM) - 1:
            press(tab, "2", f"{slot + 2} of 6")
    assert sent and not any(word in text for text in sent for word in ("level", "unit", "n_levels", '"item"'))


@pytest.mark.browser
def test_a_label_that_is_not_kept_is_asked_for_again(tab: Any, folder: Path, address: str) -> None:
    begin(tab, address, "Ada")
    tab.route("**/api/label/**", lambda route: route.fulfill(status=500, json={"error": "the disk is full"}))
    tab.keyboard.press("1")
    tab.wait_for_selector("text=the disk is full")
    assert tab.inner_text(".count") == "1 of 6" and said(folder) == {}
    tab.unroute("**/api/label/**")
    press(tab, "1", "2 of 6")
    assert not tab.is_visible(".problem") and said(folder) == {"Ada": {0: 0}}
    assert len(tab.complaints) == 1 and "500" in tab.complaints[0]
    tab.complaints.clear()


@pytest.mark.browser
def test_files_and_findings_without_items_say_so(tab: Any, folder: Path, address: str, tmp_path: Path) -> None:
    tab.goto(f"{filed(folder, tmp_path)}#/label/label-latent-3")
    tab.wait_for_selector("text=These pages are files, which keep no labels")
    tab.goto(f"{address}#/label/search")
    tab.wait_for_selector("text=no labelling 'search'")
    assert len(tab.complaints) == 1 and "404" in tab.complaints[0]
    tab.complaints.clear()
