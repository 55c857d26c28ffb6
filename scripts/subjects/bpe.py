"""Byte-pair merges for open_clip's SimpleTokenizer, learnt from a small list of words."""

import gzip
import itertools
from collections import Counter
from pathlib import Path

N_BYTES = 256


def learn_merges(words: dict[str, int], n_merges: int) -> list[tuple[str, str]]:
    """Return merges in order of rank: each joins the pair of neighbouring pieces that is most frequent at the time.

    Args:
        words: lower-case ASCII words and how often each occurs; the last letter of a word carries `</w>`.
        n_merges: at most this many; fewer when every word is one piece before that.
    """
    pieces = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges = []
    while len(merges) < n_merges:
        pairs = Counter()
        for word, parts in pieces.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        pieces = {word: _merged(parts, best) for word, parts in pieces.items()}
    return merges


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    joined, i = [], 0
    while i < len(parts):
        if tuple(parts[i : i + 2]) == pair:
            joined.append(parts[i] + parts[i + 1])
            i += 2
        else:
            joined.append(parts[i])
            i += 1
    return joined


def write_merges(path: Path, merges: list[tuple[str, str]]) -> int:
    """Write merges as SimpleTokenizer reads them (a header line, one pair a line) and return the vocabulary's size."""
    text = "\n".join(["version", *(" ".join(pair) for pair in merges)])
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return 2 * N_BYTES + len(merges) + 2
