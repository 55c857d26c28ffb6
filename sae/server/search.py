"""Text search over the cards of one kind, without an index."""

from collections.abc import Mapping, Sequence
from typing import Any

SNIPPET = 80


def search(text: str, words: Sequence[tuple[str, str]], said: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return the cards that hold every word of the text, whatever its case.

    Args:
        text: words, separated by blanks.
        words: title and words of every card.
        said: explanations by number of the card.

    Returns:
        index, title, and `where` with a `snippet` around the first word; those whose title matches come first, then
        those with a matching explanation, then the rest, each by number.
    """
    terms = text.casefold().split()
    if not terms:
        return []
    found: tuple[list[dict[str, Any]], ...] = ([], [], [])
    for index, (title, rest) in enumerate(words):
        fields = (title, said.get(index, ""), rest)
        whole = "\n".join(fields).casefold()
        if not all(term in whole for term in terms):
            continue
        place = next((i for i, field in enumerate(fields) if terms[0] in field.casefold()), 2)
        where = ("title", "explanation", "words")[place]
        hit = {"index": index, "title": title, "where": where, "snippet": _snippet(fields[place], terms[0])}
        found[place].append(hit)
    return [hit for hits in found for hit in hits]


def _snippet(text: str, term: str) -> str:
    start = max(0, text.casefold().find(term) - SNIPPET // 2)
    return text[start : start + SNIPPET]
