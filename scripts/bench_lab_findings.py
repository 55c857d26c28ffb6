"""What the parts of the laboratory's bench share: a finding is kept before its figures are read."""

from pathlib import Path

from sae.lab.finding import Finding


def kept(found: Finding, folder: Path) -> Finding:
    """Save a finding in a folder and return it."""
    found.save(folder)
    return found
