"""The laboratory in the explorer: findings listed, opened and named on cards, served and from files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import filed, served
from starlette.testclient import TestClient
from toy_catalog import SCRIPT, write_toy_catalog
from toy_findings import ROWS, add_finding, add_findings, add_labelling

from sae.features.catalog import Catalog
from sae.server.app import create_app
from sae.server.export import export

ORIGIN = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = add_findings(write_toy_catalog(tmp_path_factory.mktemp("lab") / "catalog", n_latents=60))
    add_labelling(folder)
    return folder


@pytest.fixture(scope="module")
def client(catalog: Path) -> TestClient:
    return TestClient(create_app(Catalog.open(catalog)), base_url=ORIGIN, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def served_lab(catalog: Path) -> Iterator[str]:
    yield from served(catalog)


@pytest.fixture(scope="module")
def filed_lab(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return filed(catalog, tmp_path_factory.mktemp("site"))


@pytest.fixture(params=["served", "filed"])
def lab(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_lab")


def go(tab: Any, address: str, hash: str) -> None:
    tab.goto(address + hash)
    tab.wait_for_selector(f'main[data-shown="{hash}"]:not([aria-busy])')


def test_findings_are_listed_and_opened(client: TestClient) -> None:
    listed = {one["name"]: one for one in client.get("/api/lab").json()}
    assert set(listed) == {"search", "steer-latent-3", "odd", "label-latent-3"}
    assert "of another dictionary" in listed["odd"]["problem"] and "rows" not in listed["search"]
    found = client.get("/api/lab/search").json()
    assert found["rows"] == ROWS and found["pictures"] == {"plot": "what to read"} and len(found["images"]) == 30
    said = client.get("/api/mentions/latent/3").json()
    assert [one["name"] for one in said] == ["label-latent-3", "search", "steer-latent-3"]
    assert client.get("/api/mentions/neuron/3").json()[0]["rows"] == [ROWS[3]]
    image = client.get("/lab/search/latent-3-photo.png")
    assert image.headers["content-type"] == "image/png" and image.content.startswith(b"\x89PNG")


def test_a_new_finding_shows_without_a_restart(tmp_path: Path) -> None:
    folder = write_toy_catalog(tmp_path / "catalog", n_latents=5)
    client = TestClient(create_app(Catalog.open(folder)), base_url=ORIGIN)
    assert client.get("/api/lab").json() == [] and client.get("/api/mentions/latent/3").json() == []
    add_finding(folder, "new", "it is here", about={"dictionary": {"sha256": ""}})
    assert client.get("/api/lab").json()[0]["verdict"] == "it is here"


@pytest.mark.parametrize(
    "path",
    [
        *("/lab/search/search.json", "/lab/label-latent-3/key.json", "/lab/label-latent-3/labels.jsonl"),
        *("/lab/label-latent-3/labelling.json", "/lab/label-latent-3/items/key.json", "/lab/search/items/000000.png"),
        *("/lab/../catalog.json", "/lab/..%2fimages/000000.png", "/lab/%2e%2e/000000.png", "/lab/search/..%2fplot.png"),
        *("/lab/label-latent-3/items/..%2fplot.png", "/lab/label-latent-3/items/%2e%2e%2fkey.json", "/lab/search/"),
        *("/api/lab/nothing", "/api/lab/..", "/api/lab/odd", "/api/lab/..%2fsearch", "/api/label/search"),
        *("/api/mentions/latents/3", "/api/mentions/latent/x", "/api/mentions/latent/-1"),
        f"/api/mentions/latent/{'9' * 99}",
    ],
)  # fmt: skip
def test_what_is_no_finding_is_not_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_an_export_holds_findings_and_nothing_of_a_labelling(catalog: Path, filed_lab: str, tmp_path: Path) -> None:
    export(Catalog.open(catalog), tmp_path / "site")
    lab = tmp_path / "site" / "lab"
    assert len(list((lab / "search").iterdir())) == 31 and not (lab / "odd").exists()
    assert [path.name for path in (lab / "label-latent-3").iterdir()] == ["plot.png"]
    assert {path.name for path in (tmp_path / "site" / "data" / "lab").iterdir()} == {
        *("search.js", "steer-latent-3.js", "label-latent-3.js")
    }


@pytest.mark.browser
def test_a_finding_is_found_opened_sorted_and_filtered(tab: Any, lab: str) -> None:
    go(tab, lab, "#/lab")
    assert tab.locator(".findings > li").count() == 4
    assert f"One in three is found. {SCRIPT}" in tab.inner_text(".findings")
    assert "of another dictionary" in tab.inner_text(".findings .problem")
    tab.click('.finding-link[href="#/lab/search"]')
    tab.wait_for_selector(".lab.one")
    assert SCRIPT in tab.inner_text("h1") and tab.title() != "owned"
    assert tab.locator(".beside li").all_inner_texts()[0].split("\n") == ["latents", "0.900"]
    cells = tab.locator(".found-rows tbody tr")
    assert cells.count() == 40
    tab.click(".rows-part .more")
    assert cells.count() == 60
    tab.click('.found-rows th button:text-is("bits")')
    assert cells.first.inner_text().split("\t")[:2] == ["118", "neuron:59"]
    tab.click('.found-rows th button:text-is("bits")')
    assert cells.first.inner_text().split("\t")[0] == "2", "what has no number comes last either way"
    tab.fill('[aria-label="filter label"]', "LABEL 2")
    tab.fill('[aria-label="filter latent"]', ">60")
    expected = [row for row in ROWS if row["label"] == "label 2" and row["latent"] >= 60]
    assert tab.inner_text(".rows-part .note").startswith(f"{len(expected)} of 60 rows")
    tab.fill('[aria-label="filter latent"]', "much")
    assert tab.get_attribute('[aria-label="filter latent"]', "aria-invalid") == "true"
    # Only units that the catalog has cards of are links.
    tab.fill('[aria-label="filter latent"]', "<34")
    assert cells.locator("a").evaluate_all("all => all.map(a => a.hash)") == [
        *("#/latent/4", "#/neuron/2", "#/latent/14", "#/neuron/7", "#/latent/24", "#/latent/34")
    ]


@pytest.mark.browser
def test_pictures_open_large_and_images_are_a_gallery(tab: Any, lab: str) -> None:
    go(tab, lab, "#/lab/search")
    assert tab.locator(".gallery li").count() == 24
    tab.click("section:has(.gallery) .more")
    assert tab.locator(".gallery li").count() == 30
    assert tab.get_attribute(".gallery li:nth-child(4) a", "href") == "#/latent/3"
    tab.click(".plot .enlarge")
    tab.wait_for_function("document.querySelector('dialog.large img').naturalWidth === 300")
    tab.click("dialog.large")
    tab.wait_for_selector("dialog.large", state="detached")
    tab.wait_for_function("document.querySelector('.gallery img').naturalWidth === 40")


@pytest.mark.browser
def test_a_card_tells_what_the_laboratory_says_of_it(tab: Any, lab: str) -> None:
    go(tab, lab, "#/latent/3")
    tab.wait_for_selector(".mentions h2")
    told = tab.locator(".mentions li").all_inner_texts()
    assert len(told) == 3 and "It moves the answer." in told[2] and "found" not in told[1]
    assert tab.locator(".mentions li:nth-child(2) img").get_attribute("src").endswith("lab/search/latent-3-photo.png")
    go(tab, lab, "#/latent/4")
    tab.wait_for_selector(".mentions h2")
    assert "bits 0.286" in tab.inner_text(".mentions .row-of") and "latent" not in tab.inner_text(".mentions .row-of")
    tab.click(".mentions .kicker a")
    tab.wait_for_selector(".lab.one h1")
    go(tab, lab, "#/latent/33")
    tab.wait_for_selector(".card")
    assert not tab.is_visible(".mentions")


@pytest.mark.browser
def test_a_catalog_without_findings_says_how_to_make_one(tab: Any, text_page: str) -> None:
    go(tab, text_page, "#/lab")
    assert "sae lab levels" in tab.inner_text("main") and "Nothing has been found yet" in tab.inner_text("main")
