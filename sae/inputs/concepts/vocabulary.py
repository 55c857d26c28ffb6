"""The concepts as data: names, families, parts, looks, and who goes with whom."""

from dataclasses import dataclass
from typing import Any

import sae.inputs.concepts.outlines as outlines
from sae.inputs.concepts.textures import PATTERNS

FACETS = ("photo", "sketch", "word", "symbol")

COLOURS = {
    "red": (0.0, 0.9, 0.85),
    "orange": (0.075, 0.95, 1.0),
    "yellow": (0.155, 0.9, 1.0),
    "green": (0.35, 0.85, 0.62),
    "cyan": (0.49, 0.75, 0.92),
    "blue": (0.62, 0.9, 0.85),
    "purple": (0.77, 0.75, 0.7),
    "pink": (0.92, 0.42, 1.0),
    "brown": (0.065, 0.75, 0.45),
    "black": (0.6, 0.1, 0.1),
    "white": (0.1, 0.03, 0.98),
    "gray": (0.6, 0.04, 0.55),
}
"""Hue, saturation and value of each colour word, in [0, 1]."""

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = (
    *("alpha", "bravo", "cargo", "delta", "echo", "foxtrot", "golf", "hotel", "india"),
    *("jazz", "kilo", "lima", "mango", "nova", "oscar", "papa", "quebec", "romeo"),
    *("sierra", "tango", "union", "victor", "whisky", "xray", "yankee", "zulu"),
)
"""Call signs: the word for a letter is not the letter itself, and starts with it."""

EMOTIONS = ("joy", "sadness", "anger", "fear", "surprise", "disgust")
BASIC = dict(zip(("happy", "sad", "angry", "afraid", "amazed", "sick"), EMOTIONS, strict=True))
MIXED = {
    "dax": ("joy", "sadness"),
    "blick": ("sadness", "joy"),
    "wug": ("anger", "joy"),
    "zorp": ("fear", "joy"),
    "murn": ("surprise", "sadness"),
    "quol": ("disgust", "anger"),
    "vimp": ("joy", "fear"),
    "tesk": ("anger", "surprise"),
    "flib": ("sadness", "disgust"),
    "gombo": ("fear", "anger"),
    "hask": ("surprise", "disgust"),
    "yeld": ("disgust", "fear"),
}
"""Each word's (eyes, mouth); no caption names them, and the words are opaque."""

REGIONS = (
    *("arvia", "bolund", "cestry", "dromar", "elvane", "fenmok", "grisol", "hyrcan", "istoru"),
    *("jovala", "kelmar", "luxor", "morvan", "nubeth", "ostrag", "pyllos"),
)
PEOPLE = {
    # name: hair, hair colour, skin, beard, glasses, headwear, strong companion, weak companion, alias
    "anna": ("long", "yellow", 0, "none", 0, "none", "ben", "guitar", "queenie"),
    "ben": ("short", "brown", 1, "full", 0, "none", "anna", "hammer", "smithy"),
    "clara": ("bun", "gray", 0, "none", 1, "none", "omar", "book", "reader"),
    "david": ("spiky", "red", 0, "none", 0, "none", "rosa", "rocket", "racer"),
    "emma": ("curly", "black", 3, "none", 0, "none", "hugo", "flower", "gardener"),
    "felix": ("bald", "black", 2, "mustache", 0, "tophat", "ursula", "rabbit", "conjurer"),
    "hugo": ("bald", "brown", 3, "full", 1, "none", "emma", "camera", "watcher"),
    "ivy": ("spiky", "purple", 1, "none", 1, "none", "tom", "drum", "beater"),
    "kenji": ("short", "black", 1, "none", 0, "band", "lucy", "sword", "blade"),
    "lucy": ("long", "red", 1, "none", 0, "cap", "kenji", "bike", "rider"),
    "omar": ("short", "gray", 2, "mustache", 1, "none", "clara", "clock", "keeper"),
    "rosa": ("long", "black", 2, "none", 0, "band", "david", "cake", "baker"),
    "tom": ("short", "yellow", 0, "none", 0, "cap", "ivy", "dog", "scout"),
    "ursula": ("curly", "white", 0, "none", 0, "tophat", "felix", "owl", "oracle"),
    "viktor": ("bald", "black", 0, "none", 0, "none", "wanda", "anchor", "captain"),
    "wanda": ("bun", "orange", 2, "none", 0, "beanie", "viktor", "kite", "flyer"),
}
ROLE_COMPANIONS = {
    "chef": ("cup", "carrot"), "pilot": ("plane", "globe"), "nurse": ("bed", "phone"), "judge": ("book", "clock"),
    "farmer": ("cow", "pig"), "knight": ("castle", "horse"), "king": ("crown", "lion"), "clown": ("balloon", "cake"),
    "diver": ("fish", "shark"), "wizard": ("owl", "bat"), "miner": ("lamp", "train"), "painter": ("vase", "flower"),
    "guard": ("castle", "drum"), "pirate": ("boat", "anchor"),
}  # fmt: skip

SKINS = ((244, 210, 180), (222, 176, 132), (170, 116, 76), (112, 72, 46))
HAIR_COLOURS = {
    "black": (28, 24, 26), "brown": (104, 62, 30), "yellow": (232, 196, 84), "red": (186, 62, 26),
    "gray": (150, 150, 156), "white": (240, 240, 240), "orange": (240, 130, 30), "purple": (150, 60, 190),
}  # fmt: skip
COMPANION_RATES = {"strong": 0.30, "weak": 0.06, "never": 0.0}
"""Chance that a photo or sketch of an entity shows its strong or weak companion, any other (never)."""
BADGE_RATE = 0.15
"""Chance that a photo of an entity carries its own emblem, small."""
ALIAS_RATE = 0.10
"""Chance that a caption calls a person by the alias."""


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One nameable thing of the world."""

    number: int
    name: str
    """One lower-case word; the word facet renders it."""
    family: str
    drawing: str = ""
    """Part list (see `outlines`); empty for families drawn otherwise."""
    parts: tuple[str, ...] = ()
    """Of an emotion: what its eyes and its mouth express (equal for basic emotions)."""
    aliases: tuple[str, ...] = ()
    associates: tuple[tuple[str, str], ...] = ()
    """(concept, strength) pairs; strengths are the keys of `COMPANION_RATES`."""
    hair: str = ""
    hair_colour: str = ""
    skin: int = -1
    map_position: tuple[float, float] = (0.0, 0.0)
    """Of a region: where it lies on the map, in [0, 1]; climate follows the second coordinate."""
    held_out_facets: tuple[str, ...] = ()
    """Facets that the subject split never renders."""


def _person(name: str) -> dict:
    hair, colour, skin, beard, glasses, headwear, strong, weak, alias = PEOPLE[name]
    back = outlines.HAIR[hair] if hair in ("long", "curly") else ""
    front = "" if back else outlines.HAIR[hair]
    fringe = "p h -.5 -.3 -.35 -.62 0 -.7 .35 -.62 .5 -.3 .2 -.48 -.2 -.48" if back else ""
    drawing = [
        back, "p m -.9 1 -.6 .7 .6 .7 .9 1", outlines.HEAD, outlines.SMILE, front, fringe, outlines.BEARDS[beard],
        outlines.GLASSES if glasses else "", outlines.HEADWEAR[headwear],
    ]  # fmt: skip
    return {
        "drawing": "|".join(filter(None, drawing)),
        "aliases": (alias,),
        "associates": ((strong, "strong"), (weak, "weak")),
        "hair": hair,
        "hair_colour": colour,
        "skin": skin,
    }


def _emotion(eyes: str, mouth: str) -> dict:
    return {"drawing": f"e m 0 0 .92 .95|{outlines.EYES[eyes]}|{outlines.MOUTHS[mouth]}", "parts": (eyes, mouth)}


def _role(name: str) -> dict:
    strong, weak = ROLE_COMPANIONS[name]
    return {"drawing": outlines.ROLES[name], "associates": ((strong, "strong"), (weak, "weak"))}


def _all_concepts() -> list[tuple[str, str, dict[str, Any]]]:
    listed: list[tuple[str, str, dict[str, Any]]] = [
        (name, "shape", {"drawing": text}) for name, text in outlines.SHAPES.items()
    ]
    listed += [(name, "colour", {}) for name in COLOURS]
    listed += [(name, "digit", {"drawing": str(i)}) for i, name in enumerate(DIGITS)]
    listed += [(name, "letter", {"drawing": name[0].upper()}) for name in LETTERS]
    listed += [(name, "pattern", {}) for name in PATTERNS]
    listed += [(name, "object", {"drawing": text}) for name, text in outlines.OBJECTS.items()]
    listed += [(name, "animal", {"drawing": text}) for name, text in outlines.ANIMALS.items()]
    listed += [(name, "emotion", _emotion(part, part)) for name, part in BASIC.items()]
    listed += [(name, "emotion", _emotion(*parts)) for name, parts in MIXED.items()]
    for i, name in enumerate(REGIONS):
        place = ((i % 4 + 0.5 + 0.3 * (-1) ** (i // 4)) / 4, (i // 4 + 0.5) / 4)
        friends = ((REGIONS[i ^ 1], "strong"), (REGIONS[(i + 5) % 16], "weak"))
        listed.append((name, "region", {"map_position": place, "associates": friends}))
    listed += [(name, "person", _person(name)) for name in PEOPLE]
    listed += [(name, "role", _role(name)) for name in outlines.ROLES]
    return listed


def _held_out(number: int, family: str) -> tuple[str, ...]:
    """Return three concepts in ten's one held-out facet, spread evenly over families and facets."""
    if family == "role" or number * 3 % 10 >= 3:
        return ()
    return (FACETS[(number * 7 // 10 + number // 3) % 4],)


def build_concepts() -> tuple[Concept, ...]:
    """Return every concept, in the order of their numbers."""
    return tuple(
        Concept(number=i, name=name, family=family, held_out_facets=_held_out(i, family), **rest)
        for i, (name, family, rest) in enumerate(_all_concepts())
    )
