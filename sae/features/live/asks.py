"""What questions a catalog can answer while its subject is loaded, and what answers them.

A question comes as plain data and its answer goes back as plain data, so a page can put it. Every kind of question is
one class with `about` and `__call__` (see `server/live.py`), and is here only if this subject can answer it.
"""

from collections.abc import Callable
from typing import Any

from sae.features.circuits.circuit import CircuitAsk
from sae.features.live.contrast_sets import ContrastAsk
from sae.features.live.image import ImageAsk
from sae.features.live.loaded import Loaded
from sae.features.live.phrase import PhraseAsk
from sae.features.live.sentence import SentenceAsk

__all__ = ["KINDS_OF_ASK", "Loaded", "asks_of"]

KINDS_OF_ASK: dict[str, Callable[[Loaded], Any | None]] = {
    "sentence": SentenceAsk.of,
    "phrase": PhraseAsk.of,
    "image": ImageAsk.of,
    "contrast": ContrastAsk.of,
    "circuit": CircuitAsk.of,
}
"""What makes the answering object of each kind of question; None where this subject cannot answer it."""


def asks_of(loaded: Loaded) -> dict[str, Any]:
    """Return what answers questions, by name."""
    made = {name: make(loaded) for name, make in KINDS_OF_ASK.items()}
    return {name: ask for name, ask in made.items() if ask is not None}
