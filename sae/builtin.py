"""Where the subjects and dictionaries lie that come with this project.

In a clone they are in `checkpoints/`, beside the package; in an installed wheel inside the package.
A built-in is named `builtin:NAME` or `builtin:NAME@SEED`, and a dictionary `builtin:NAME@SEED/HOOKPOINT`. Dictionaries
that were trained as its controls lie below it: `builtin:NAME@SEED/HOOKPOINT/controls/CONTROL`.
"""

from pathlib import Path

from sae.errors import ConfigError, nearest

PREFIX = "builtin:"
UNTRAINED = "untrained:"
"""What stands before a subject's id, built in or not, for the same model with weights drawn anew."""


def root() -> Path:
    """Return the folder that holds `subjects/` and `dictionaries/`."""
    package = Path(__file__).parent
    inside = package / "checkpoints"
    return inside if inside.is_dir() else package.parent / "checkpoints"


def subject_folder(name: str) -> Path:
    """Return the model folder of `builtin:NAME[@SEED]`.

    Raises:
        ConfigError: nothing of that name is shipped.
    """
    return _find("subjects", _with_seed(name.removeprefix(PREFIX)), name)


def dictionary_folder(name: str) -> Path:
    """Return the dictionary folder of `builtin:NAME[@SEED]/HOOKPOINT`.

    Raises:
        ConfigError: nothing of that name is shipped.
    """
    subject, _, hookpoint = name.removeprefix(PREFIX).partition("/")
    return _find("dictionaries", f"{_with_seed(subject)}/{hookpoint}", name)


def canonical(name: str) -> str:
    """Return the name with its seed spelled out: `builtin:stdlib-1l` is `builtin:stdlib-1l@0`."""
    subject, _, hookpoint = name.removeprefix(PREFIX).partition("/")
    spelled = subject if "@" in subject else f"{subject}@0"
    return PREFIX + spelled + (f"/{hookpoint}" if hookpoint else "")


def _with_seed(subject: str) -> str:
    name, _, seed = subject.partition("@")
    return f"{name}-{seed or 0}"


def _find(kind: str, relative: str, asked: str) -> Path:
    folder = root() / kind / relative
    if not folder.is_dir():
        depth = relative.count("/") + 1
        shipped = sorted((root() / kind).glob("/".join("*" * depth)))
        names = [_spell(str(path.relative_to(root() / kind))) for path in shipped if path.is_dir()]
        wanted = {"subjects": "subject", "dictionaries": "dictionary"}[kind]
        raise ConfigError(f"{asked}: no such built-in {wanted}.{nearest(asked, names)}")
    return folder


def _spell(relative: str) -> str:
    subject, slash, hookpoint = relative.partition("/")
    name, _, seed = subject.rpartition("-")
    return f"{PREFIX}{name}@{seed}{slash}{hookpoint}"
