"""The code in the documentation runs, and its commands exist."""

import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest
from documented import ROOT, commands

import sae
from sae import arguments, cli
from sae.lab import methods

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def python_blocks(page: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run_one_after_the_other(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = python_blocks(page)
    if not code:
        pytest.skip("no Python on this page")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    exec(compile(code, page.name, "exec"), namespace)
    assert "sae" in namespace


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_and_files_named_exist(page: Path) -> None:
    text = page.read_text()
    for command in re.findall(r"^(?:\$ )?sae (\w+)", text, flags=re.MULTILINE):
        assert command in cli.COMMANDS, command
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    for file in re.findall(r"(?:scripts/[\w.]+|configs/[\w.-]+\.yaml)", text):
        assert (ROOT / file).exists(), file


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_dotted_names_exist(page: Path) -> None:
    top = {module.name for module in pkgutil.iter_modules(sae.__path__)}
    for name in re.findall(r"(?<![\w./-])sae(?!\.(?:pt|safetensors)\b)(?:\.\w+)+", page.read_text()):
        if name.split(".")[1] in top:
            pkgutil.resolve_name(name)
        else:
            assert hasattr(sae, name.split(".")[1]), name


class ParsedError(Exception):
    """Raised by a command in the place of its run."""


@pytest.mark.parametrize(
    ("page", "words"),
    [(page, words) for page in PAGES for words in commands(page)],
    ids=lambda x: x.name if isinstance(x, Path) else " ".join(x)[:100],
)
def test_commands_are_understood(page: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse what a page shows, without running it; commands that take no config are only looked up."""

    def parse(config_type: type, given: list[str], prog: str) -> Any:
        raise ParsedError(arguments.configured(config_type, given, prog))

    monkeypatch.chdir(ROOT)
    for module in (cli, methods):
        monkeypatch.setattr(module, "configured", parse)
    name, *rest = words
    assert name in cli.COMMANDS
    if name not in (*cli.UNCONFIGURED, "push") and not {"--help", "METHOD"} & set(rest):
        with pytest.raises(ParsedError):
            cli.COMMANDS[name](rest)
