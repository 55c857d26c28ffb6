"""What the server answers, and what it refuses."""

import json
import zlib
from pathlib import Path

import pytest
from safetensors.numpy import load
from starlette.testclient import TestClient
from toy_catalog import write_toy_catalog

from sae.features.catalog import Catalog
from sae.server.app import HEADERS, create_app
from sae.server.search import matching, search

ORIGIN = "http://127.0.0.1:8000"
HERE = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}
CARD = "/api/explanations/latent/3"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_catalog(tmp_path_factory.mktemp("served"), "image", n_latents=20)


@pytest.fixture(scope="module")
def client(catalog: Path) -> TestClient:
    return TestClient(create_app(Catalog.open(catalog)), base_url=ORIGIN, raise_server_exceptions=False)


def test_cards_go_out_as_they_lie_in_their_file(client: TestClient, catalog: Path) -> None:
    expected = Catalog.open(catalog)[3].to_json()
    assert client.get("/api/card/latent/3").json() == expected
    plain = client.get("/api/card/latent/3", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers and plain.json() == expected
    with client.stream("GET", "/api/card/latent/3", headers={"Accept-Encoding": "gzip, deflate"}) as answer:
        assert json.loads(zlib.decompress(b"".join(answer.iter_raw()))) == expected


def test_columns_titles_overview(client: TestClient, catalog: Path) -> None:
    shelf = Catalog.open(catalog).latents
    columns = load(client.get("/api/columns/latent").content)
    assert columns.keys() == shelf.columns.keys() and (columns["rate"] == shelf.columns["rate"]).all()
    assert client.get("/api/titles/latent?index=3,x,99,-1").json() == {"3": shelf[3].title}
    assert client.get("/api/overview").json() == Catalog.open(catalog).overview
    assert client.get("/api/about").json()["counts"] == {"latents": 20, "neurons": 12}


def test_every_answer_carries_the_policy(client: TestClient) -> None:
    for path in ("/", "/app.js", "/api/about", "/nothing", "/images/000001.png", "/api/card/latent/99"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        *("/../catalog.json", "/..%2fcatalog.json", "/%2e%2e/catalog.json", "/catalog.json", "/images/../catalog.json"),
        *(
            "/images/..%2fcatalog.json",
            "/images/%2e%2e%2fcatalog.json",
            "/images/..%5ccatalog.json",
            "/images/",
            "/images",
        ),
        *(
            "/images/000001.png%00",
            "/images/999999.png",
            "/images//etc/passwd",
            "//etc/passwd",
            "/images/%2fetc%2fpasswd",
        ),
        *("/api/card/latent/20", "/api/card/latent/-1", "/api/card/latent/٣", f"/api/card/latent/{'9' * 5000}"),
        *(
            "/api/card/../catalog.json",
            "/api/card/latents/3",
            "/api/card/..%2f/3",
            "/api/columns/direction",
            "/explanations.jsonl",
        ),
    ],
)
def test_what_is_not_served_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_other_host_names_are_refused(client: TestClient) -> None:
    assert client.get("/api/about", headers={"Host": "rebound.example"}).status_code == 400


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:8000"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Host": "rebound.example", "Origin": "http://rebound.example"}, 400),
    ],
)
def test_only_the_page_itself_may_write(
    client: TestClient, catalog: Path, changed: dict[str, str], status: int
) -> None:
    body = json.dumps({"act": "add", "text": "mine", "author": "Eve"})
    answer = client.post(CARD, content=body, headers=HERE | {"Content-Type": "application/json"} | changed)
    assert answer.status_code == status
    assert not (catalog / "explanations.jsonl").is_file()


def test_a_write_without_origin_is_refused(client: TestClient) -> None:
    assert client.post(CARD, json={"act": "add", "text": "mine", "author": "Eve"}).status_code == 403


def test_explanations_are_added_edited_and_voted_on(tmp_path: Path) -> None:
    client = TestClient(create_app(Catalog.open(write_toy_catalog(tmp_path, n_latents=5))), base_url=ORIGIN)
    (added,) = client.post(CARD, headers=HERE, json={"act": "add", "text": "a kite", "author": "Ada"}).json()
    edit = {"act": "edit", "of": added["id"], "revision": added["revision"], "text": "kites", "author": "Bob"}
    (edited,) = client.post(CARD, headers=HERE, json=edit).json()
    assert edited["text"] == "kites" and edited["history"][0]["text"] == "a kite"
    stale = client.post(CARD, headers=HERE, json=edit | {"text": "toys", "author": "Cleo"})
    assert stale.status_code == 409 and "kites" in stale.json()["error"]
    (voted,) = client.post(
        CARD, headers=HERE, json={"act": "vote", "of": added["id"], "author": "Ada", "value": 1}
    ).json()
    assert voted["tally"] == 1
    assert client.get(CARD).json() == [voted]
    other = client.post("/api/explanations/latent/4", headers=HERE, json=edit | {"revision": edited["revision"]})
    assert other.status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"[]",
            b"{",
            b"\xff",
            b'{"act": "add"}',
            b'{"act": "add", "text": 3, "author": "Ada"}',
            b'{"act": "drop"}',
        ),
        *(
            b'{"act": "vote", "of": "none", "author": "Ada", "value": 1}',
            b'{"act": "add", "text": "\\ud800", "author": "Ada"}',
        ),
    ],
)
def test_what_is_no_act_is_refused_with_a_reason(client: TestClient, body: bytes) -> None:
    answer = client.post(CARD, content=body, headers=HERE | {"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]


def test_large_bodies_are_refused(client: TestClient) -> None:
    assert client.post(CARD, headers=HERE, json={"act": "add", "text": "x" * 100_000}).status_code == 413


def test_search_ranks_titles_then_explanations_then_words() -> None:
    words = [("a", "kite in words"), ("b", "nothing"), ("Kite", "x"), ("c", "")]
    said = {1: "a KITE, says Ada", 3: "other"}
    answer = search("kite", words, said)
    found = answer["found"]
    assert [(hit["index"], hit["where"]) for hit in found] == [(2, "title"), (1, "explanation"), (0, "words")]
    assert search("kite", words, said, 2) == {"total": 3, "found": found[:2]}
    assert search("kite words", words, {})["found"] == [found[2]] and search("  ", words, {})["total"] == 0
    assert [index for index, _ in matching("kite", words, said)] == [0, 1, 2]


def test_all_that_match_are_told_whatever_their_number(tmp_path: Path) -> None:
    write_toy_catalog(tmp_path, n_latents=12_000)
    client = TestClient(create_app(Catalog.open(tmp_path)), base_url=ORIGIN)
    words = Catalog.open(tmp_path).latents.words
    term = "docstring"
    wanted = [i for i, both in enumerate(words) if term in "\n".join(both).casefold()]
    assert client.get("/api/matching/latent", params={"q": term}).json() == {"indices": wanted} and len(wanted) > 2000


def test_a_damaged_shard_is_said_so(tmp_path: Path) -> None:
    write_toy_catalog(tmp_path, n_latents=5)
    (tmp_path / "latents" / "000000.safetensors").write_bytes(b"\0" * 40)
    client = TestClient(create_app(Catalog.open(tmp_path)), base_url=ORIGIN, raise_server_exceptions=False)
    answer = client.get("/api/card/latent/3")
    assert answer.status_code == 500 and "build the catalog again" in answer.json()["error"]
