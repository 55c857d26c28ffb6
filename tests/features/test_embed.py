"""Modules joined into one script, and a card as one page."""

import re

import pytest

from sae.features.cards import Card
from sae.features.embed import card_document, card_frame, classic_script, image_names


def test_modules_become_scopes_that_share_their_exports() -> None:
    first = "export const one = 1;\nconst hidden = 5;\nexport async function two() { return hidden; }\n"
    second = 'import { one, two } from "./first.js";\nexport class Three {}\nconst hidden = one;\n'
    joined = classic_script([("first.js", first), ("second.js", second)])
    assert not re.search(r"^(import|export)\b", joined, flags=re.MULTILINE)
    assert "return { one, two };" in joined and "return { Three };" in joined
    assert 'const { one, two } = modules["first.js"];' in joined


@pytest.mark.parametrize(
    "source",
    [
        'import { a } from "./later.js";\n',
        'import whole from "./first.js";\n',
        'import * as whole from "./first.js";\n',
        "export default 3;\n",
        "const a = 1;\nexport { a };\n",
        "export let a = 1;\n",
    ],
)
def test_what_cannot_be_joined_is_an_error(source: str) -> None:
    with pytest.raises(ValueError, match=r"one\.js"):
        classic_script(
            [("first.js", "export const a = 1;\n"), ("one.js", source), ("later.js", "export const a = 1;\n")]
        )


def test_text_of_a_card_cannot_end_the_page_around_it() -> None:
    hostile = "</script><script>alert(1)</script>\"'><!--"
    card = Card(kind="latent", index=3, title=hostile, sections={"writes": {"up": [[hostile, 0.4]]}})
    page = card_document(card.to_json())
    assert page == card.to_html()
    assert page.count("<script") == 2 and "alert(1)</script>" not in page and "<!--" not in page
    assert "unsafe" not in page.split("<style>")[0]
    frame = card_frame(card.to_json())
    assert frame.count('"') == 8, "title, style, sandbox and srcdoc are closed by their own quotes alone"
    assert 'sandbox="allow-scripts"' in frame


def test_images_of_a_card_are_found_wherever_they_are() -> None:
    reference = {"image": "images/000003.png"}
    sections = {"examples": {"top": [reference], "quantiles": [{"low": 0, "high": 1, "examples": [reference]}]}}
    assert list(image_names(sections)) == ["images/000003.png"] * 2


@pytest.mark.parametrize(
    "name", ["images/../catalog.png", "/etc/passwd", "images/3.png/x", "../images/3.png", "https://x/3.png"]
)
def test_other_files_are_never_put_into_a_page(name: str, tmp_path) -> None:
    card = {"kind": "latent", "index": 3, "title": "t", "examples": {"top": [{"image": name}]}}
    assert '"images":{}' in card_document(card, tmp_path)
