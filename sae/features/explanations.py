"""What people and methods said about cards: a log that is only ever appended to, and the state it adds up to.

Every line of `explanations.jsonl` is one act: somebody added an explanation, changed its text, voted on it, or scored
how well it predicts the card. A line is written whole under a lock on the file, so writers in any number of processes
lose nothing; an edit names the revision it was made from, so nobody writes over a text that they have not seen, and a
score the revision that was tested, so it never stands for another text. Needs no torch.
"""

import math
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sae.durable import Journal
from sae.errors import CatalogError, nearest
from sae.features.catalog import KINDS

FILE = "explanations.jsonl"
MOST_CHARACTERS = {"text": 2000, "author": 80, "method": 80}
SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character: JSON can carry it, UTF-8 cannot."""


class StaleEditError(CatalogError):
    """An edit of a text that somebody else has changed in the meantime; both texts are still there."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well somebody told the card's held-out examples apart who knew nothing but one text.

    Attributes:
        rater: a person's name, or that of a judge.
        method: "blind" for a person, "judge" for a model.
        value: area under the ROC curve of the rater's answers; of answers by yes and no it is the mean of the shares
            told rightly where the card fires and where it does not (balanced accuracy). 0.5 is chance.
        n: examples that were judged.
        interval: 95 % interval of the value.
        revision: the text that was tested.
        time: when, UTC.
        again: whether the rater had met the same examples before, with another text of the same card.
    """

    rater: str
    method: str
    value: float
    n: int
    interval: tuple[float, float]
    revision: str
    time: str
    again: bool = False


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One explanation of one card, as it stands now.

    Attributes:
        id: names it for good.
        kind, index: the card.
        text: what the card stands for, in somebody's words.
        author: who said so; a person's name, or that of a model.
        method: "person", or how it was made.
        given: what its author says of how good its present text is, by a measure of their own.
        time: when it was added, UTC.
        revision: names its present text; an edit has to quote it.
        votes: by voter, 1 or -1.
        scores: of all texts that it had, oldest first; of a rater the first for each text.
        history: earlier texts, oldest first, with author, time and revision.
    """

    id: str
    kind: str
    index: int
    text: str
    author: str
    method: str = "person"
    given: float | None = None
    time: str = ""
    revision: str = ""
    votes: Mapping[str, int] = field(default_factory=dict)
    scores: tuple[Score, ...] = ()
    history: tuple[Mapping[str, str], ...] = ()

    @property
    def tally(self) -> int:
        """Votes for minus votes against."""
        return sum(self.votes.values())

    @property
    def score(self) -> float | None:
        """How well its present text predicts the card on held-out examples: the mean over raters (see `Score.value`).

        None where nobody has tested this text.
        """
        values = [score.value for score in self.scores if score.revision == self.revision]
        return sum(values) / len(values) if values else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"tally": self.tally, "score": self.score}


class Explanations:
    """The explanations of a catalog, by card; reading takes in what other processes have appended since.

    Raises:
        CatalogError: the log cannot be read or written, or an act is not one of those above.
    """

    def __init__(self, folder: Path | str) -> None:
        self.path = Path(folder) / FILE
        self._journal = Journal(self.path, self._fold, CatalogError)
        self._state: dict[str, Explanation] = {}
        self._by_card: dict[tuple[str, int], list[str]] = {}

    def of(self, kind: str, index: int) -> list[Explanation]:
        """Return the explanations of a card, best first: by votes, then by score, then by age."""
        with self._journal.lock:
            self._journal.refresh()
            return self._best_first(kind, index)

    def by_card(self, kind: str) -> dict[int, list[Explanation]]:
        """Return the explanations of all cards of a kind that have any, by number, best first."""
        with self._journal.lock:
            self._journal.refresh()
            return {index: self._best_first(kind, index) for other, index in self._by_card if other == kind}

    def __iter__(self) -> Iterator[Explanation]:
        with self._journal.lock:
            self._journal.refresh()
            return iter(list(self._state.values()))

    def __getitem__(self, name: str) -> Explanation:
        with self._journal.lock:
            self._journal.refresh()
            if name not in self._state:
                raise CatalogError(f"{self.path}: no explanation {name!r}.")
            return self._state[name]

    def add(
        self, kind: str, index: int, text: str, author: str, method: str = "person", given: float | None = None
    ) -> Explanation:
        """Add an explanation of a card; `given` is how good its author says it is, by a measure of their own."""
        if kind not in KINDS:
            raise CatalogError(f"kind {kind!r}.{nearest(kind, KINDS)}")
        act = {"act": "add", "kind": kind, "index": index, "text": text, "author": author, "method": method}
        return self._append(lambda: act | ({} if given is None else {"given": given}))

    def edit(self, name: str, text: str, author: str, revision: str) -> Explanation:
        """Change the text of an explanation; the old one stays in its history.

        Raises:
            StaleEditError: it is not the text of that `revision` any more.
        """

        def act() -> dict[str, Any]:
            now = self[name]
            if now.revision != revision:
                raise StaleEditError(f"explanation {name}: it was changed to {now.text!r} in the meantime.")
            return {"act": "edit", "of": name, "text": text, "author": author}

        return self._append(act)

    def vote(self, name: str, author: str, value: int) -> Explanation:
        """Vote for (1) or against (-1) an explanation, or take the vote back (0); the last vote of an author counts."""
        if value not in (-1, 0, 1):
            raise CatalogError(f"vote {value!r}: must be -1, 0 or 1.")
        return self._append(lambda: {"act": "vote", "of": self[name].id, "author": author, "value": value})

    def score(
        self, name: str, rater: str, revision: str, value: float, n: int, interval: tuple[float, float], method: str
    ) -> Explanation:
        """Say how well somebody predicted the card from a text of an explanation (see `Score`).

        The first score of a rater for a text stands: whoever tests it again knows the answers.

        Raises:
            CatalogError: the explanation never had a text of that revision, or the numbers are none of a score.
        """

        def act() -> dict[str, Any]:
            now = self[name]
            if revision not in (now.revision, *(old["revision"] for old in now.history)):
                raise CatalogError(f"explanation {name}: has had no text of revision {revision!r:.60}.")
            measured = {"value": value, "n": n, "interval": interval}
            return {"act": "score", "of": name, "author": rater, "revision": revision, "method": method} | measured

        return self._append(act)

    def _best_first(self, kind: str, index: int) -> list[Explanation]:
        found = [self._state[name] for name in self._by_card.get((kind, index), ())]
        return sorted(found, key=lambda one: (-one.tally, -(one.score or 0.0), one.time))

    def _append(self, make: Callable[[], dict[str, Any]]) -> Explanation:
        """Write the act that `make` returns; it is called when all earlier ones are known."""
        added: dict[str, Any] = {}

        def act() -> dict[str, Any]:
            made = make()
            _check(made)
            made |= {"id": secrets.token_hex(8), "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
            added.update(made)
            return made

        self._journal.append(act)
        return self[added.get("of", added["id"])]

    def _fold(self, act: Mapping[str, Any]) -> None:
        if act["act"] == "add":
            names = ("id", "kind", "index", "text", "author", "method", "given", "time")
            known = {name: act[name] for name in names if name in act}
            self._state[act["id"]] = Explanation(**known, revision=act["id"])
            self._by_card.setdefault((act["kind"], act["index"]), []).append(act["id"])
        elif act["act"] == "edit":
            old = self._state[act["of"]]
            before = {"text": old.text, "author": old.author, "time": old.time, "revision": old.revision}
            history = (*old.history, before)
            new = replace(old, text=act["text"], author=act["author"], revision=act["id"], time=act["time"])
            # What was said of the old text says nothing of the new one.
            self._state[old.id] = replace(new, history=history, given=None)
        elif act["act"] == "vote":
            old = self._state[act["of"]]
            others = {who: value for who, value in old.votes.items() if who != act["author"]}
            votes = others | ({act["author"]: act["value"]} if act["value"] else {})
            self._state[old.id] = replace(old, votes=votes)
        elif act["act"] == "score":
            self._take_score(self._state[act["of"]], act)
        else:
            raise ValueError(f"act {act['act']!r}")

    def _take_score(self, of: Explanation, act: Mapping[str, Any]) -> None:
        rater, revision = act["author"], act["revision"]
        known = [score for name in self._by_card[of.kind, of.index] for score in self._state[name].scores]
        of_rater = [score.revision for score in known if score.rater == rater]
        if revision in of_rater:
            return
        low, high = act["interval"]
        names = ("method", "value", "n", "time", "revision")
        new = Score(**{name: act[name] for name in names}, rater=rater, interval=(low, high), again=bool(of_rater))
        self._state[of.id] = replace(of, scores=(*of.scores, new))


def _check(act: Mapping[str, Any]) -> None:
    for name, most in MOST_CHARACTERS.items():
        value = act.get(name, "-")
        if not (isinstance(value, str) and value.strip() and len(value) <= most and not SURROGATE.search(value)):
            raise CatalogError(f"explanation: {name} must be text of 1 to {most} characters, got {value!r:.60}.")
    given = act.get("given")
    if given is not None and not _is_number(given):
        raise CatalogError(f"explanation: given must be a number, got {given!r:.60}.")
    if act["act"] == "score":
        _check_score(act["value"], act["n"], act["interval"])


def _check_score(value: Any, n: Any, interval: Any) -> None:
    ends = interval if isinstance(interval, list | tuple) and len(interval) == 2 else (math.nan, math.nan)
    numbers = [0, ends[0], value, ends[1], 1]
    if not (all(map(_is_number, numbers)) and sorted(numbers) == numbers):
        found = f"{value!r:.60} in {interval!r:.60}"
        raise CatalogError(f"explanation: a score lies within its interval, and both in 0 to 1; got {found}.")
    if not (isinstance(n, int) and not isinstance(n, bool) and n > 0):
        raise CatalogError(f"explanation: n must count the examples that were judged, got {n!r:.60}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
