"""Findings of the laboratory in a toy catalog, and a labelling of pictures; no torch."""

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image
from toy_catalog import SCRIPT

from sae.features.catalog import About, write_json
from sae.features.judging.labelling import Labelling

SHA = "ab" * 32
CATEGORIES = ("cat", SCRIPT, "other")
ITEM = [4, 9, 2, 4, 7, 9]
"""Items 4 and 9 are shown twice."""
ROWS = [
    {"latent": 2 * i, "unit": f"neuron:{i}", "bits": i / 7 if i else "", "label": f"label {i % 5}"} for i in range(60)
]


def png(shade: int, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (shade, 90, 200)).save(file, format="png")
    return file.getvalue()


def add_findings(catalog: Path) -> Path:
    """Make a catalog one of the dictionary `SHA`, and add findings: one of rows, one of latent 3, one of another."""
    about = json.loads((catalog / "catalog.json").read_text())
    about["dictionary"]["sha256"] = SHA
    write_json(catalog / About.FILE, about)
    figures = {"base rate": 0.1, "latents, AUC": 0.9, "neurons, AUC": 0.7, "random_directions, AUC": 0.5}
    add_finding(catalog, "search", f"One in three is found. {SCRIPT}", rows=ROWS, figures=figures)
    add_finding(
        catalog, "steer-latent-3", "It moves the answer.", method="steer", settings={"latent": 3}, rows=[{"dose": 1}]
    )
    add_finding(catalog, "odd", "of others", about={"dictionary": {"sha256": "cd" * 32}})
    for number in range(30):
        (catalog / "lab" / "search" / f"latent-{number}-photo.png").write_bytes(png(number))
    return catalog


def add_finding(catalog: Path, name: str, verdict: str, **more: Any) -> Path:
    folder = catalog / "lab" / name
    folder.mkdir(parents=True)
    data: dict[str, Any] = {"method": "search", "verdict": verdict, "figures": {}, "rows": [], "settings": {"seed": 0}}
    data |= {
        "about": {"dictionary": {"sha256": SHA}, "store": {"sha256": "ef" * 32}},
        "pictures": {"plot": "what to read"},
    }
    (folder / "plot.png").write_bytes(png(250, (300, 200)))
    write_json(folder / f"{(data | more)['method']}.json", data | more)
    return folder


def add_labelling(catalog: Path) -> Labelling:
    """Add pictures whose shade is the number of their item, of two units each shown twice."""
    folder = add_finding(catalog, "label-latent-3", "waits for raters", method="label", settings={"unit": "latent:3"})
    key = {"item": ITEM, "level": [7, 3, 1, 7, 2, 3], "settings": {"unit": "latent:3", "n_levels": 10}}
    return Labelling.write(folder, CATEGORIES, [{}] * len(ITEM), key, [png(20 * item) for item in ITEM])
