import random
import sys

import numpy as np
import pytest

from sae.errors import InputsError
from sae.inputs.python_labels import LABELS, binary_columns, column_counts, label_file
from sae.inputs.python_syntax import tokens_of

SOURCE = '''"""The module."""
import os, sys as system
from a.b import (c as d)

@wrap.it(1, key=2)
class A(B, metaclass=M):
    """Class doc.""" "more"
    x: int = -1

    async def f(self, a=1, *args, b: str = "s", **kw):
        for i in range(3) if a else (): pass
        else:
            return [j * 2 for j in b if j not in kw and j is not None]  # in a note
        try: g = lambda q=1: q[1:2]
        except (E, F) as e: raise X from e
        else: yield from {1: 2 ** 3, **kw}
        if a in b: é = f"x{a!r:>{b}} y"; del é
        elif a is b: return not a
        return self.call(x=é.y - 1)
'''


def labels_at(source: str, text: str, occurrence: int = 0, path: str = "email/x.py") -> dict[str, str | None]:
    """Name the labels of the nth Python token that reads `text`."""
    token = [token for token in tokens_of(source) if token.text == text][occurrence]
    labels = label_file(source, path)
    assert labels is not None
    codes = labels.of_tokens(np.array([token.start]), np.array([token.stop]))
    return {family: LABELS[family][code[0]] if code[0] >= 0 else None for family, code in codes.items()}


@pytest.mark.parametrize(
    ("text", "occurrence", "role"),
    [
        *[('"""The module."""', 0, "docstring"), ('"""Class doc."""', 0, "docstring"), ('"more"', 0, "docstring")],
        *[("import", 0, "keyword"), ("os", 0, "import"), ("system", 0, "import"), ("b", 0, "import")],
        *[("@", 0, "operator"), ("wrap", 0, "decorator"), ("it", 0, "decorator"), ("1", 0, "number")],
        *[("key", 0, "keyword argument"), ("A", 0, "class definition"), ("B", 0, "name")],
        *[("metaclass", 0, "keyword argument"), ("x", 0, "name"), ("f", 0, "function definition")],
        *[("self", 0, "parameter"), ("kw", 0, "parameter"), ('"s"', 0, "string"), ("range", 0, "called name")],
        *[("None", 0, "constant"), ("# in a note", 0, "comment"), ("q", 0, "parameter"), ("q", 1, "name")],
        *[('f"x{a!r:>{b}} y"', 0, "string"), ("self", 1, "name"), ("call", 0, "attribute")],
        *[("x", 1, "keyword argument"), ("y", 0, "attribute"), ("async", 0, "keyword")],
    ],
)
def test_roles(text: str, occurrence: int, role: str):
    assert labels_at(SOURCE, text, occurrence)["role"] == role


@pytest.mark.parametrize(
    ("text", "senses"),
    [
        ("import", ["import:module", "import:from"]),
        ("as", ["as:import", "as:import", "as:except"]),
        ("from", ["from:import", "from:raise", "from:yield"]),
        ("for", ["for:statement", "for:comprehension"]),
        ("in", ["in:for", "in:for", "in:not", "in:test"]),
        ("is", ["is:not", "is:test"]),
        ("not", ["not:in", "not:is", "not:unary"]),
        ("if", ["if:expression", "if:comprehension", "if:statement"]),
        ("else", ["else:expression", "else:for", "else:try"]),
        ("*", ["*:star", "*:product"]),
        ("**", ["**:star", "**:power", "**:star"]),
        ("-", ["-:sign", "-:difference"]),
        ("[", ["[:list", "[:index"]),
        ("=", ["=:keyword", "=:keyword", "=:assignment", "=:default", "=:default", "=:assignment", "=:default"]),
        ("(", ["(:group", "(:call", "(:definition", "(:definition", "(:call", "(:group", "(:group", "(:call"]),
        (":", ["::block", "::annotation", "::annotation", *["::block"] * 4, "::lambda", "::slice"]),
    ],
)
def test_senses(text: str, senses: list[str]):
    assert [labels_at(SOURCE, text, i)["sense"] for i in range(len(senses))] == senses


def test_place():
    assert labels_at(SOURCE, "3")["bracket"] == "1" and labels_at(SOURCE, "3")["enclosure"] == "call"
    assert labels_at(SOURCE, "range")["bracket"] == "0" and labels_at(SOURCE, "range")["enclosure"] is None
    assert [labels_at(SOURCE, "return", i)["indent"] for i in range(3)] == ["3", "2", "2"]
    assert [labels_at(SOURCE, text)["line"] for text in ("for", "range", "pass", '"""The module."""')] == [
        *("first", "inside", "last", "only")
    ]
    blanks = [token for token in tokens_of(SOURCE) if token.text.isspace()]
    assert labels_at(SOURCE, blanks[0].text)["role"] == "newline" and labels_at(SOURCE, blanks[0].text)["line"] is None


def test_words_and_packages():
    found = labels_at(SOURCE, "in", 3)
    assert (found["word"], found["word_role"], found["word_package"]) == ("in", "in as keyword", "in in email")
    assert labels_at(SOURCE, "range")["word"] is None
    assert labels_at(SOURCE, "in", 3, path="nobody.py")["package"] is None
    assert labels_at(SOURCE, "in", 3, path="typing.py")["package"] == "typing"
    labels = label_file(SOURCE, "x.py")
    assert labels is not None
    begin = np.array([SOURCE.index(" in a note")])
    codes = labels.of_tokens(begin, begin + 3)  # a blank in front, as byte-level tokens have
    assert LABELS["word_role"][codes["word_role"][0]] == "in as comment"


def test_a_token_that_starts_inside_a_word_is_not_that_word():
    labels = label_file("asin = self_name\n", "x.py")
    assert labels is not None
    assert labels.of_tokens(np.array([2, 7]), np.array([4, 11]))["word"].tolist() == [-1, -1]


def test_what_does_not_parse_has_no_labels():
    for source in ("def f(:\n", "x = '''open\n", "if x:\n  a\n b\n", "x = 1\0\n"):
        assert label_file(source, "x.py") is None
    assert label_file("", "x.py") is not None


def test_every_character_is_labelled_once_and_within_bounds():
    for source in (SOURCE, SOURCE.rstrip("\n"), "x = (\n\n1)\\\n+ 2\n\f\n# end", "s = f'{x!r}' f\"{{}}{a['b']}\"\n"):
        labels = label_file(source, "email/x.py")
        assert labels is not None
        for family, codes in labels.families.items():
            assert len(codes) == len(source) and codes.min() >= -1 and codes.max() < len(LABELS[family])


def test_labels_do_not_depend_on_what_else_is_asked():
    labels = label_file(SOURCE, "email/x.py")
    assert labels is not None
    edges = np.sort(np.array(random.Random(0).sample(range(1, len(SOURCE)), 100)))
    begin, end = edges[:-1], edges[1:]
    together = labels.of_tokens(begin, end)
    for i in range(len(begin)):
        alone = labels.of_tokens(begin[i : i + 1], end[i : i + 1])
        assert all(alone[family][0] == together[family][i] for family in LABELS)


def test_columns_agree_with_counts():
    labels = label_file(SOURCE, "email/x.py")
    assert labels is not None
    tokens = [token for token in tokens_of(SOURCE) if token.stop > token.start]
    codes = labels.of_tokens(np.array([t.start for t in tokens]), np.array([t.stop for t in tokens]))
    counts = column_counts(codes)
    columns = binary_columns(codes, min_count=2)
    assert set(columns) == {name for name, count in counts.items() if count >= 2}
    assert all(column.sum() == counts[name] for name, column in columns.items())
    assert counts["sense=in:for"] == 2 and counts["word_role=a as parameter"] == 1
    first, second = ({family: code[part] for family, code in codes.items()} for part in (slice(9), slice(9, None)))
    assert column_counts(first) + column_counts(second) == counts
    assert list(binary_columns(first, names=["role=number"])) == ["role=number"]
    with pytest.raises(InputsError, match="keyword"):
        binary_columns(codes, names=["role=keywords"])
    with pytest.raises(InputsError, match="role"):
        binary_columns(codes, names=["rule=keyword"])


def test_f_strings_are_one_string_on_every_python():
    texts = [token.text for token in tokens_of("x = f'a{b!r:>{c}}' + f\"{f'{d}'}\"\n")]
    assert texts[:5] == ["x", "=", "f'a{b!r:>{c}}'", "+", "f\"{f'{d}'}\""], sys.version
