"""The pages as static files: from any static host, and opened by double-click.

OUT/index.html app.js card.css pages.css icon.svg      the pages; their modules joined into one classic script
OUT/images/                                            as in the catalog
OUT/data/about.js, overview.js                         data, each a script that calls receiveChunk(name, json)
OUT/data/KIND/columns.js, titles.js, words/0.js ...    over all cards of a kind
OUT/data/KIND/cards/0/12.js                            `CARDS_PER_CHUNK` cards with their explanations, what findings
                                                       say of them, and the titles of the cards that they point to
OUT/data/lab.js, lab/NAME.js                           the laboratory's findings: a list, and each with its rows
OUT/lab/NAME/                                          their images
"""

import base64
import html
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sae.errors import CatalogError
from sae.features.cards import Card
from sae.features.catalog import Catalog, Shelf
from sae.features.explanations import Explanation, Explanations
from sae.features.findings import FOLDER, PNG, Findings
from sae.log import track
from sae.server.files import IMAGE_NAME, page_files

CARDS_PER_CHUNK = 4
CHUNKS_PER_FOLDER = 1000
WORDS_PER_CHUNK = 4096
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file:;"
    " base-uri 'none'; form-action 'none'"
)


def export(catalog: Catalog, out: Path) -> None:
    """Write the pages of a catalog, with the explanations as they stand now.

    Args:
        catalog: what to show.
        out: a new folder, an empty one, or one that an earlier export wrote, which is replaced.

    Raises:
        CatalogError: `out` holds something else.
    """
    if out.exists() and any(out.iterdir()):
        if not (out / "data" / "about.js").is_file():
            raise CatalogError(f"{out}: is there already and is no earlier export; name a new folder.")
        shutil.rmtree(out)
    _write_pages(out)
    said, findings = Explanations(catalog.path), Findings(catalog.path, catalog.about.dictionary.get("sha256", ""))
    shelves = [shelf for shelf in catalog.shelves.values() if len(shelf)]
    for shelf in shelves:
        _write_shelf(catalog, shelf, out, said.by_card(shelf.kind), findings)
    _copy_images(catalog.path / "images", out / "images", IMAGE_NAME)
    _write_findings(findings, out)
    _write_chunk(out, "overview", catalog.overview)
    _write_chunk(out, "about", _about(catalog, shelves))


def static_index() -> str:
    """Return index.html for files: it says so, and carries the policy that a server would send."""
    text = page_files()["index.html"][0].decode()
    policy = f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">'
    changes = {
        'data-source="server"': 'data-source="files"',
        '<meta charset="utf-8">': f'<meta charset="utf-8">\n{policy}',
    }
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def _about(catalog: Catalog, shelves: list[Shelf]) -> dict[str, Any]:
    return {
        "about": asdict(catalog.about),
        "cards_per_chunk": CARDS_PER_CHUNK,
        "cards": {shelf.kind: len(shelf) for shelf in shelves},
        "columns": [shelf.kind for shelf in shelves if shelf.columns],
        "word_chunks": {shelf.kind: -(-len(shelf.words) // WORDS_PER_CHUNK) for shelf in shelves},
    }


def _write_pages(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, (content, _) in page_files().items():
        (out / name).write_bytes(content)
    (out / "index.html").write_text(static_index(), encoding="utf-8")


def _write_shelf(
    catalog: Catalog, shelf: Shelf, out: Path, said: Mapping[int, list[Explanation]], findings: Findings
) -> None:
    by_card = {index: [one.to_json() for one in found] for index, found in said.items()}
    texts = {index: "\n".join(one.text for one in found) for index, found in said.items()}
    rows = [[title, texts.get(i, ""), words] for i, (title, words) in enumerate(shelf.words)]
    _write_chunk(out, f"{shelf.kind}/titles", [row[0] for row in rows])
    for part, first in enumerate(range(0, len(rows), WORDS_PER_CHUNK)):
        _write_chunk(out, f"{shelf.kind}/words/{part}", {"first": first, "rows": rows[first : first + WORDS_PER_CHUNK]})
    columns = shelf.folder / "columns.safetensors"
    if columns.is_file():
        _write_chunk(out, f"{shelf.kind}/columns", base64.b64encode(columns.read_bytes()).decode())
    titles = {kind: [title for title, _ in other.words] for kind, other in catalog.shelves.items()}
    found = findings.by_card(shelf.kind)
    starts = list(enumerate(range(0, len(shelf), CARDS_PER_CHUNK)))
    for number, first in track(starts, f"{shelf.kind}s", unit="chunks"):
        indices = range(first, min(len(shelf), first + CARDS_PER_CHUNK))
        chunk = _cards_chunk(shelf, indices, titles) | {
            "explanations": {i: by_card[i] for i in indices if i in by_card},
            "mentions": {i: found[i] for i in indices if i in found},
        }
        _write_chunk(out, f"{shelf.kind}/cards/{number // CHUNKS_PER_FOLDER}/{number}", chunk)


def _cards_chunk(shelf: Shelf, indices: range, titles: dict[str, list[str]]) -> dict[str, Any]:
    packed = [shelf.packed(index) for index in indices]
    near: dict[str, dict[int, str]] = {}
    for kind, index in (pointer for data in packed for pointer in pointers(Card.unpacked(data))):
        if index < len(titles.get(kind, [])):
            near.setdefault(kind, {})[index] = titles[kind][index]
    return {"cards": [base64.b64encode(data).decode() for data in packed], "titles": near}


def pointers(card: Card) -> Iterator[tuple[str, int]]:
    """Yield kind and number of the cards of the same catalog that a card points to."""
    sections = card.sections
    for name in ("reads", "writes", "correlated"):
        yield from (("neuron", pair[0]) for pair in sections.get("neurons", {}).get(name, ()))
    for name in ("decoder", "encoder", "coactivation", "examples"):
        yield from (("latent", pair[0]) for pair in sections.get("neighbours", {}).get(name, ()))
    yield from (("latent", pair[0]) for pair in sections.get("carried", {}).get("latents", ()))
    for part in sections.get("mixture", {}).get("parts", ()):
        yield from (("latent", latent[0]) for latent in part.get("latents", ()))


def _copy_images(source: Path, target: Path, named: re.Pattern[str]) -> None:
    if not source.is_dir():
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if named.fullmatch(path.name):
            shutil.copyfile(path, target / path.name)


def _write_findings(findings: Findings, out: Path) -> None:
    """Write every finding and its images; of a labelling its key and the raters' words stay where they are."""
    _write_chunk(out, FOLDER, findings.listed())
    for found in findings.all():
        _write_chunk(out, f"{FOLDER}/{found.name}", found.to_json())
        _copy_images(findings.folder / found.name, out / FOLDER / found.name, PNG)


def _write_chunk(out: Path, name: str, data: Any) -> None:
    """Write data as a script: as JSON in a string it is parsed fast, and no key means anything to JavaScript."""
    path = out / "data" / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    literal = re.sub("[\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))
    path.write_text(f"receiveChunk({json.dumps(name)},{literal});\n", encoding="utf-8")
