"""An atlas in the explorer: cells looked at by pointer and by keys, in either way, served and from files."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import filed, served
from PIL import Image
from toy_catalog import SCRIPT, write_toy_catalog
from toy_findings import add_finding, add_findings

pytestmark = pytest.mark.browser

SIDE = 24
PIXELS = 4
CELLS = {(x, y): 10 * x + y for x in range(SIDE) for y in range(SIDE) if (x * y) % 5 != 4}
"""Number of items of every cell; some places are empty."""
SHADES = {"nearest": 200, "visualised": 60}
FAR = {"x": 23, "y": 5, "n": 400, "latents": "3 77", "names": f"family=face; {SCRIPT}", "family": SCRIPT}


def mosaic(blue: int) -> bytes:
    """Draw every cell in a colour of its own: red by column, green by row, y upwards."""
    whole = Image.new("RGB", (SIDE * PIXELS, SIDE * PIXELS), "white")
    for x, y in CELLS:
        left, top = x * PIXELS, (SIDE - 1 - y) * PIXELS
        whole.paste((10 * x, 10 * y, blue), (left, top, left + PIXELS, top + PIXELS))
    file = io.BytesIO()
    whole.save(file, format="png")
    return file.getvalue()


def rows() -> list[dict[str, Any]]:
    found = []
    for (x, y), n in CELLS.items():
        row = {"x": x, "y": y, "n": n, "latents": f"{x} {y}", "names": "a=b; ", "family": "face", "family_share": 0.5}
        row |= {"colour": "", "colour_share": 0.0, "visualised_cosine": 0.75, "nearest_cosine": 0.9}
        row["visualised_cell"] = f"{x} {y}" if x else "7 8"
        found.append(row | (FAR if (x, y) == (23, 5) else {}))
    return found


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = add_findings(write_toy_catalog(tmp_path_factory.mktemp("atlas") / "catalog", n_latents=60))
    settings, figures = {"picture": "visualised"}, {"cells along a side": SIDE, "cells": len(CELLS)}
    for name, ways in (("both", SHADES), ("one", ("nearest",))):
        made = add_finding(folder, name, "a map", method="atlas", settings=settings, figures=figures, rows=rows())
        for way in ways:
            (made / f"atlas-{way}.png").write_bytes(mosaic(SHADES[way]))
    return folder


@pytest.fixture(scope="module")
def served_atlas(catalog: Path) -> Iterator[str]:
    yield from served(catalog)


@pytest.fixture(scope="module")
def filed_atlas(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return filed(catalog, tmp_path_factory.mktemp("site"))


@pytest.fixture(params=["served", "filed"])
def atlas(request: pytest.FixtureRequest, tab: Any) -> Any:
    """The page of the atlas with both ways, in a tab."""
    return opened(tab, request.getfixturevalue(f"{request.param}_atlas"), "both")


def opened(tab: Any, address: str, name: str) -> Any:
    tab.goto(f"{address}#/lab/{name}")
    tab.wait_for_selector(f'main[data-shown="#/lab/{name}"]:not([aria-busy])')
    return tab


def head(tab: Any) -> str:
    return " ".join(tab.inner_text(".cell h2").split())


def place_of(tab: Any, x: float, y: float) -> dict[str, float]:
    """Return where a place lies on the canvas while the whole map shows: the square in the middle, 92 % of it."""
    box = tab.locator(".map canvas").bounding_box()
    unit = 0.92 * min(box["width"], box["height"]) / SIDE
    return {"x": box["width"] / 2 + (x - SIDE / 2) * unit, "y": box["height"] / 2 - (y - SIDE / 2) * unit}


def colour(tab: Any, x: float, y: float) -> tuple[int, ...]:
    shot = Image.open(io.BytesIO(tab.locator(".map canvas").screenshot(animations="disabled"))).convert("RGB")
    place = place_of(tab, x, y)
    return shot.getpixel((round(place["x"]), round(place["y"])))  # type: ignore[return-value]


def wait_for_colour(tab: Any, x: float, y: float, wanted: tuple[int, ...]) -> None:
    """Wait until a cell's middle has a colour, but for smoothing."""
    for _ in range(40):
        seen = colour(tab, x + 0.5, y + 0.5)
        if max(abs(one - other) for one, other in zip(seen, wanted, strict=True)) <= 6:
            return
        tab.wait_for_timeout(50)
    pytest.fail(f"cell {x}, {y} is {seen}, not {wanted}")


def test_every_cell_lies_where_its_row_says_and_the_ways_switch(atlas: Any) -> None:
    wait_for_colour(atlas, 3, 20, (30, 200, SHADES["visualised"]))
    wait_for_colour(atlas, 20, 3, (200, 30, SHADES["visualised"]))
    assert atlas.locator('.atlas [aria-pressed="true"]').all_inner_texts() == ["visualised"], "what was asked for"
    atlas.click('.atlas [data-way="nearest"]')
    wait_for_colour(atlas, 3, 20, (30, 200, SHADES["nearest"]))
    assert atlas.locator('.atlas [aria-pressed="true"]').all_inner_texts() == ["nearest"]
    paper = atlas.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb({}, {}, {})".format(*colour(atlas, 2.5, 2.5)), "no item lies there"
    assert not atlas.locator(".gallery").count(), "mosaics are no further images"


def test_a_pointer_looks_and_a_press_stays(atlas: Any) -> None:
    assert head(atlas) == "400 pictures cell 23, 5", "the largest first"
    canvas = atlas.locator(".map canvas")
    canvas.hover(position=place_of(atlas, 0.5, 12.5))
    assert head(atlas) == "12 pictures cell 0, 12"
    assert "nearer to the mean of cell 7, 8" in atlas.inner_text(".cell")
    atlas.mouse.move(2, 2)
    assert head(atlas) == "400 pictures cell 23, 5"
    canvas.click(position=place_of(atlas, 4.5, 3.5))
    atlas.mouse.move(2, 2)
    assert head(atlas) == "43 pictures cell 4, 3"
    assert "nearest to this cell's mean (cosine to this one 0.75)" in atlas.inner_text(".cell")
    canvas.hover(position=place_of(atlas, 2.5, 2.5))
    assert head(atlas) == "43 pictures cell 4, 3", "no item lies there"


def test_names_link_to_cards_that_there_are_and_stay_text(atlas: Any) -> None:
    links = atlas.locator(".latents-of a")
    assert links.evaluate_all("all => all.map(a => a.hash)") == ["#/latent/3"], "there is no latent 77"
    atlas.wait_for_selector(".latents-of a[data-hint]")
    assert SCRIPT in atlas.inner_text(".latents-of") and atlas.title() != "owned"
    assert atlas.locator(".cell .bars li").all_inner_texts() == [f"family: {SCRIPT}\n50 %"]
    links.first.click()
    atlas.wait_for_selector('main[data-shown="#/latent/3"]')


def test_keys_go_from_cell_to_cell_over_gaps_and_zoom(atlas: Any) -> None:
    atlas.locator(".map canvas").click(position=place_of(atlas, 1.5, 3.5))
    atlas.keyboard.press("ArrowUp")
    assert head(atlas) == "15 pictures cell 1, 5", "1, 4 is empty"
    atlas.keyboard.press("ArrowRight")
    atlas.keyboard.press("ArrowDown")
    assert head(atlas) == "24 pictures cell 2, 4"
    atlas.keyboard.press("ArrowLeft")
    atlas.keyboard.press("ArrowLeft")
    assert head(atlas).endswith("cell 0, 4")
    atlas.keyboard.press("ArrowLeft")
    assert head(atlas).endswith("cell 0, 4"), "nothing lies further"
    for _ in range(10):
        atlas.keyboard.press("+")
    for _ in range(12):
        atlas.keyboard.press("ArrowUp")
    # However near, the chosen cell is brought into sight: it now fills the view, and a pointer anywhere in it finds it.
    chosen = head(atlas)
    assert chosen.endswith("cell 0, 16")
    box = atlas.locator(".map canvas").bounding_box()
    atlas.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert head(atlas) == chosen
    atlas.keyboard.press("0")
    wait_for_colour(atlas, 20, 3, (200, 30, SHADES["visualised"]))


def test_one_way_needs_no_switch_and_a_missing_mosaic_is_told(tab: Any, served_atlas: str, catalog: Path) -> None:
    opened(tab, served_atlas, "one")
    wait_for_colour(tab, 3, 20, (30, 200, SHADES["nearest"]))
    assert not tab.locator(".atlas .orders").count()
    tab.route("**/atlas-nearest.png", lambda route: route.abort())
    tab.reload()
    tab.wait_for_selector(".atlas .problem:visible")
    assert "atlas-nearest.png cannot be shown" in tab.inner_text(".atlas .problem")
    tab.complaints.clear()
