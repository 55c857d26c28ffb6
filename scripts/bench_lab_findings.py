"""What the parts of the laboratory's bench share: how findings are kept, and figures told apart by subject."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sae.lab.finding import Finding
from scripts.bench import Figure


def kept(found: Finding, folder: Path) -> Finding:
    """Save a finding in a folder, before its figures are read, and return it."""
    found.save(folder)
    return found


def of(subject: str, figures: Sequence[Figure]) -> list[Figure]:
    """Return figures with the subject that they are of in their names: lab/NAME is lab/SUBJECT/NAME."""
    return [replace(one, name=one.name.replace("lab/", f"lab/{subject}/", 1)) for one in figures]
