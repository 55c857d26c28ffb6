"""Items for people to label who do not see what a unit answers to them. Needs no torch.

    FOLDER/labelling.json    categories, and what is shown in each slot, in order: all that a page gets to see
    FOLDER/items/000012.png  the picture of a slot
    FOLDER/labels.jsonl      what raters said, one line each (see `durable.Journal`)
    FOLDER/key.json          which item each slot shows, and its level; no page sees it

Some items are shown in two slots, to see how well raters agree with themselves.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

from sae.durable import Journal, write_durably
from sae.errors import CatalogError
from sae.features.catalog import read_json, write_json
from sae.features.explanations import MOST_CHARACTERS, SURROGATE
from sae.features.judging.agreement import Kappa

FILE, KEY, LOG, ITEMS = "labelling.json", "key.json", "labels.jsonl", "items"


class Labelling:
    """A labelling, and what raters have said so far.

    Attributes:
        categories: what an item may be called.
        slots: what each shows: {"tokens": [...], "at": 5}, or {} for a picture.

    Raises:
        CatalogError: the folder holds none.
    """

    def __init__(self, folder: Path) -> None:
        data = read_json(folder / FILE)
        self.folder, self.categories, self.slots = folder, tuple(data["categories"]), data["slots"]
        self._said: dict[str, dict[int, int]] = {}
        self._journal = Journal(folder / LOG, self._fold, CatalogError)

    @staticmethod
    def write(
        folder: Path,
        categories: Sequence[str],
        slots: Sequence[Mapping[str, Any]],
        key: Mapping[str, Any],
        images: Sequence[bytes] = (),
    ) -> "Labelling":
        """Write a labelling; it is there once all of it is.

        Args:
            folder: for it.
            categories: what an item may be called.
            slots: what each shows.
            key: `item` of each slot, and whatever else no rater may know.
            images: PNG of each slot, if they show pictures.
        """
        for number, content in enumerate(images):
            write_durably(folder / ITEMS / f"{number:06d}.png", [content], CatalogError)
        write_json(folder / KEY, dict(key))
        write_json(folder / FILE, {"categories": list(categories), "slots": list(slots)})
        return Labelling(folder)

    @property
    def key(self) -> dict[str, Any]:
        """What no rater may know."""
        return read_json(self.folder / KEY)

    def label(self, rater: str, slot: int, category: int) -> None:
        """Say what a slot shows; the last word of a rater counts.

        Raises:
            CatalogError: there is no such slot or category, or the rater has no name.
        """
        _check_rater(rater)
        _check_number(slot, "slot", len(self.slots))
        _check_number(category, "category", len(self.categories))
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._journal.append(lambda: {"rater": rater, "slot": slot, "category": category, "time": time})

    def said(self) -> dict[str, dict[int, int]]:
        """Return the category that every rater gave to each slot, both by number."""
        with self._journal.lock:
            self._journal.refresh()
            return {rater: dict(answers) for rater, answers in self._said.items()}

    def repeats(self) -> dict[str, list[tuple[int, int]]]:
        """Return both labels of the items that a rater labelled twice, by rater."""
        item = self.key["item"]
        first = {one: slot for slot, one in reversed(list(enumerate(item)))}
        again = [(first[one], slot) for slot, one in enumerate(item) if first[one] != slot]
        return {
            rater: [(answers[a], answers[b]) for a, b in again if a in answers and b in answers]
            for rater, answers in self.said().items()
        }

    def between(self) -> list[tuple[int, int]]:
        """Return the labels of any two raters for the same slot, of every two of them."""
        return [
            (first[slot], second[slot])
            for first, second in combinations(self.said().values(), 2)
            for slot in sorted(first.keys() & second.keys())
        ]

    def to_json(self, rater: str) -> dict[str, Any]:
        """Return what a page shows a rater; who has labelled everything learns how far they agree with themselves."""
        answers = self.said().get(rater, {})
        done = len(answers) == len(self.slots)
        pairs = self.repeats().get(rater, []) if done else []
        return {
            "categories": list(self.categories),
            "slots": self.slots,
            "answers": [answers.get(slot) for slot in range(len(self.slots))],
            "agreement": _told(Kappa.of(pairs)) if pairs else None,
        }

    def _fold(self, act: Mapping[str, Any]) -> None:
        rater, slot, category = act["rater"], act["slot"], act["category"]
        if not (0 <= slot < len(self.slots) and 0 <= category < len(self.categories)):
            raise ValueError(f"slot {slot}, category {category}")
        self._said.setdefault(rater, {})[slot] = category


def _check_rater(rater: Any) -> None:
    most = MOST_CHARACTERS["author"]
    if not (isinstance(rater, str) and rater.strip() and len(rater) <= most and not SURROGATE.search(rater)):
        raise CatalogError(f"rater: must be text of 1 to {most} characters, got {rater!r:.60}.")


def _check_number(value: Any, name: str, count: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < count:
        raise CatalogError(f"{name}: must be a number from 0 to {count - 1}, got {value!r:.60}.")


def _told(found: Kappa) -> dict[str, Any]:
    known = found.value == found.value
    interval = list(found.interval) if known else None
    return {"kappa": found.value if known else None, "interval": interval, "same": found.same, "n": found.n}
