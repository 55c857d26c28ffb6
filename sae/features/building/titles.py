"""A few words for a latent nobody has explained yet: its strongest tokens with what comes before, or caption words."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sae.features.cards import strings

Ref = Mapping[str, Any]
LONGEST = 60
LIFT = 2.0
"""How many times commoner than usual a caption's word must be to say something."""
PLAIN = frozenset(("and", "for", "from", "that", "the", "this", "with"))
SEARCHED = 600
"""Characters of a card's words that a search looks through."""
VISIBLE = str.maketrans({"\n": "⏎", "\t": "→", "\r": "␍"})


def text_title(refs: Sequence[Ref]) -> str:
    """Name the token that most of the strongest examples peak on, with the token before where that is the same too.

    Where no token has half of them, the three commonest ones are named.
    """
    peaks = [_peak(ref) for ref in refs]
    common = Counter(token for _, token in peaks).most_common(3)
    if not common:
        return ""
    token, n = common[0]
    if 2 * n < len(peaks):
        return cut(" · ".join(visible(token) for token, _ in common))
    before, n_before = Counter(before for before, other in peaks if other == token).most_common(1)[0]
    return cut(visible(before + token if 2 * n_before > n else token))


class CaptionTitles:
    """Words that the captions of a latent's strongest images have in common, and others have not.

    Args:
        captions: of images drawn from all; they say how common a word is anyway.
    """

    def __init__(self, captions: Iterable[str]) -> None:
        found = [set(words(caption)) for caption in captions]
        self._n, self._seen = len(found), Counter(word for one in found for word in one)

    def title(self, refs: Sequence[Ref], n: int = 3) -> str:
        """Return the most telling words, in order, of those in the captions of at least a third of the images."""
        counts = Counter(word for ref in refs for word in set(words(" ".join(strings(ref.get("about", {}))))))
        telling = {word: self._lift(word, count, len(refs)) for word, count in counts.items() if len(word) > 2}
        often = [word for word in telling if 3 * counts[word] >= len(refs) and word not in PLAIN]
        best = sorted(often, key=lambda word: (-counts[word] * math.log(telling[word]), word))[:n]
        return cut(" · ".join([word for word in best if telling[word] >= LIFT] or best[:1]))

    def _lift(self, word: str, count: int, n: int) -> float:
        """Return how many times commoner a word is here than in all captions."""
        return count / n * (self._n + 1) / (self._seen[word] + 0.5)


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return re.findall(r"[^\W_]+", text.lower())


def visible(token: str) -> str:
    """Return a token's text with line ends and tabs as signs; spaces alone as signs too."""
    shown = token.translate(VISIBLE)
    return shown.strip() or "␣" * len(shown)


def cut(title: str) -> str:
    """Shorten a title to what a heading holds."""
    return title if len(title) <= LONGEST else title[: LONGEST - 1] + "…"


def searched(title: str, sections: Mapping[str, Any]) -> str:
    """Return the words of a card that a text search looks through: where it fires, what it writes, its labels."""
    found = [title]
    for ref in sections.get("examples", {}).get("top", []):
        if "tokens" in ref:
            found += [token for token, value in zip(ref["tokens"], ref["values"], strict=True) if value]
        found += strings(ref.get("about", {}))
    found += [label["label"] for label in sections.get("labels", ())]
    found += strings({name: sections.get("writes", {}).get(name, ()) for name in ("up", "captions", "words")})
    distinct = dict.fromkeys(word for text in found if (word := text.strip()))
    return " ".join(distinct)[:SEARCHED]


def _peak(ref: Ref) -> tuple[str, str]:
    """Return the token of a firing and the one before it."""
    place = ref["position"] - ref["start"]
    tokens = ref["tokens"]
    if not 0 <= place < len(tokens):
        return "", tokens[0] if tokens else ""
    return tokens[place - 1] if place else "", tokens[place]
