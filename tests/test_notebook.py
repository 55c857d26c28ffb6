"""What notebooks show: everything is escaped, nothing is loaded, and the numbers are those of the object."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sae
from sae import notebook
from sae.dictionaries.html import nearest_cosines
from sae.dictionaries.topk import TopK, TopKConfig
from sae.evaluation.metric import Score
from sae.evaluation.report import Control, Difference, Report
from sae.features.catalog import About, Catalog, write_json

SCRIPT = "<script>alert(1)</script>"


class Reader(HTMLParser):
    """Collects elements, and fails where they are not closed as they were opened."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += "" if self.open[-1:] == ["style"] else data


def read(shown: Any) -> Reader:
    """Return what an object shows, which must be one harmless element."""
    found = Reader(shown._repr_html_())
    assert not {tag for tag, _ in found.seen} & {"script", "img", "link", "iframe", "object"}
    assert not [name for _, attributes in found.seen for name in attributes if name.startswith("on") or name == "href"]
    assert found.seen[0][0] == "div"
    return found


def test_a_dictionary_says_what_it_is() -> None:
    dictionary = sae.load_dictionary("builtin:stdlib-1l/blocks.0.mlp.hook_post")
    found = read(dictionary)
    for said in ("topk dictionary", "builtin:stdlib-1l@0 blocks.0.mlp.hook_post", "4,096", "5,001,216", "sae catalog"):
        assert said in found.text
    assert "cosine with the nearest other latent, 512 latents" in found.text
    assert any(tag == "svg" for tag, _ in found.seen)


def test_texts_of_a_file_are_escaped() -> None:
    dictionary = TopK(TopKConfig(d_sae=4, k=2), 3)
    dictionary.provenance = {"subject": SCRIPT, "hookpoint": "a&b", "metrics": {"fvu": float("nan")}}
    assert f"{SCRIPT} a&b" in read(dictionary).text


def test_a_transcoder_without_a_past_is_shown_too() -> None:
    dictionary = TopK(TopKConfig(d_sae=1, k=1), 3, 5)
    found = read(dictionary)
    assert "of unknown origin" in found.text and "writes5" in found.text.replace("\n", "")


def test_the_nearest_cosine_is_that_of_all_pairs() -> None:
    W_dec = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    W_dec[3], W_dec[5, 0] = 0, torch.nan
    rows = W_dec[[i for i in range(40) if i not in (3, 5)]]
    cosine = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=2).fill_diagonal_(-1)
    torch.testing.assert_close(nearest_cosines(W_dec), cosine.amax(1))
    assert len(nearest_cosines(torch.ones(1, 6))) == 0


def report() -> Report:
    def score(name: str, value: float, better: Any = "higher") -> Score:
        return Score(name=name, version=1, value=value, n=9, unit="labels", better=better, interval=(value / 2, value))

    def difference(name: str, verdict: Any) -> Difference:
        return Difference(metric=name, control="neurons", value=0.1, interval=(0.0, 0.2), verdict=verdict)

    own = [score("l0", 32, "neither"), *(score(f"plain_{i}", 0.1) for i in range(14))]
    own += [score("won", 0.9), score("lost", 0.2), score("same", 0.5), score("low_won", 0.1, "lower")]
    rivals = [score("won", 0.4), score("lost", 0.4), score("same", 0.5), score("low_won", 0.3, "lower")]
    verdicts = {"won": "higher", "lost": "lower", "same": "not distinguishable", "low_won": "lower"}
    about = {"dictionary": {"d_sae": 4096, "d_in": 512}, "subject": {"id": SCRIPT}, "hookpoint": "h"}
    controls = {"neurons": Control(description="", scores=rivals)}
    return Report(
        about=about, scores=own, controls=controls, differences=[difference(*one) for one in verdicts.items()]
    )


def test_a_report_shows_scores_beside_controls_those_that_were_compared_first() -> None:
    found = read(report())
    assert f"{SCRIPT} h" in found.text and "4,096" in found.text
    rows = re.findall(r"<tr><td>(.*?)</tr>", report()._repr_html_())
    told = {re.sub(r"<.*", "", row): re.sub(r"<[^>]*>", " ", row) for row in rows}
    assert list(told)[:4] == ["won", "lost", "same", "low won"] and len(told) == 19
    verdicts = [told[name].split("neurons")[1].split(maxsplit=1)[1].strip() for name in list(told)[:4]]
    assert verdicts == ["better", "worse", "not distinguishable", "better"]
    assert "0.45 to 0.9" in told["won"] and "0.4" in told["won"]
    assert "7 more" in found.text


def test_a_catalog_says_how_to_open_it(tmp_path: Path) -> None:
    about: dict[str, Any] = {"dictionary": {}, "subject": SCRIPT, "hookpoint": "h", "store": "", "modality": "image"}
    folder = tmp_path / "my catalog"
    About(**about, n_vectors=5, n_examples=3, counts={"latents": 7, "neurons": 0}).save(folder)
    write_json(
        folder / "overview.json", {"log_rates": {"edges": [-2, -1, 0], "counts": [3, 4]}, "facts": [["FVU", "0.25"]]}
    )
    found = read(Catalog.open(folder))
    assert f"sae serve '{folder}'" in found.text and SCRIPT in found.text and "not finished" in found.text
    assert "images3" in found.text and "FVU0.25" in found.text and "neurons" not in found.text


@given(st.text(), st.floats(), st.lists(st.floats(), max_size=4))
def test_whatever_is_shown_stays_well_formed(text: str, value: float, others: list[float]) -> None:
    drawn = notebook.strip(value, (value, value) if value == value else None, None, others)
    parts = [notebook.facts([(text, text)]), notebook.table([text], [[text], [drawn]], [0]), notebook.code(text)]
    found = Reader(notebook.panel(text, text, *parts, notebook.folded(text, notebook.toned(text, True)), text))
    allowed = {"div", "style", "p", "dl", "dt", "dd", "pre", "table", "thead", "tbody", "tr", "th", "td", "details"}
    assert {tag for tag, _ in found.seen} <= allowed | {"summary", "span", "svg", "line", "rect", "circle"}
    numbers = [one for _, seen in found.seen for name, one in seen.items() if name in ("cx", "x", "x1", "width")]
    assert all(float(one or "nan") == float(one or "nan") for one in numbers)


@pytest.mark.parametrize(("value", "told"), [(0.123456, "0.123"), (4096.0, "4,096"), (float("inf"), "–"), (2.0, "2")])
def test_numbers_have_three_digits_that_mean_something(value: float, told: str) -> None:
    assert notebook.number(value) == told
