"""What is said about a scene: templates, some of them kept for one split."""

from collections.abc import Mapping

from sae.inputs.concepts.scene import Scene
from sae.inputs.concepts.vocabulary import COLOURS, HAIR_COLOURS, Concept

SHARED = {
    "photo": ("a photo of {x}", "{x}"),
    "sketch": ("a sketch of {x}", "a drawing of {x}"),
    "word": ("the word {w}", "text that says {w}"),
    "symbol": ("the emblem of {w}", "a symbol for {w}"),
}
OWN = {
    "subject": {
        "photo": ("a picture of {x}", "this is a photo of {x}", "this picture shows {x}"),
        "sketch": ("this is a drawing of {x}", "a line sketch that shows {x}", "lines that show {x}"),
        "word": ("this text says {w}", "{w} as text", "a picture of the word {w}"),
        "symbol": ("this is the symbol for {w}", "{w} as an emblem", "the picture of an emblem for {w}"),
    },
    "dictionary": {
        "photo": ("{x} in a photo", "the photo shows {x}"),
        "sketch": ("{x} in a sketch", "a line drawing of {x}"),
        "word": ("a text with the word {w}", "it says {w}"),
        "symbol": ("an emblem that says {w}", "{w} in a symbol"),
    },
    "score": {
        "photo": ("this photo shows {x}", "a picture that shows {x}"),
        "sketch": ("this sketch shows {x}", "a drawing that shows {x}"),
        "word": ("this is the word {w}", "a text that says {w}"),
        "symbol": ("this is the emblem of {w}", "a picture of the symbol for {w}"),
    },
}
KIND = {
    "shape": "a {w}",
    "colour": "the colour {w}",
    "digit": "the digit {w}",
    "letter": "the letter {w}",
    "pattern": "a {w} pattern",
    "object": "a {w}",
    "animal": "a {w}",
    "emotion": "a {w} face",
    "region": "{w}",
    "person": "{w}",
    "role": "a {w}",
}
N_TEMPLATES = 12
"""A scene's template number is below this; it is taken modulo the number of templates that apply."""


def templates(split: str, facet: str) -> tuple[str, ...]:
    """Return the caption templates of a facet in a split; the first two are shared by all splits."""
    return SHARED[facet] + OWN[split][facet]


def noun(word: str, family: str, adjective: str = "") -> str:
    """Return the noun phrase for a concept, with its article."""
    phrase = KIND[family].format(w=f"{adjective} {word}".strip())
    if phrase.startswith("a ") and phrase[2] in "aeiou":
        return "an" + phrase[1:]
    return phrase


def caption(scene: Scene, named: Mapping[str, Concept]) -> str:
    """Return a scene's caption: a template of its split, filled with the name and what else it mentions."""
    concept = named[scene.concept]
    known = templates(scene.split, scene.facet)
    word = scene.alias or concept.name
    adjective = scene.colour if "colour" in scene.mentions else ""
    text = known[scene.template % len(known)].format(x=noun(word, concept.family, adjective), w=word)
    if "glasses" in scene.mentions:
        text += " with glasses"
    if "hair_colour" in scene.mentions:
        text += f" with {scene.hair_colour} hair"
    if "companion" in scene.mentions:
        text += f" with {noun(scene.companion, named[scene.companion].family)}"
    if "ground" in scene.mentions:
        text += f" on {scene.ground}"
    if "text" in scene.mentions:
        text += f" and the word {scene.text}"
    return text


def vocabulary(named: Mapping[str, Concept]) -> list[str]:
    """Return every word that any caption of any split can hold, sorted."""
    texts = [text for facets in (SHARED, *OWN.values()) for group in facets.values() for text in group]
    texts += [*KIND.values(), "an with glasses hair on and the word", *COLOURS, *HAIR_COLOURS, *named]
    texts += [alias for concept in named.values() for alias in concept.aliases]
    return sorted({word for text in texts for word in text.split() if not word.startswith("{")})
