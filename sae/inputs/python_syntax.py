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
from jaxtyping import Int, UInt8

ROLES = (
    *("unlabelled", "whitespace", "newline", "keyword", "constant", "operator", "number", "string", "docstring"),
    *("comment", "decorator", "import", "function definition", "class definition", "parameter", "keyword argument"),
    *("attribute", "called name", "name"),
)
ENCLOSURES = ("unlabelled", "none", "call", "definition", "group", "index", "list", "braces")
SENSES = (
    *("unlabelled", "none", "in:for", "in:test", "in:not", "is:test", "is:not", "not:unary", "not:in", "not:is"),
    *("if:statement", "if:expression", "if:comprehension", "for:statement", "for:comprehension", "else:if"),
    *("else:for", "else:while", "else:try", "else:expression", "from:import", "from:raise", "from:yield"),
    *("import:module", "import:from", "as:import", "as:except", "as:with", "=:assignment", "=:keyword", "=:default"),
    *("*:product", "*:star", "**:power", "**:star", "-:difference", "-:sign", "::block", "::slice", "::mapping"),
    *("::annotation", "::lambda", "(:call", "(:definition", "(:group", "[:index", "[:list"),
)

_ROLE = {name: code for code, name in enumerate(ROLES)}
_SENSE = {name: code for code, name in enumerate(SENSES)}
_ENCLOSURE = {name: code for code, name in enumerate(ENCLOSURES)}
_CONSTANTS = {"True", "False", "None"}
_WORDS = set(keyword.kwlist) - _CONSTANTS
_COMPOUND = {"if", "elif", "else", "for", "while", "try", "except", "finally", "with", "def", "class", "match", "case"}
_BLOCK_OF = {"if": "if", "elif": "if", "for": "for", "while": "while", "try": "try", "except": "try"}
_SILENT = {tokenize.INDENT, tokenize.DEDENT, tokenize.NL, tokenize.COMMENT, tokenize.ENDMARKER}


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
        return self.kind in (tokenize.NUMBER, tokenize.STRING) or self.text in (")", "]", "}", "...")


@dataclass(frozen=True, kw_only=True)
class Segments:
    """A file as a run of tokens and the blanks before them: characters of each, and its class per family."""

    lengths: Int[np.ndarray, " segment"]
    families: Mapping[str, UInt8[np.ndarray, " segment"]]


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
    brackets: list[_Bracket] = field(default_factory=lambda: [_Bracket("none")])
    blocks: dict[int, str] = field(default_factory=dict)

    def place(self) -> tuple[int, int, int]:
        """Return the classes of bracket, enclosure and indent here."""
        return min(len(self.brackets), 4), _ENCLOSURE[self.brackets[-1].meaning], min(self.indent, 4) + 1

    def advance(self, token: Token, sense: str) -> None:
        """Step over a token whose sense is known; a closing bracket was taken off before."""
        inner, text = self.brackets[-1], token.text
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
    begins = [0, *accumulate(len(line) for line in io.StringIO(source))]
    tokens: list[Token] = []
    nested: list[int] = []
    for kind, text, (row, column), (last_row, last_column), _ in tokenize.generate_tokens(io.StringIO(source).readline):
        start = min(begins[min(row - 1, len(begins) - 1)] + column, len(source))
        stop = min(begins[min(last_row - 1, len(begins) - 1)] + last_column, len(source))
        name = tokenize.tok_name[kind]
        if name.endswith("STRING_START"):
            nested.append(start)
        elif name.endswith("STRING_END"):
            start = nested.pop()
            kind, text = tokenize.STRING, source[start:stop]
        if not nested and not name.endswith("STRING_START"):
            tokens.append(Token(kind, text, start, stop))
    return tokens


def segments(source: str) -> Segments | None:
    """Label the tokens of a file and the blanks before them, which take the depth of what follows; None if invalid."""
    try:
        tokens = tokens_of(source)
        tree = _Tree(source)
    except (SyntaxError, ValueError, tokenize.TokenError):
        return None
    lengths: list[int] = []
    codes: list[tuple[int, int, int, int, int]] = []
    reached = 0
    for token, (role, sense, *place) in zip(tokens, _label(tokens, tree), strict=True):
        lengths += [max(token.start - reached, 0), max(token.stop - max(token.start, reached), 0)]
        codes += [(_ROLE["whitespace"], _SENSE["none"], *place), (role, sense, *place)]
        reached = max(reached, token.stop)
    lengths.append(len(source) - reached)
    codes.append((_ROLE["whitespace"], _SENSE["none"], 1, 1, 1))
    table = np.array(codes, dtype=np.uint8)
    families = ("role", "sense", "bracket", "enclosure", "indent")
    return Segments(lengths=np.array(lengths), families={name: table[:, i] for i, name in enumerate(families)})


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
            role = "comment" if token.kind == tokenize.COMMENT else "whitespace"
            yield _ROLE[role], _SENSE["none"], *walk.place()
            continue
        before, after = next(neighbours)
        if token.kind == tokenize.NEWLINE:
            walk.statement = ""
            yield _ROLE["whitespace"], _SENSE["none"], *walk.place()
            continue
        word = _Word(token, before, after, walk, head=not walk.statement)
        docstring = token.kind == tokenize.STRING and (docstring or token.start in tree.docstrings)
        role = "docstring" if docstring else _role(word, tree)
        sense = _USES[token.text](word) if token.text in _USES else "none"
        if token.text in (")", "]", "}"):
            walk.brackets.pop()
        yield _ROLE[role], _SENSE.get(sense, _SENSE["none"]), *walk.place()
        walk.advance(token, sense)


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
    if token.kind != tokenize.NAME:
        return {tokenize.STRING: "string", tokenize.NUMBER: "number"}.get(token.kind, "operator")
    if token.text in _CONSTANTS:
        return "constant"
    if token.text in _WORDS:
        return "keyword"
    if statement in ("import", "from"):
        return "import"
    if statement == "@" and word.inner.meaning == "none":
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
    meanings = {"none": block, "index": "::slice", "braces": "::mapping", "definition": "::annotation"}
    return meanings.get(word.inner.meaning, "none")


def _equals(word: _Word) -> str:
    if word.inner.lambdas:
        return "=:default"
    in_definition = "=:keyword" if word.walk.statement == "class" else "=:default"
    meanings = {"none": "=:assignment", "call": "=:keyword", "definition": in_definition}
    return meanings.get(word.inner.meaning, "none")


def _opening(word: _Word) -> str:
    if word.walk.statement in ("def", "class") and word.inner.meaning == "none":
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
"""How the sense of a token with several is told; a sense that is no class (`as` in a `case`) counts as none."""
