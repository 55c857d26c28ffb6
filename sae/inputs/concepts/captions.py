"""What is said about a scene: templates, some of them kept for one split."""

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
