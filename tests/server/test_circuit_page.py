"""The page of a circuit in a real browser, answered by a double; and what the server hands through."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import served
from starlette.testclient import TestClient
from test_pages import CONTRAST, go, shown
from toy_catalog import EMOJI, RIGHT_TO_LEFT, SCRIPT

from sae.errors import CatalogError
from sae.features.catalog import Catalog
from sae.server.app import create_app

ORIGIN = "http://127.0.0.1:8000"
HERE = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}
LONG = "y" * 999
FIRST, SECOND = "upstream in 4", "downstream out 9"


def node(id: str, layer: str, **more: Any) -> dict[str, Any]:
    names = {"dictionary": None, "hookpoint": None, "latent": None, "title": None, "fires_on": [], "writes": []}
    return {"id": id, "layer": layer} | names | more


def edge(source: str, target: str, attribution: float, confirmed: bool, activation: float | None = 0.25) -> dict:
    return {
        "source": source,
        "target": target,
        "attribution": attribution,
        "ablation": attribution * 0.75,
        "activation": activation,
        "control": 0.0625 if confirmed else None,
        "confirmed": confirmed,
    }


def toy_circuit(latent: int) -> dict[str, Any]:
    centre = f"centre own {latent}"
    return {
        "latent": latent,
        "title": f"card {latent}",
        "n_examples": 12,
        "n_firings": 34,
        "activation": 1.5,
        "nodes": [
            node(centre, "centre", dictionary="own", hookpoint="middle", latent=latent, title=SCRIPT, writes=["x"]),
            node(
                FIRST, "upstream", dictionary="in", hookpoint="early", latent=4, fires_on=[SCRIPT, RIGHT_TO_LEFT, "\n"]
            ),
            node("upstream in 5", "upstream", dictionary="in", hookpoint="early", latent=5),
            node(
                SECOND, "downstream", dictionary="out", hookpoint="late", latent=9, fires_on=[EMOJI], writes=["y" * 999]
            ),
            node("output 1", "output", hookpoint="next tokens", title=" return"),
        ],
        "edges": [
            edge(FIRST, centre, 0.8, True),
            edge("upstream in 5", centre, -0.2, False),
            edge(centre, SECOND, 0.5, False),
            edge(centre, "output 1", -0.4, True, activation=None),
        ],
        "agreement": {"upstream": {"edges": 2, "confirmed": 1, "correlation": None}},
        "seconds": 2.5,
    }


class Asked:
    """Answers with a circuit when it is let go; remembers what was asked."""

    about: ClassVar[dict[str, Any]] = {
        "upstream": [{"name": "in", "hookpoint": "early"}],
        "downstream": [],
        "output": "next tokens",
    }

    def __init__(self) -> None:
        self.questions: list[Any] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, question: Any) -> Any:
        self.questions.append(question)
        assert self.go.wait(20)
        if question["latent"] == 7:
            raise CatalogError(f"latent 7: {SCRIPT}")
        return toy_circuit(question["latent"])


@pytest.fixture(scope="module")
def asked() -> Asked:
    return Asked()


@pytest.fixture(scope="module")
def live_page(text_catalog: Path, asked: Asked) -> Iterator[str]:
    yield from served(text_catalog, {"circuit": asked})


def test_the_server_hands_questions_and_refusals_through(text_catalog: Path, asked: Asked) -> None:
    client = TestClient(create_app(Catalog.open(text_catalog), {"circuit": asked}), base_url=ORIGIN)
    assert client.get("/api/live").json()["circuit"] == Asked.about
    assert client.post("/api/live/circuit", headers=HERE, json={"latent": 3}).json() == toy_circuit(3)
    refused = client.post("/api/live/circuit", headers=HERE, json={"latent": 7})
    assert refused.status_code == 400 and refused.json()["error"].startswith("latent 7")


@pytest.mark.browser
def test_a_card_leads_to_its_circuit_which_waits_and_then_shows(tab: Any, live_page: str, asked: Asked) -> None:
    asked.go.clear()
    go(tab, live_page, "#/latent/5")
    tab.click('.tools a:text-is("circuit")')
    shown(tab, "#/circuit/latent/5")
    assert "The subject runs" in tab.inner_text("[role=status]")
    assert tab.get_attribute(".circuit-body", "aria-busy") == "true"
    asked.go.set()
    tab.wait_for_selector(".graph .node")
    assert tab.get_attribute(".circuit-body", "aria-busy") is None
    assert asked.questions[-1] == {"latent": 5}
    assert tab.locator(".upstream .node").count() == 2 and tab.locator(".downstream .node").count() == 2
    assert "34 in 12 examples" in tab.inner_text(".facts") and "1 of 2" in tab.inner_text(".facts")
    assert tab.locator("tbody tr").count() == 4
    assert tab.title() != "owned", "text stays text"
    go(tab, live_page, "#/neuron/3")
    assert tab.locator('.tools a:text-is("circuit")').count() == 0


@pytest.mark.browser
def test_edges_run_from_node_to_node_by_sign_and_verdict(tab: Any, live_page: str) -> None:
    go(tab, live_page, "#/circuit/latent/5")
    paths = tab.locator(".edges .edge")
    paths.first.wait_for(state="attached")
    assert [paths.nth(i).get_attribute("class") for i in range(4)] == [
        *("edge positive borne-out", "edge negative doubtful", "edge positive doubtful", "edge negative borne-out"),
    ]
    widths = [float(paths.nth(i).get_attribute("stroke-width")) for i in range(4)]
    assert widths[0] == widths[2] == widths[3] == 8 and widths[1] == pytest.approx(1.5 + 6.5 / 4), "each on its scale"
    assert tab.evaluate("getComputedStyle(document.querySelector('.edge.doubtful')).strokeDasharray") != "none"
    # An end of the first edge lies on the right side of its node, the other on the left side of the middle one.
    ends = paths.first.evaluate(
        "p => { const m = p.getScreenCTM(); return [0, p.getTotalLength()]"
        ".map((l) => { const q = p.getPointAtLength(l).matrixTransform(m); return [q.x, q.y]; }); }"
    )
    for (x, y), place, side in zip(ends, (".upstream .node >> nth=0", ".node.middle"), (1, 0), strict=True):
        box = tab.locator(place).bounding_box()
        assert x == pytest.approx(box["x"] + side * box["width"], abs=1)
        assert box["y"] < y < box["y"] + box["height"]


@pytest.mark.browser
def test_numbers_come_by_pointer_and_by_keyboard(tab: Any, live_page: str) -> None:
    go(tab, live_page, "#/circuit/latent/5")
    tab.hover(".downstream .node >> nth=1")
    said = tab.inner_text(".readout")
    assert "attribution −0.400, ablation −0.300, control 0.0625; confirmed." in said and "activation" not in said
    assert tab.locator(".edge.lit").count() == 1 and tab.locator(".node.lit").count() == 2
    tab.mouse.move(0, 0)
    assert tab.locator(".edge.lit").count() == 0
    tab.focus('.kicker a:text-is("its card")')
    tab.keyboard.press("Tab")
    focused = tab.locator(":focus")
    assert focused.get_attribute("aria-label").startswith("latent 4, ") and "confirmed" in tab.inner_text(".readout")
    tab.keyboard.press("Tab")
    assert "latent 5" in tab.inner_text(".readout") and "control –; not confirmed." in tab.inner_text(".readout")


@pytest.mark.browser
def test_refusals_and_missing_subjects_are_said(tab: Any, live_page: str, text_page: str) -> None:
    go(tab, live_page, "#/circuit/latent/7")
    tab.wait_for_selector(".problem")
    assert "latent 7: <script>" in tab.inner_text(".problem")
    tab.complaints[:] = [one for one in tab.complaints if "400" not in one]
    go(tab, live_page, "#/circuit/neuron/3")
    assert "Only latents" in tab.inner_text(".missing-subject")
    go(tab, text_page, "#/circuit/latent/5")
    assert "sae serve CATALOG --live STORE --with DICTIONARY" in tab.inner_text(".missing-subject")
    go(tab, text_page, "#/latent/5")
    assert tab.locator('.tools a:text-is("circuit")').count() == 0


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 760, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(tab: Any, live_page: str, width: int, scheme: str) -> None:
    tab.set_viewport_size({"width": width, "height": 800})
    tab.emulate_media(color_scheme=scheme)
    go(tab, live_page, "#/circuit/latent/5")
    tab.wait_for_selector(".graph .node")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.evaluate(CONTRAST) == []
    styles = tab.evaluate(
        "[...document.querySelectorAll('.upstream .node')].map((n) => getComputedStyle(n).borderLeftStyle)"
    )
    assert styles == (["solid", "dashed"] if width < 700 else ["solid", "solid"])
