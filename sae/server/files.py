"""The files that make up the pages: fixed, few, and read once."""

import re
from functools import cache
from pathlib import Path

from sae.features.embed import ASSETS, CARD_MODULES, classic_script, read_modules

PAGES = Path(__file__).parent / "pages"
PAGE_MODULES = (
    *("server_source.js", "file_source.js", "explaining.js", "blind.js", "moving.js", "scatter.js", "table.js"),
    *("overview.js", "units.js", "rows.js", "atlas.js", "lab.js", "label.js", "feature.js", "circuit.js", "finding.js"),
    *("live.js", "sentence.js", "phrase.js", "picture.js", "asking.js", "steer_curve.js", "steer.js"),
    *("contrast_set.js", "contrast_result.js", "contrasting.js", "app.js"),
)
"""The modules of the pages, imported ones first; before them come those that draw a card."""
IMAGE_NAME = re.compile(r"[0-9]{1,12}\.png")

MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@cache
def page_files() -> dict[str, tuple[bytes, str]]:
    """Return every file of the pages by name, with its media type.

    The modules go out joined into one script: a browser that has to ask for each of them paints a card later.
    """
    paths = [*(PAGES / name for name in ("index.html", "icon.svg", "pages.css")), ASSETS / "card.css"]
    files = {path.name: (path.read_bytes(), MEDIA_TYPES[path.suffix]) for path in paths}
    script = classic_script([*read_modules(CARD_MODULES), *read_modules(PAGE_MODULES, PAGES)])
    return files | {"app.js": (script.encode(), MEDIA_TYPES[".js"])}
