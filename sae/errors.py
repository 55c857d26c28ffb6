"""Everything a user can cause to go wrong.

SaeError
├── ConfigError        a setting, file or flag that cannot be used (also a ValueError)
├── InputsError        text, images or labels that cannot be read
├── SubjectError       a subject that cannot be found, loaded or run
├── HookpointError     a hookpoint the subject or store does not have (also a LookupError)
├── StoreError         an activation store that is missing, damaged, incomplete or full
├── DictionaryError    a dictionary file that cannot be read, written or applied
├── TrainingError      a run that diverged or cannot be resumed
├── EvaluationError    a score that is undefined for what was given
└── CatalogError       a catalog that is missing, damaged, or has no such card

A message says where, what was found, what is allowed, and the nearest match.
"""

import difflib
from collections.abc import Iterable


class SaeError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(SaeError, ValueError):
    """A setting, file or flag that cannot be used."""


class InputsError(SaeError):
    """Text, images or labels that cannot be read."""


class SubjectError(SaeError):
    """A subject that cannot be found, loaded or run."""


class HookpointError(SaeError, LookupError):
    """A hookpoint that the subject or the store does not have."""


class StoreError(SaeError):
    """An activation store that is missing, damaged, incomplete or full."""


class DictionaryError(SaeError):
    """A dictionary file that cannot be read, written or applied."""


class TrainingError(SaeError):
    """A run that diverged or cannot be resumed."""


class EvaluationError(SaeError):
    """A score that is undefined for what was given."""


class CatalogError(SaeError):
    """A catalog that is missing, damaged, or has no such card."""


def nearest(found: str, allowed: Iterable[str], limit: int = 12) -> str:
    """Return " Did you mean 'x'? Allowed: ..." for an unknown name.

    Args:
        found: the name that was given.
        allowed: the names that would have worked.
        limit: how many allowed names to print before cutting the list with "...".
    """
    names = list(allowed)
    close = difflib.get_close_matches(found, names, n=1, cutoff=0.5)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
    return f"{guess} Allowed: {listed or 'nothing'}."
