"""What every Python token of a source file is and which sense it has: one walk over its tokens, helped by its tree."""

import ast
import io
import keyword
import tokenize
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from jaxtyping import Int, Int8

ROLES = (
    *("whitespace", "newline", "keyword", "constant", "operator", "number", "string", "docstring", "comment"),
    *("decorator", "import", "function definition", "class definition", "parameter", "keyword argument", "attribute"),
    *("called name", "name"),
)
ENCLOSURES = ("call", "definition", "group", "index", "list", "braces")
SENSES = (
    *("in:for", "in:test", "in:not", "is:test", "is:not", "not:unary", "not:in", "not:is"),
    *("if:statement", "if:expression", "if:comprehension", "for:statement", "for:comprehension", "else:if"),
    *("else:for", "else:while", "else:try", "else:expression", "from:import", "from:raise", "from:yield"),
    *("import:module", "import:from", "as:import", "as:except", "as:with", "=:assignment", "=:keyword", "=:default"),
    *("*:product", "*:star", "**:power", "**:star", "-:difference", "-:sign", "::block", "::slice", "::mapping"),
    *("::annotation", "::lambda", "(:call", "(:definition", "(:group", "[:index", "[:list"),
)

NOTHING = -1
"""The class of a token that a family says nothing about."""

_ROLE = {name: code for code, name in enumerate(ROLES)}
_SENSE = {name: code for code, name in enumerate(SENSES)}
_ENCLOSURE = {name: code for code, name in enumerate(ENCLOSURES)}
_CONSTANTS = {"True", "False", "None"}
_WORDS = set(keyword.kwlist) - _CONSTANTS
_COMPOUND = {"if", "elif", "else", "for", "while", "try", "except", "finally", "with", "def", "class", "match", "case"}
_BLOCK_OF = {"if": "if", "elif": "if", "for": "for", "while": "while", "try": "try", "except": "try"}
_PLAIN = {tokenize.STRING: "string", tokenize.NUMBER: "number"}
_CLOSING = {")", "]", "}"}
_STEPS = {";", "{", "lambda"}
_SILENT = {tokenize.INDENT, tokenize.DEDENT, tokenize.NL, tokenize.COMMENT, tokenize.ENDMARKER}
_STRING_STARTS = {kind for kind, name in tokenize.tok_name.items() if name.endswith("STRING_START")}
_STRING_ENDS = {kind for kind, name in tokenize.tok_name.items() if name.endswith("STRING_END")}


@dataclass(slots=True)
class Token:
    """A Python token: its kind (of `tokenize`), text, and characters [start, stop) of the file."""

    kind: int
    text: str
    start: int
    stop: int

    @property
    def is_value(self) -> bool:
        """Whether an expression can end here, so that a bracket after it calls or indexes and a star multiplies."""
        if self.kind == tokenize.NAME:
            return self.text not in _WORDS
        return self.kind in (tokenize.NUMBER, tokenize.STRING) or self.text in _CLOSING or self.text == "..."


@dataclass(frozen=True, kw_only=True)
class Segments:
    """A file as a run of tokens and the blanks before them: characters of each, and its class per family."""

    lengths: Int[np.ndarray, " segment"]
    families: Mapping[str, Int8[np.ndarray, " segment"]]


@dataclass(slots=True)
class _Bracket:
    """An open bracket, or the ground outside all: its meaning and what is still expected inside."""

    meaning: str
    loops: int = 0
    lambdas: int = 0
    comprehension: bool = False


@dataclass(slots=True)
class _Walk:
    """Where in the file the walk is; `blocks` holds the last block-opening word at each indentation."""

    statement: str = ""
    indent: int = 0
    brackets: list[_Bracket] = field(default_factory=lambda: [_Bracket("")])
    blocks: dict[int, str] = field(default_factory=dict)

    def place(self) -> tuple[int, int, int]:
        """Return the classes of bracket, enclosure and indent here."""
        enclosure = _ENCLOSURE.get(self.brackets[-1].meaning, NOTHING)
        return min(len(self.brackets) - 1, 3), enclosure, min(self.indent, 4)

    def advance(self, text: str, sense: str) -> None:
        """Step over a token whose sense is known; a closing bracket was taken off before."""
        inner = self.brackets[-1]
        if not self.statement and text != "async":
            self.statement = text
            if text in _BLOCK_OF:
                self.blocks[self.indent] = _BLOCK_OF[text]
        if text == ";" or sense == "::block":
            self.statement = ""
        elif text in ("(", "[", "{"):
            self.brackets.append(_Bracket("braces" if text == "{" else sense[2:]))
        elif sense in ("for:statement", "for:comprehension"):
            inner.loops += 1
            inner.comprehension = sense == "for:comprehension"
        elif sense == "in:for":
            inner.loops -= 1
        elif text == "lambda":
            inner.lambdas += 1
        elif sense == "::lambda":
            inner.lambdas -= 1


def tokens_of(source: str) -> list[Token]:
    """Return the tokens of a file with f-strings (and template strings) joined into one STRING each.

    Raises:
        SyntaxError, tokenize.TokenError: not Python.
    """
    begins = [0, *accumulate(len(line) for line in io.StringIO(source)), len(source)]
    tokens: list[Token] = []
    nested: list[int] = []
    for kind, text, (row, column), (last_row, last_column), _ in tokenize.generate_tokens(io.StringIO(source).readline):
        start, stop = begins[row - 1] + column, begins[last_row - 1] + last_column
        if kind in _STRING_STARTS:
            nested.append(start)
        elif kind in _STRING_ENDS:
            start = nested.pop()
            kind, text = tokenize.STRING, source[start:stop]
        if not nested and kind != tokenize.ENDMARKER:
            tokens.append(Token(kind, text, start, min(stop, len(source))))
    return tokens


def segments(source: str) -> Segments | None:
    """Label the tokens of a file and the blanks before them, which take the depth of what follows; None if invalid."""
    try:
        tokens = tokens_of(source)
        tree = _Tree(source)
    except (SyntaxError, ValueError, tokenize.TokenError):
        return None
    edges = np.zeros(2 * len(tokens) + 2, dtype=np.int64)
    edges[1:-1:2] = [token.start for token in tokens]
    edges[2:-1:2] = [token.stop for token in tokens]
    edges[-1] = len(source)
    lengths = np.diff(np.maximum.accumulate(np.minimum(edges, len(source))))
    found = np.array(list(_label(tokens, tree)), dtype=np.int8).reshape(-1, 5)
    codes = np.zeros((2 * len(tokens) + 1, 5), dtype=np.int8)
    codes[1::2] = found
    codes[:-1:2, 2:] = found[:, 2:]
    codes[::2, :2] = _ROLE["whitespace"], NOTHING
    codes[-1, 2:] = 0, NOTHING, 0
    families = ("role", "sense", "bracket", "enclosure", "indent")
    return Segments(lengths=lengths, families={name: codes[:, i] for i, name in enumerate(families)})


class _Tree:
    """What only the syntax tree knows: the characters where docstrings, parameters and keyword arguments begin."""

    def __init__(self, source: str):
        self.parameters: set[int] = set()
        self.arguments: set[int] = set()
        self.docstrings: set[int] = set()
        self.lines = list(io.StringIO(source))
        self.begins = [0, *accumulate(len(line) for line in self.lines)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(source)
        for node in ast.walk(module):
            if isinstance(node, ast.arg):
                self.parameters.add(self.place(node))
            elif isinstance(node, ast.keyword) and node.arg:
                self.arguments.add(self.place(node))
            elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0] if node.body else None
                text = first.value if isinstance(first, ast.Expr) else None
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    self.docstrings.add(self.place(text))

    def place(self, node: ast.arg | ast.keyword | ast.expr) -> int:
        """Return the character where a node begins; the tree counts its columns in bytes."""
        line = self.lines[node.lineno - 1]
        column = node.col_offset if line.isascii() else len(line.encode()[: node.col_offset].decode())
        return self.begins[node.lineno - 1] + column


def _label(tokens: Sequence[Token], tree: _Tree) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield role, sense, bracket, enclosure and indent of every token."""
    spoken = [token for token in tokens if token.kind not in _SILENT]
    edge = Token(tokenize.NEWLINE, "", 0, 0)
    neighbours = iter(zip([edge, *spoken], [*spoken[1:], edge], strict=False))
    walk, docstring = _Walk(), False
    for token in tokens:
        if token.kind in _SILENT:
            walk.indent += (token.kind == tokenize.INDENT) - (token.kind == tokenize.DEDENT)
            yield _ROLE["comment" if token.kind == tokenize.COMMENT else "whitespace"], NOTHING, *walk.place()
            continue
        before, after = next(neighbours)
        if token.kind == tokenize.NEWLINE:
            walk.statement = ""
            yield _ROLE["whitespace"], NOTHING, *walk.place()
            continue
        docstring = token.kind == tokenize.STRING and (docstring or token.start in tree.docstrings)
        role, sense = _PLAIN.get(token.kind, "operator"), ""
        if token.kind == tokenize.NAME or token.text in _USES:
            word = _Word(token, before, after, walk, head=not walk.statement)
            role = _role(word, tree) if token.kind == tokenize.NAME else role
            sense = _USES[token.text](word) if token.text in _USES else ""
        if token.text in _CLOSING:
            walk.brackets.pop()
        yield _ROLE["docstring" if docstring else role], _SENSE.get(sense, NOTHING), *walk.place()
        if sense or not walk.statement or token.text in _STEPS:
            walk.advance(token.text, sense)


@dataclass(slots=True)
class _Word:
    """A token among its neighbours; `head` where a statement begins."""

    token: Token
    before: Token
    after: Token
    walk: _Walk
    head: bool

    @property
    def inner(self) -> _Bracket:
        return self.walk.brackets[-1]


def _role(word: _Word, tree: _Tree) -> str:
    token, statement = word.token, word.walk.statement
    if token.text in _CONSTANTS:
        return "constant"
    if token.text in _WORDS:
        return "keyword"
    if statement in ("import", "from"):
        return "import"
    if statement == "@" and not word.inner.meaning:
        return "decorator"
    return _role_of_name(word, tree)


def _role_of_name(word: _Word, tree: _Tree) -> str:
    rules = (
        (word.before.text == "def", "function definition"),
        (word.before.text == "class", "class definition"),
        (word.token.start in tree.parameters, "parameter"),
        (word.token.start in tree.arguments, "keyword argument"),
        (word.before.text == ".", "attribute"),
        (word.after.text == "(", "called name"),
    )
    return next((role for holds, role in rules if holds), "name")


def _colon(word: _Word) -> str:
    if word.inner.lambdas:
        return "::lambda"
    block = "::block" if word.walk.statement in _COMPOUND else "::annotation"
    meanings = {"": block, "index": "::slice", "braces": "::mapping", "definition": "::annotation"}
    return meanings.get(word.inner.meaning, "")


def _equals(word: _Word) -> str:
    if word.inner.lambdas:
        return "=:default"
    in_definition = "=:keyword" if word.walk.statement == "class" else "=:default"
    meanings = {"": "=:assignment", "call": "=:keyword", "definition": in_definition}
    return meanings.get(word.inner.meaning, "")


def _opening(word: _Word) -> str:
    if word.walk.statement in ("def", "class") and not word.inner.meaning:
        return "(:definition"
    return "(:call" if word.before.is_value else "(:group"


def _if(word: _Word) -> str:
    return "if:statement" if word.head else "if:comprehension" if word.inner.comprehension else "if:expression"


def _else(word: _Word) -> str:
    return f"else:{word.walk.blocks.get(word.walk.indent, '')}" if word.head else "else:expression"


def _in(word: _Word) -> str:
    return "in:for" if word.inner.loops else "in:not" if word.before.text == "not" else "in:test"


def _not(word: _Word) -> str:
    return "not:is" if word.before.text == "is" else "not:in" if word.after.text == "in" else "not:unary"


def _from(word: _Word) -> str:
    return "from:import" if word.head else "from:yield" if word.before.text == "yield" else "from:raise"


_USES: dict[str, Callable[[_Word], str]] = {
    ":": _colon,
    "=": _equals,
    "(": _opening,
    "if": _if,
    "else": _else,
    "in": _in,
    "not": _not,
    "from": _from,
    "[": lambda word: "[:index" if word.before.is_value else "[:list",
    "*": lambda word: "*:product" if word.before.is_value else "*:star",
    "**": lambda word: "**:power" if word.before.is_value else "**:star",
    "-": lambda word: "-:difference" if word.before.is_value else "-:sign",
    "is": lambda word: "is:not" if word.after.text == "not" else "is:test",
    "for": lambda word: "for:statement" if word.head else "for:comprehension",
    "import": lambda word: "import:module" if word.head else "import:from",
    "as": lambda word: f"as:{'import' if word.walk.statement in ('import', 'from') else word.walk.statement}",
}
"""How the sense of a token with several is told; a sense that is no class (`as` in a `case`) is nothing."""
