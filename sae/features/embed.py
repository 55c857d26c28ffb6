"""A card as one HTML page that needs nothing else, and modules of JavaScript as one classic script. Needs no torch.

The pages are plain ES modules. Chromium loads none of those from a page opened by double-click, nor may a notebook's
frame fetch any, so here they are joined into one classic script: every module becomes a function scope, and its imports
and exports become fields of one object. Modules may therefore only write

    import { one, two } from "./other.js";
    export function ...   export async function ...   export const ...   export class ...
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parent / "assets"
CARD_MODULES = ("dom.js", "charts.js", "examples.js", "sections.js", "card.js")
"""What draws a card, imported ones first."""
FRAME_HEIGHT = 640

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w.-]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function|const|class) (\w+)", re.MULTILINE)


def classic_script(modules: Sequence[tuple[str, str]]) -> str:
    """Join ES modules into one classic script.

    Args:
        modules: name and source, imported ones first.

    Raises:
        ValueError: a module uses another form of import or export, or one that comes later.
    """
    parts = ['"use strict";\nconst modules = {};']
    known: set[str] = set()
    for name, source in modules:
        exported = [match[1] for match in _EXPORT.findall(source)]
        for names, other in _IMPORT.findall(source):
            if other not in known:
                raise ValueError(f"{name}: imports {names.strip()} from {other}, which does not come before it")
        body = _IMPORT.sub(lambda match: f'const {{{match[1]}}} = modules["{match[2]}"];\n', source)
        body = _EXPORT.sub(r"\1 \2", body)
        if stray := re.search(r"^(import|export)\b.*", body, flags=re.MULTILINE):
            raise ValueError(f"{name}: {stray[0]!r} is no form of import or export that can be joined")
        parts.append(f'modules["{name}"] = (() => {{\n{body}\nreturn {{ {", ".join(exported)} }};\n}})();')
        known.add(name)
    return "(() => {\n" + "\n".join(parts) + "\n})();\n"


def read_modules(names: Sequence[str], folder: Path = ASSETS) -> list[tuple[str, str]]:
    """Return name and source of modules."""
    return [(name, (folder / name).read_text(encoding="utf-8")) for name in names]


@cache
def _card_script() -> str:
    start = 'modules["card.js"].drawEmbedded(document);'
    return classic_script([*read_modules(CARD_MODULES), ("embedded", start)])


@cache
def _card_style() -> str:
    return (ASSETS / "card.css").read_text(encoding="utf-8")


def card_document(card: Mapping[str, Any], folder: Path | None = None) -> str:
    """Return a page with one card.

    Nothing but its own script and style may run or load, by its content security policy.

    Args:
        card: as JSON.
        folder: the catalog's, where its images lie; those that are not there are shown by their caption alone.
    """
    script, style = _card_script(), _card_style()
    images = {name: found for name in sorted(set(image_names(card))) if (found := _data_uri(folder, name))}
    data = json.dumps({"card": card, "images": images}, ensure_ascii=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    policy = f"default-src 'none'; img-src data:; script-src {_hash(script)}; style-src {_hash(style)}"
    title = html.escape(f"{card['kind']} {card['index']}: {card['title']}")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{title}</title>'
        f'<style>{style}</style></head><body class="embedded"><main id="card"></main>'
        f'<script type="application/json" id="data">{data}</script><script>{script}</script></body></html>'
    )


def card_frame(card: Mapping[str, Any], folder: Path | None = None) -> str:
    """Return a frame with one card, for a notebook: it can neither reach the page around it nor be reached by it."""
    page = html.escape(card_document(card, folder), quote=True)
    style = f"width:100%;height:{FRAME_HEIGHT}px;border:0;resize:vertical"
    title = html.escape(f"{card['kind']} {card['index']}", quote=True)
    return f'<iframe sandbox="allow-scripts" title="{title}" style="{style}" srcdoc="{page}"></iframe>'


def image_names(data: Any) -> Iterator[str]:
    """Yield the image of every example in a card."""
    if isinstance(data, Mapping):
        if isinstance(data.get("image"), str):
            yield data["image"]
        for inner in data.values():
            yield from image_names(inner)
    elif isinstance(data, list | tuple):
        for inner in data:
            yield from image_names(inner)


def _data_uri(folder: Path | None, name: str) -> str | None:
    if folder is None or not re.fullmatch(r"images/\d+\.png", name) or not (folder / name).is_file():
        return None
    return "data:image/png;base64," + base64.b64encode((folder / name).read_bytes()).decode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
