"""Write docs/architectures.md from what is registered and the docstrings of its files.

Usage: python scripts/write_architectures.py [--check]    (--check only says whether the page is up to date)
"""

import ast
import dataclasses
import inspect
import json
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

from sae import config
from sae.dictionaries import registry
from sae.dictionaries.base import Dictionary, DictionaryConfig

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
HEAD = """# Architectures

Every kind of dictionary that `sae train` knows, with its equations, its paper and what differs from it. This page is
written from the code by `scripts/write_architectures.py`. A config names the kind and its settings:

```yaml
dictionary: {kind: topk, d_sae: 4096, k: 32}
```

Kinds that learn *by steps* are trained batch by batch; those *fitted at once* take `n_vectors` vectors and no steps,
and are there to be compared with. A *transcoder* writes other vectors than it reads. What stands behind a setting is
its default.
"""


def page() -> str:
    parts = [HEAD, "\n".join(_overview()) + "\n"]
    for module, kinds in _modules().items():
        title = ", ".join(f"`{kind}`" for kind in kinds) or f"{_name(module)}.py"
        parts.append(f"## {title}\n\n{inspect.cleandoc(module.__doc__ or '')}\n")
        settings = [line for one in _configs(module) for line in _settings(one)]
        if settings:
            parts.append("\n".join(["| setting | default | meaning |", "| --- | --- | --- |", *settings]) + "\n")
    return "\n".join(parts)


def _overview() -> list[str]:
    head = ("kind", "what it does", "learned", "transcoder", "settings beside `d_sae`")
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    common = {field.name for field in dataclasses.fields(DictionaryConfig)}
    for kind, one in registry.BUILT_IN.items():
        own = [field for field in dataclasses.fields(one.config_type) if field.name not in common]
        settings = ", ".join(f"`{field.name}` {_default(field)}" for field in own)
        sentence = " ".join(inspect.cleandoc(one.__doc__ or "").split("\n\n")[0].split())
        anchor = "-".join(_modules()[_module(one)]).replace("`", "")
        cells = (f"[{kind}](#{anchor})", sentence, _learned(one), "yes" if one.transcodes else "no", settings)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return lines


def _learned(one: type[Dictionary]) -> str:
    if one.fitted:
        return "fitted at once"
    learns = any(parameter.requires_grad for parameter in one(one.config_type(d_sae=64), 64).parameters())
    return "by steps" if learns else "set by hand"


def _modules() -> dict[ModuleType, list[str]]:
    """Return the files that define what is registered, those they build on first, and the kinds each one defines."""
    modules: dict[ModuleType, list[str]] = {}
    for kind, one in registry.BUILT_IN.items():
        for ancestor in reversed(one.__mro__):
            if ancestor.__module__.startswith("sae.dictionaries."):
                modules.setdefault(_module(ancestor), [])
        modules[_module(one)].append(kind)
    return modules


def _module(one: type) -> ModuleType:
    return sys.modules[one.__module__]


def _name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _configs(module: ModuleType) -> list[type[DictionaryConfig]]:
    found = [value for value in vars(module).values() if isinstance(value, type)]
    return [one for one in found if issubclass(one, DictionaryConfig) and one.__module__ == module.__name__]


def _settings(config_type: type[DictionaryConfig]) -> list[str]:
    """Return a line for every setting that the class itself brings, with the docstring that follows it."""
    body = ast.parse(inspect.getsource(config_type)).body[0].body  # type: ignore[attr-defined]
    fields = {field.name: field for field in dataclasses.fields(config_type)}
    lines = []
    for node, after in pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id in fields:
            text = " ".join(ast.literal_eval(after.value).split())  # type: ignore[attr-defined]
            lines.append(f"| `{node.target.id}` | {_default(fields[node.target.id])} | {text} |")
    return lines


def _default(field: dataclasses.Field) -> str:
    if field.default is dataclasses.MISSING:
        return "(required)"
    return json.dumps(config.encode(field.default))


def main(check: bool) -> int:
    text = page()
    if check:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        print(f"{PAGE.name} is {'up to date' if same else 'out of date; run python scripts/write_architectures.py'}")
        return 0 if same else 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
