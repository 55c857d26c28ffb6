"""The commands that a page of the documentation shows, as words that a shell would hand over."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]


def commands(page: Path) -> list[list[str]]:
    """Return the words behind `sae` of every command in a page's shell blocks, comments and prompts taken off."""
    blocks = re.findall(r"^```(?:bash|sh|console|shell)\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = (shlex.split(line.removeprefix("$ "), comments=True) for line in lines)
    return [words[1:] for words in found if words[:1] == ["sae"]]
