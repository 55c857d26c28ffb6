"""Exact labels for Python text, from `tokenize` and `ast`: what every token is, where it stands, what it means there.

A file is labelled character by character, then a model's token takes the label of its first visible character (so a
token that joins several Python tokens, as "):", counts as the first). Class 0 of every family is "unlabelled": boundary
tokens, and files that do not parse. An f-string is one string, as it was before Python 3.12, so that versions agree.

Families, and what is less than obvious in them:

    role      what the token is; "name" is any other name, "constant" is True, False, None. Soft keywords are names.
    bracket   open brackets around it (a bracket itself counts as outside); `enclosure` is the innermost one's meaning
    indent    depth of blocks; a comment on its own line has the depth of the block before it
    line      place in the physical line; "only" is first and last, blank tokens have "none"
    sense     which use of a token with several: `in` of a loop or a test, `*` as product or star
    word      the whole word that begins here, in code or prose, from a fixed list: the same surface in different roles
    package   the top-level package or module that the file belongs to: its topic
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt8

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

LABELS: dict[str, tuple[str, ...]] = {
    "role": python_syntax.ROLES,
    "bracket": ("unlabelled", "0", "1", "2", "3+"),
    "enclosure": python_syntax.ENCLOSURES,
    "indent": ("unlabelled", "0", "1", "2", "3", "4+"),
    "line": ("unlabelled", "none", "first", "last", "only", "inside"),
    "sense": python_syntax.SENSES,
    "word": ("unlabelled", "none", *WORDS),
    "package": ("unlabelled", "other", *PACKAGES),
}
"""The classes of every family; labels are indices into these."""

CROSSED = (("word", "role"), ("word", "package"))
"""Pairs of families whose combinations are columns too: the senses of a word."""

_RESIDUE = {"unlabelled", "none", "other"}
_WORD = re.compile(rf"(?<!\w)(?:{'|'.join(sorted(WORDS, key=len, reverse=True))})(?!\w)")


@dataclass(frozen=True, kw_only=True)
class FileLabels:
    """Labels of every character of one file, one array per family but `line`, which depends on where a token ends.

    `next_visible` and `last_visible` are, for every character, the nearest visible one at or after and at or before it
    (the length of the file, and -1, where there is none); `opens_line` and `closes_line` mark the outermost ones.
    """

    families: Mapping[str, UInt8[np.ndarray, " char"]]
    next_visible: Int[np.ndarray, " char"]
    last_visible: Int[np.ndarray, " char"]
    opens_line: Bool[np.ndarray, " char"]
    closes_line: Bool[np.ndarray, " char"]

    def of_tokens(
        self, begin: Int[np.ndarray, " token"], end: Int[np.ndarray, " token"]
    ) -> dict[str, UInt8[np.ndarray, " token"]]:
        """Return the labels of tokens that cover the characters from `begin` up to `end` of the file."""
        first = np.where(self.next_visible[begin] < end, self.next_visible[begin], begin)
        last = np.maximum(self.last_visible[np.maximum(end - 1, begin)], first)
        labels = {family: codes[first] for family, codes in self.families.items()}
        opens, closes = self.opens_line[first], self.closes_line[last]
        place = np.select([opens & closes, opens, closes], [4, 2, 3], default=5)
        labels["line"] = np.where(self.next_visible[begin] < end, place, 1).astype(np.uint8)
        return {family: labels[family] for family in LABELS}


def label_file(source: str, path: str) -> FileLabels | None:
    """Label a whole file; `path` is relative to the library. None where Python cannot parse it."""
    segments = python_syntax.segments(source)
    if segments is None:
        return None
    characters = np.frombuffer(source.encode("utf-32-le"), dtype=np.uint32)
    visible = ~np.isin(characters, [ord(blank) for blank in " \t\n\r\f\v"])
    families = {family: np.repeat(codes, segments.lengths) for family, codes in segments.families.items()}
    role = families["role"]
    role[(role == python_syntax.ROLES.index("whitespace")) & (characters == ord("\n"))] = python_syntax.ROLES.index(
        "newline"
    )
    families["word"] = np.ones(len(characters), dtype=np.uint8)
    for found in _WORD.finditer(source):
        families["word"][found.start()] = LABELS["word"].index(found.group())
    topic = path.split("/")[0].removesuffix(".py")
    package = LABELS["package"].index(topic if topic in PACKAGES else "other")
    families["package"] = np.full(len(characters), package, dtype=np.uint8)
    return FileLabels(families=families, **_visibility(visible, characters == ord("\n")))


def _visibility(visible: np.ndarray, ends: np.ndarray) -> dict[str, np.ndarray]:
    count = len(visible)
    places, line = np.arange(count), np.cumsum(ends)
    seen = np.flatnonzero(visible)
    changes = np.flatnonzero(np.diff(line[seen]))
    opens, closes = np.zeros((2, count), dtype=bool)
    opens[seen[np.r_[0, changes + 1]]] = True
    closes[seen[np.r_[changes, len(seen) - 1]]] = True
    return {
        "next_visible": np.minimum.accumulate(np.where(visible, places, count)[::-1])[::-1],
        "last_visible": np.maximum.accumulate(np.where(visible, places, -1)),
        "opens_line": opens,
        "closes_line": closes,
    }


def column_names() -> Iterator[str]:
    """Yield every column that can be made: "role=keyword", and "word=in & role=docstring" for `CROSSED` families."""
    yield from (name for family in LABELS for name in _classes(family))
    yield from (f"{a} & {b}" for one, other in CROSSED for a in _classes(one) for b in _classes(other))


def column_counts(labels: Mapping[str, np.ndarray]) -> Counter[str]:
    """Count the tokens in every column; counts of batches add up."""
    counts: Counter[str] = Counter()
    for family, classes in LABELS.items():
        found = np.bincount(labels[family].ravel(), minlength=len(classes))
        counts.update({f"{family}={name}": int(n) for name, n in zip(classes, found, strict=True) if n})
    for one, other in CROSSED:
        width = len(LABELS[other])
        found = np.bincount(labels[one].ravel().astype(int) * width + labels[other].ravel())
        for pair in np.flatnonzero(found):
            first, second = LABELS[one][pair // width], LABELS[other][pair % width]
            counts[f"{one}={first} & {other}={second}"] = int(found[pair])
    return Counter({name: n for name, n in counts.items() if not _RESIDUE & set(re.split(r"=| & ", name))})


def binary_columns(
    labels: Mapping[str, np.ndarray], min_count: int = 1, names: Sequence[str] | None = None
) -> dict[str, Bool[np.ndarray, "example pos"]]:
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
        counts = column_counts(labels)
        names = [name for name in column_names() if counts[name] >= min_count]
    return {name: np.logical_and.reduce([_is(labels, part) for part in name.split(" & ")]) for name in names}


def _is(labels: Mapping[str, np.ndarray], condition: str) -> np.ndarray:
    family, _, name = condition.partition("=")
    if family not in LABELS:
        raise InputsError(f"label column {condition!r}: no family {family!r}.{nearest(family, LABELS)}")
    if name not in LABELS[family]:
        raise InputsError(f"label column {condition!r}: no class {name!r}.{nearest(name, LABELS[family])}")
    return labels[family] == LABELS[family].index(name)


def _classes(family: str) -> list[str]:
    return [f"{family}={name}" for name in LABELS[family] if name not in _RESIDUE]
