"""The code in the documentation runs, and its commands exist."""

import re
from pathlib import Path

import pytest

from sae import cli

ROOT = Path(__file__).parents[2]
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
    for script in re.findall(r"scripts/[\w.]+", text):
        assert (ROOT / script).exists(), script
