"""Text search over the cards of one kind, without an index."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SNIPPET = 80


PLACES = ("title", "explanation", "words")


def matching(text: str, words: Sequence[tuple[str, str]], said: Mapping[int, str]) -> Iterator[tuple[int, int]]:
    """Yield the number of every card that holds every word of the text, whatever its case, and in which place.

    Args:
        text: words, separated by blanks; nothing matches none.
        words: title and words of every card.
        said: explanations by number of the card.
    """
    terms = text.casefold().split()
    for index, (title, rest) in enumerate(words) if terms else ():
        fields = [field.casefold() for field in (title, said.get(index, ""), rest)]
        whole = "\n".join(fields)
        if all(term in whole for term in terms):
            yield index, next((place for place, field in enumerate(fields) if terms[0] in field), 2)


def search(
    text: str, words: Sequence[tuple[str, str]], said: Mapping[int, str], limit: int | None = None
) -> dict[str, Any]:
    """Return how many cards match (see `matching`), and the first of them.

    Returns:
        `total`, and `found`: index, title, and `where` with a `snippet` around the first word; those whose title
        matches come first, then those with a matching explanation, then the rest, each by number.
    """
    hits = sorted(matching(text, words, said), key=lambda hit: (hit[1], hit[0]))
    found = []
    for index, place in hits[:limit]:
        field = (words[index][0], said.get(index, ""), words[index][1])[place]
        snippet = _snippet(field, text.casefold().split()[0])
        found.append({"index": index, "title": words[index][0], "where": PLACES[place], "snippet": snippet})
    return {"total": len(hits), "found": found}


def _snippet(text: str, term: str) -> str:
    start = max(0, text.casefold().find(term) - SNIPPET // 2)
    return text[start : start + SNIPPET]
