"""Exact labels for Python text, from `tokenize` and `ast`: what every token is, where it stands, what it means there.

A file is labelled character by character, then a model's token takes the label of its first visible character (so a
token that joins several Python tokens, as "):", counts as the first). A label is -1 where a family says nothing, which
all do about boundary tokens and files that do not parse. An f-string is one string, as it was before Python 3.12, so
that versions agree.

Families, and what is less than obvious in them:

    role      what the token is; "name" is any other name, "constant" is True, False, None. Soft keywords are names.
    bracket   open brackets around it (a bracket itself counts as outside); `enclosure` is the innermost one's meaning
    indent    depth of blocks; a comment on its own line has the depth of the block before it
    line      place in the physical line; "only" is first and last; nothing for blank tokens
    sense     which use of a token with several: `in` of a loop or a test, `*` as product or star
    word      the whole word that begins here, in code or prose, from a fixed list: the same surface in different roles
    package   the top-level package or module that the file belongs to: its topic
    word_role, word_package   both together: the senses of a word
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int8, Int16

from sae.errors import InputsError, nearest
from sae.inputs import python_syntax

WORDS = (
    *("the", "a", "of", "to", "in", "is", "and", "for", "not", "if", "or", "be", "this", "with", "as", "by", "from"),
    *("on", "it", "that", "an", "are", "at", "all", "no", "else", "return", "None", "True", "import", "class", "self"),
    *("name", "value", "file", "string", "data", "type", "key", "line", "path", "error", "message", "object", "list"),
    *("text", "code", "time", "set", "open", "module", "default", "arguments", "str", "int", "len", "print"),
)
"""Frequent words, of English and of Python, that stand in several roles or packages."""

PACKAGES = (
    *("_pydecimal", "_pyio", "argparse", "ast", "asyncio", "collections", "concurrent", "configparser", "ctypes"),
    *("dataclasses", "difflib", "doctest", "email", "enum", "functools", "html", "http", "idlelib", "imaplib"),
    *("importlib", "inspect", "ipaddress", "json", "locale", "logging", "mailbox", "multiprocessing", "optparse"),
    *("pathlib", "pdb", "pickle", "pickletools", "platform", "pydoc", "re", "shutil", "smtplib", "socket", "ssl"),
    *("statistics", "subprocess", "tarfile", "threading", "tkinter", "traceback", "turtle", "turtledemo", "typing"),
    *("unittest", "urllib", "wsgiref", "xml", "xmlrpc", "zipfile"),
)
"""Top-level packages and large modules found in every supported Python."""

_SINGLE: dict[str, tuple[str, ...]] = {
    "role": python_syntax.ROLES,
    "bracket": ("0", "1", "2", "3+"),
    "enclosure": python_syntax.ENCLOSURES,
    "indent": ("0", "1", "2", "3", "4+"),
    "line": ("first", "last", "only", "inside"),
    "sense": python_syntax.SENSES,
    "word": WORDS,
    "package": PACKAGES,
}
_CROSSED = {"word_role": ("word", "role", "as"), "word_package": ("word", "package", "in")}

LABELS: dict[str, tuple[str, ...]] = _SINGLE | {
    family: tuple(f"{a} {joint} {b}" for a in _SINGLE[one] for b in _SINGLE[other])
    for family, (one, other, joint) in _CROSSED.items()
}
"""The classes of every family; labels are indices into these, or -1 where a family says nothing."""

_WORD = re.compile(r"\b[A-Za-z]+\b")
_CODE_OF_WORD = {word: code for code, word in enumerate(WORDS)}


@dataclass(frozen=True, kw_only=True)
class FileLabels:
    """Labels of every character of one file, for the families that do not depend on where a token ends.

    `opens_line` and `closes_line` mark the outermost visible characters of a physical line.
    """

    families: Mapping[str, Int8[np.ndarray, " char"]]
    visible: Bool[np.ndarray, " char"]
    opens_line: Bool[np.ndarray, " char"]
    closes_line: Bool[np.ndarray, " char"]

    def of_tokens(
        self, begin: Int[np.ndarray, " token"], end: Int[np.ndarray, " token"]
    ) -> dict[str, Int16[np.ndarray, " token"]]:
        """Return the labels of tokens that cover the characters from `begin` up to `end` of the file."""
        base, limit = int(begin.min()), int(end.max())
        visible, places = self.visible[base:limit], np.arange(base, limit)
        following = np.minimum.accumulate(np.where(visible, places, limit)[::-1])[::-1][begin - base]
        blank = following >= end
        first = np.where(blank, begin, following)
        last = np.maximum.accumulate(np.where(visible, places, base))[end - 1 - base]
        labels = {family: codes[first].astype(np.int16) for family, codes in self.families.items()}
        opens, closes = self.opens_line[first], self.closes_line[last]
        place = np.select([blank, opens & closes, opens, closes], [-1, 2, 0, 1], default=3)
        labels["line"] = place.astype(np.int16)
        for family, (one, other, _) in _CROSSED.items():
            silent = (labels[one] < 0) | (labels[other] < 0)
            joint = labels[one] * len(LABELS[other]) + labels[other]
            labels[family] = np.where(silent, -1, joint).astype(np.int16)
        return {family: labels[family] for family in LABELS}


def label_file(source: str, path: str) -> FileLabels | None:
    """Label a whole file; `path` is relative to the library. None where Python cannot parse it."""
    segments = python_syntax.segments(source)
    if segments is None:
        return None
    characters = np.frombuffer(source.encode("utf-32-le"), dtype=np.uint32)
    visible = characters > ord(" ")
    line_ends = characters == ord("\n")
    families = {family: np.repeat(codes, segments.lengths) for family, codes in segments.families.items()}
    blank = families["role"] == python_syntax.ROLES.index("whitespace")
    families["role"][blank & line_ends] = python_syntax.ROLES.index("newline")
    families["word"] = np.full(len(characters), -1, dtype=np.int8)
    for found in _WORD.finditer(source):
        families["word"][found.start()] = _CODE_OF_WORD.get(found.group(), -1)
    topic = path.split("/")[0].removesuffix(".py")
    package = PACKAGES.index(topic) if topic in PACKAGES else -1
    families["package"] = np.full(len(characters), package, dtype=np.int8)
    seen = np.flatnonzero(visible)
    changes = np.diff(np.cumsum(line_ends)[seen], prepend=-1, append=len(source)) > 0
    opens, closes = np.zeros((2, len(characters)), dtype=bool)
    opens[seen[changes[:-1]]] = True
    closes[seen[changes[1:]]] = True
    return FileLabels(families=families, visible=visible, opens_line=opens, closes_line=closes)


def column_counts(labels: Mapping[str, np.ndarray]) -> Counter[str]:
    """Count the tokens of every class, by names such as "role=keyword"; counts of batches add up."""
    counts: Counter[str] = Counter()
    for family, classes in LABELS.items():
        found = np.bincount(labels[family].ravel().astype(int) + 1)[1:]
        counts.update({f"{family}={classes[code]}": int(found[code]) for code in np.flatnonzero(found)})
    return counts


def binary_columns(
    labels: Mapping[str, np.ndarray], min_count: int = 1, names: Sequence[str] | None = None
) -> dict[str, Bool[np.ndarray, "*shape"]]:
    """Return named yes-or-no columns, each shaped as the labels.

    Args:
        labels: class indices per family, as `StdlibText.labels` returns them.
        min_count: without `names`, keep columns with at least this many tokens here.
        names: the columns to make. In a stream, add up `column_counts` first, choose the names once, then give them
            with every batch.

    Raises:
        InputsError: a name that is no column.
    """
    if names is None:
        names = sorted(name for name, count in column_counts(labels).items() if count >= min_count)
    return {name: _is(labels, name) for name in names}


def _is(labels: Mapping[str, np.ndarray], column: str) -> np.ndarray:
    family, _, name = column.partition("=")
    if family not in LABELS:
        raise InputsError(f"label column {column!r}: no family {family!r}.{nearest(family, LABELS)}")
    if name not in LABELS[family]:
        raise InputsError(f"label column {column!r}: no class {name!r}.{nearest(name, LABELS[family])}")
    return labels[family] == LABELS[family].index(name)
