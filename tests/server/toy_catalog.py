"""A small catalog with every section filled, of text or of images, with text that means harm; no torch."""

import io
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sae.features.cards import Card
from sae.features.catalog import CARDS_PER_SHARD, KINDS, About, write_columns, write_json, write_shard

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
RIGHT_TO_LEFT = "\u202eمرحبا بالعالم\u202c"
EMOJI = "👩🏽‍🚀🏳️‍🌈"
ENDLESS = "x" * 10_000
HOSTILE = (SCRIPT, RIGHT_TO_LEFT, EMOJI, ENDLESS, "</script>", "\u0000\u2028\u200b\t\n", "']];alert(1)//", "__proto__")
WORDS = [
    "def",
    "self",
    "return",
    "import",
    "class",
    "the",
    "of",
    "not",
    "in",
    "for",
    "if",
    "None",
    "True",
    "name",
    "value",
    "path",
    "items",
    "key",
    "args",
    "yield",
]
CONCEPTS = ("kite", "lighthouse", "teapot", "fern", "anchor", "violin")
FACETS = ("photo", "sketch", "word", "symbol")
PHRASES = (
    (
        "underscore in a dunder name",
        "closing bracket of a call",
        "indent after a colon",
        "the word self",
        "docstring opens",
    ),
    ("kites against the sky", "curved handles", "striped towers", "leaves in rows", "bodies with strings"),
)
FACTS = [["FVU", "0.25"], ["L0", "31.8"]]


def write_toy_catalog(
    folder: Path, modality: str = "text", n_latents: int = 700, n_neurons: int = 12, n_directions: int = 0
) -> Path:
    """Write a catalog; card 0 is the hostile one."""
    counts = {"latent": n_latents, "neuron": n_neurons, "direction": n_directions}
    counts = {kind: count for kind, count in counts.items() if count}
    for kind, count in counts.items():
        shelf = folder / KINDS[kind]
        titles = []
        for number in range(math.ceil(count / CARDS_PER_SHARD)):
            first = number * CARDS_PER_SHARD
            cards = [
                toy_card(kind, index, modality, n_latents)
                for index in range(first, min(count, first + CARDS_PER_SHARD))
            ]
            write_shard(shelf, number, [card.packed() for card in cards])
            titles += [
                (card.title, f"{card.title} {' '.join(WORDS[i % 20] for i in range(card.index, card.index + 6))}")
                for card in cards
            ]
        write_json(shelf / "words.json", titles)
        write_columns(shelf, toy_columns(count))
    if modality == "image":
        write_images(folder / "images")
    write_json(folder / "overview.json", toy_overview(modality))
    about = About(
        dictionary={"repr": "TopK(d_in=512, d_sae=700)", "hash": "0123abcd", "d_in": 512, "d_sae": n_latents},
        subject="builtin:stdlib-1l" if modality == "text" else "builtin:concepts-clip-rn",
        hookpoint="blocks.0.mlp.hook_post" if modality == "text" else "visual.layer4.0.hook_post",
        store="4567ef",
        modality=modality,
        n_vectors=412_000,
        n_examples=3_200,
        counts={KINDS[kind]: count for kind, count in counts.items()},
        complete=True,
    )
    about.save(folder)
    return folder


def toy_card(kind: str, index: int, modality: str, n_latents: int) -> Card:
    rng = random.Random(f"{kind} {index}")
    title = SCRIPT if index == 0 else f"{rng.choice(PHRASES[modality == 'image'])} {index}"
    strongest = 4 + 6 * rng.random()

    def reference(value: float) -> dict[str, Any]:
        return image_reference(rng, value) if modality == "image" else text_reference(rng, value, hostile=index == 0)

    def references(count: int, low: float, high: float) -> list[dict[str, Any]]:
        return [reference(round(rng.uniform(low, high), 3)) for _ in range(count)]

    top = sorted(references(20, 0.7 * strongest, strongest), key=lambda one: -one["value"])
    top[0]["value"] = round(strongest, 3)
    tenths = [(i / 10, (i + 1) / 10) for i in range(10)]
    sections: dict[str, Any] = {
        "statistics": {
            "rate": round(10 ** rng.uniform(-4.5, -1), 6),
            "n_fired": rng.randrange(50, 9000),
            "n_vectors": 412_000,
            "max": round(strongest, 3),
            "mean": round(strongest / 4, 3),
            "histogram": bell([round(10 ** (-2 + 3 * i / 40), 4) for i in range(41)], 0.6),
            "linear": {
                "edges": [round(strongest * i / 30, 3) for i in range(31)],
                "counts": [int(9000 * math.exp(-i / 4)) for i in range(30)],
            },
        },
        "examples": {
            "top": top,
            "quantiles": [
                {"low": a, "high": b, "examples": references(2, a * strongest, b * strongest)} for a, b in tenths
            ],
            "levels": [
                {
                    "low": round(a * strongest, 2),
                    "high": round(b * strongest, 2),
                    "examples": references(2, a * strongest, b * strongest),
                }
                for a, b in tenths[::2]
            ],
            "random": references(6, 0, 0.2),
            "near": references(4, 0, 0.1),
            "negative": references(4, -3, -1),
        },
        "writes": writes(rng, modality, hostile=index == 0),
        "neurons": {
            "reads": pairs(rng, 12, 8, signed=True),
            "writes": pairs(rng, 12, 8, signed=True),
            "correlated": pairs(rng, 12, 6),
            "share": 0.12,
        },
        "neighbours": {
            "decoder": pairs(rng, n_latents, 8),
            "coactivation": pairs(rng, n_latents, 8),
            "examples": pairs(rng, n_latents, 6),
            "parents": [{"dictionary": "topk-256", "latents": [[12, 0.81]]}],
            "children": [{"dictionary": "topk-4096", "latents": [[1200, 0.72], [77, 0.61]]}],
        },
        "labels": [
            {
                "label": label if modality == "text" else f"concept={label}",
                "auc": round(0.99 - i * 0.06, 3),
                "auc_control": round(0.8 - i * 0.05, 3),
                "average_precision": round(0.7 - i * 0.1, 3),
                "levels": [
                    [round(a * strongest, 2), round(b * strongest, 2), round((a + 0.1) * 0.95, 3)]
                    for a, b in tenths[::2]
                ],
            }
            for i, label in enumerate(
                ("role=argument", "kind=dunder", "position=after a dot", "depth=3")
                if modality == "text"
                else CONCEPTS[:4]
            )
        ],
        "scores": {
            "monosemanticity": {"value": 0.41, "control": 0.2, "against": "neurons", "low": 0.18, "high": 0.22},
            "explanation_correlation": {"value": 0.63, "control": 0.31, "low": 0.25, "high": 0.38},
        },
    }
    if modality == "image":
        sections["facets"] = {
            facet: {concept: round(rng.uniform(0.45, 1), 3) for concept in CONCEPTS} for facet in FACETS
        }
    if kind == "latent":
        sections["held_out"] = held_out(rng, modality, hostile=index == 0)
    if kind == "neuron":
        sections = {name: sections[name] for name in ("statistics", "examples", "labels")} | {
            "mixture": mixture(rng, n_latents)
        }
    if kind == "direction":
        near = {"decoder": pairs(rng, n_latents, 8), "encoder": pairs(rng, n_latents, 8)}
        shares = [[latent, round(0.3 + 0.05 * i, 3)] for i, latent in enumerate(rng.sample(range(n_latents), 5))]
        sections = {name: sections[name] for name in ("statistics", "examples", "writes", "labels")}
        sections |= {"neighbours": near, "carried": {"latents": shares, "control": [0.05, 0.09, 0.12, 0.15, 0.17]}}
    return Card(kind=kind, index=index, title=title, sections=sections)


def held_out(rng: random.Random, modality: str, hostile: bool) -> list[dict[str, Any]]:
    """Six examples on which it fires, and six on which it does not, without values for their tokens and patches."""
    found = []
    for i in range(12):
        ref = text_reference(rng, 2.5, hostile) if modality == "text" else image_reference(rng, 2.5)
        kept = {name: value for name, value in ref.items() if name not in ("values", "losses", "grid")}
        kept |= {"example": i, "image": f"images/{i:06d}.png"} if modality == "image" else {}
        found.append({"fires": i < 6, "near": 6 <= i < 9} | kept | {"value": 2.5 if i < 6 else 0})
    return found


def text_reference(rng: random.Random, value: float, hostile: bool) -> dict[str, Any]:
    start = rng.randrange(0, 60)
    tokens = [rng.choice(("", " ", "\n    ")) + rng.choice([*WORDS, "(", ")", ".", "_", ":", '"']) for _ in range(41)]
    if hostile:
        for place, text in enumerate(HOSTILE):
            tokens[16 + place] = text
    values: list[float | None] = [round(max(0.0, value * rng.uniform(-2.4, 0.8)), 3) for _ in tokens]
    values[20] = value
    values[0] = None
    losses = [round(rng.gauss(0, 0.02), 4) for _ in tokens]
    return {
        "example": rng.randrange(3200),
        "position": start + 20,
        "value": value,
        "start": start,
        "tokens": tokens,
        "values": values,
        "losses": losses,
    }


def image_reference(rng: random.Random, value: float) -> dict[str, Any]:
    number, cell = rng.randrange(24), rng.randrange(16)
    row, column = divmod(cell, 4)
    values = [round(value * math.exp(-((i // 4 - row) ** 2 + (i % 4 - column) ** 2) / 1.2), 3) for i in range(16)]
    concept, facet = CONCEPTS[number % 6], FACETS[number // 6]
    about = {"concept": concept, "facet": facet, "caption": f"a {facet} of a {concept}"}
    return {
        "example": number,
        "position": cell,
        "value": value,
        "image": f"images/{number:06d}.png",
        "grid": [4, 4],
        "values": values,
        "about": about,
    }


def writes(rng: random.Random, modality: str, hostile: bool) -> dict[str, Any]:
    if modality == "image":
        captions = [
            [f"a {facet} of a {concept}", round(0.4 - 0.03 * i, 3)]
            for i, (facet, concept) in enumerate(zip(FACETS, CONCEPTS, strict=False))
        ]
        return {
            "captions": captions,
            "words": [[concept, round(0.35 - 0.04 * i, 3)] for i, concept in enumerate(CONCEPTS)],
            "alignment": 0.22,
        }
    up = [[f" {word}", round(1.2 / (i + 1), 3)] for i, word in enumerate(rng.sample(WORDS, 8))]
    if hostile:
        up[: len(HOSTILE)] = [[text, value] for text, (_, value) in zip(HOSTILE, up, strict=True)]
    down = [[f"{word}", round(-0.9 / (i + 1), 3)] for i, word in enumerate(rng.sample(WORDS, 8))]
    return {
        "up": up,
        "down": down,
        "histogram": bell([round(-1 + i / 20, 3) for i in range(41)], 0.5),
        "loss": {"ablation": 0.0123, "n": 40},
    }


def bell(edges: list[float], centre: float) -> dict[str, Any]:
    n = len(edges) - 1
    return {"edges": edges, "counts": [int(2000 * math.exp(-(((i + 0.5) / n - centre) ** 2) / 0.03)) for i in range(n)]}


def pairs(rng: random.Random, n: int, count: int, signed: bool = False) -> list[list[Any]]:
    chosen = rng.sample(range(n), min(count, n))
    return [[one, round((rng.choice((-1, 1)) if signed else 1) * 0.8 / (1 + i / 3), 3)] for i, one in enumerate(chosen)]


def mixture(rng: random.Random, n_latents: int) -> dict[str, Any]:
    parts = [
        {
            "label": f"concept={concept}",
            "auc": round(0.9 - 0.08 * i, 3),
            "latents": [
                [one, round(0.97 - 0.02 * j, 3), round(0.4 / (j + 1), 3)]
                for j, one in enumerate(rng.sample(range(n_latents), 3 - i))
            ],
            "variance_explained": round(0.4 / (i + 1), 3),
            "resolved": i < 2,
        }
        for i, concept in enumerate(CONCEPTS[:3])
    ]
    return {"parts": parts, "unresolved": 0.3}


def toy_columns(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 8, count)
    angle = cluster * 2 * np.pi / 8
    columns = {
        "rate": 10 ** rng.uniform(-5, -1, count),
        "max": rng.gamma(4, 2, count),
        "mean": rng.gamma(2, 1, count),
        "n_fired": rng.integers(0, 40_000, count),
        "score.monosemanticity": rng.beta(2, 3, count),
        "score.detection": rng.beta(4, 2, count),
        "label_auc": rng.uniform(0.5, 1, count),
        "map_x": 5 * np.cos(angle) + rng.normal(0, 1, count),
        "map_y": 5 * np.sin(angle) + rng.normal(0, 1, count),
        "cluster": cluster,
    }
    columns["label_auc"][::7] = np.nan
    return {name: values.astype(np.float32) for name, values in columns.items()}


def toy_overview(modality: str) -> dict[str, Any]:
    def score(
        name: str, value: float, better: str, control: str | None = None, other: float = 0.0, verdict: str = ""
    ) -> dict[str, Any]:
        row = {
            "name": name,
            "value": value,
            "unit": "latents",
            "n": 700,
            "better": better,
            "low": value - 0.02,
            "high": value + 0.02,
        }
        return row | ({"control": control, "control_value": other, "verdict": verdict} if control else {})

    return {
        "report": [
            score("l0", 31.8, "neither"),
            score("fvu", 0.25, "lower", "pca", 0.19, "higher"),
            score("label_auc", 0.91, "higher", "neurons", 0.84, "higher"),
            score("monosemanticity", 0.41, "higher", "neurons", 0.22, "not distinguishable"),
        ],
        "controls": {
            "neurons": {"description": "raw neurons", "scores": {"label_auc": 0.84, "monosemanticity": 0.22}},
            "random_directions": {"description": "random directions", "scores": {"label_auc": 0.71, "fvu": 0.9}},
            "pca": {"description": "PCA", "scores": {"label_auc": 0.79, "fvu": 0.19}},
        },
        "log_rates": bell([round(-6 + i / 8, 3) for i in range(41)], 0.55),
        "clusters": [{"id": i, "title": PHRASES[modality == "image"][i % 5], "n": 80} for i in range(8)],
        "facts": FACTS,
    }


def write_images(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(24):
        rows, columns = np.mgrid[0:64, 0:64]
        phase = number * 0.7
        waves = [np.sin(rows / (4 + number % 5) + phase + c) * np.cos(columns / (5 + number % 3) + c) for c in range(3)]
        pixels = ((np.stack(waves, axis=-1) + 1) * 127).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        (folder / f"{number:06d}.png").write_bytes(buffer.getvalue())
