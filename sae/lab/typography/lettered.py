"""Strings as pictures on plain grounds, beside the pictures of things that a workbench has, as one sample of units.

Strings are the names of the inputs' classes, other words, and two controls that look like text and say nothing: each
class's letters in another order (anagrams), and as many random letters.
"""

import random
import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from sae.activations.store import Provenance
from sae.errors import InputsError
from sae.evaluation.sample import Sample
from sae.evaluation.splicing import trained_rows
from sae.features.live.words import trained_vocabulary
from sae.inputs.writing import Writing, write
from sae.lab.workbench import Workbench
from sae.tensors import Batch

CLASS, KNOWN, UNKNOWN, ANAGRAM, LETTERS = KINDS = ("class", "known", "unknown", "anagram", "letters")
"""What a string is: a class of the inputs, another word, one that the subject was never trained on, or no word."""
MATCH_FONTS, SCORE_FONTS = ("sans", "serif", "mono", "modern"), ("stix", "roman", "slant")
"""Units are chosen on some fonts and scored on others."""
GROUNDS = (235, 25)
UNSHOWN_FACETS = ("word", "symbol")
"""Facets, where inputs have any, in which a picture shows no thing."""
WRITINGS = ("text", "written")
"""Factors, where inputs have any, whose value is the class whose name is written in a picture."""
PLAIN_WORDS = (
    *("window", "bread", "river", "stone", "paper", "music", "garden", "doctor", "winter", "silver"),
    *("planet", "bottom", "summer", "pencil", "market", "engine", "butter", "forest", "bridge", "candle"),
    *("monkey", "needle", "pillow", "saddle", "tunnel", "velvet", "walnut", "zipper", "basket", "copper"),
    *("dinner"),
)
"""Common words for the control of words that a subject does not know."""
_BATCH = 256


@dataclass(frozen=True)
class Strings:
    """Strings, what each is, and for an anagram or letters the string that it was made from, itself otherwise."""

    texts: tuple[str, ...]
    kinds: tuple[str, ...]
    source: tuple[int, ...]

    @classmethod
    def of(cls, names: Sequence[str], others: Sequence[str], known: Collection[str] | None, seed: int) -> "Strings":
        """Make the controls of class names; other words count as unknown where the subject's words are known.

        Raises:
            InputsError: there are fewer than two class names.
        """
        if len(names) < 2:
            raise InputsError(f"strings: {len(names)} class names; at least 2 are needed.")
        rng, taken = random.Random(seed), {*names, *others}
        rows = [(name, CLASS, number) for number, name in enumerate(names)]
        for word in dict.fromkeys(others):
            if word not in names:
                rows.append((word, UNKNOWN if known is not None and word not in known else KNOWN, len(rows)))
        for number, name in enumerate(names):
            for kind, made in ((ANAGRAM, _mixed(name, rng)), (LETTERS, _random(name, rng))):
                if made not in taken:
                    taken.add(made)
                    rows.append((made, kind, number))
        return cls(*zip(*rows, strict=True))

    def are(self, *kinds: str) -> Bool[Tensor, " strings"]:
        return torch.tensor([kind in kinds for kind in self.kinds])


def strings_of(bench: Workbench, path: Path | None, seed: int) -> Strings:
    """Return the strings for a workbench.

    Args:
        bench: whose inputs name the classes.
        path: a file of further words, one a line; if None, the other words that a built-in subject was trained on, and
            `PLAIN_WORDS`.
        seed: of the controls.

    Raises:
        InputsError: the inputs have no classes, or the file no words.
    """
    classes: Any = getattr(bench.inputs, "classes", None)
    names = [] if classes is None else [one.replace("_", " ") for one in bench.inputs.label_names[classes.family]]  # type: ignore[attr-defined]
    known = trained_vocabulary(bench.subject.id)
    if path is None:
        return Strings.of(names, (*(word for word in known or () if len(word) > 2), *PLAIN_WORDS), known, seed)
    try:
        words = [word.strip() for word in path.read_text(encoding="utf-8").split("\n") if word.strip()]
    except (OSError, UnicodeDecodeError) as cause:
        raise InputsError(f"words: {path} is no file with a word on a line: {cause}.") from cause
    if not words:
        raise InputsError(f"words: {path} is no file with a word on a line.")
    return Strings.of(names, words, known, seed)


def drawn(text: str, font: str, ground: int, size: Sequence[int]) -> UInt8[np.ndarray, "rows columns 3"]:
    """Return a picture of nothing but a string, as large as fits, dark on light or light on dark."""
    plain = np.full((size[0], size[1], 3), ground, dtype=np.uint8)
    return write(plain, Writing(word=text, font=font, width=0.92, height=0.6, y=0, plate=False, dark=ground > 127))[0]


@dataclass(frozen=True)
class Shown:
    """Pictures of things and of strings as one sample.

    Attributes:
        sample: the things' items first; `match` says where units are chosen, of strings by the font.
        strings: what was drawn.
        string: of each item, -1 of a thing.
        concept: of each item the class of the thing, -1 of a string.
        pictures: of the strings.
    """

    sample: Sample
    strings: Strings
    string: Int[Tensor, " items"]
    concept: Int[Tensor, " items"]
    pictures: UInt8[Tensor, "drawn 3 rows columns"] = field(repr=False)

    @classmethod
    def of(cls, bench: Workbench, strings: Strings) -> "Shown":
        """Draw every string in every font on both grounds and run the subject on them."""
        thing = things(bench)
        hookpoint, size = bench.dictionary.provenance["hookpoint"], bench.inputs.batch(0, 1).images.shape[2:]  # type: ignore[union-attr]
        fonts = [(font, ground) for font in (*MATCH_FONTS, *SCORE_FONTS) for ground in GROUNDS]
        pictures = np.stack([drawn(text, *one, size) for text in strings.texts for one in fonts])
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
        chosen = torch.tensor([font in MATCH_FONTS for font, _ in fonts]).repeat(len(strings.texts))
        number = torch.arange(len(strings.texts)).repeat_interleave(len(fonts))
        old = bench.sample
        kept = thing[old.item]
        x, rows = activations(bench, hookpoint, images)
        start = int(old.rows.example.max()) + 1
        rows = Provenance(
            torch.cat([old.rows.example[kept], rows.example + start]),
            torch.cat([old.rows.position[kept], rows.position]),
            torch.cat([old.rows.kind[kept], rows.kind]),
        )
        match = torch.cat([old.match[thing], chosen])
        sample = Sample(
            x=torch.cat([old.x[kept].float(), x]), rows=rows, pooled=True, labels={}, factors={}, label_names={},
            match=match,
        )  # fmt: skip
        n_things, n_drawn = int(thing.sum()), len(images)
        of_thing = class_of(bench)[thing]
        return cls(
            sample,
            strings,
            torch.cat([torch.full((n_things,), -1), number]),
            torch.cat([of_thing, torch.full((n_drawn,), -1)]),
            images,
        )

    @cached_property
    def n_things(self) -> int:
        return int((self.string < 0).sum())

    def are(self, *kinds: str) -> Bool[Tensor, " items"]:
        """Mark pictures of strings of some kinds."""
        return (self.string >= 0) & self.strings.are(*kinds)[self.string]


def things(bench: Workbench, bare: bool = True) -> Bool[Tensor, " items"]:
    """Mark the items of a workbench's sample that show a thing: all, but for words and emblems where that is known.

    Args:
        bench: whose items.
        bare: leave out those in which something is known to be written.

    Raises:
        InputsError: no picture has a class.
    """
    sample = bench.sample
    shown = class_of(bench) >= 0
    if "facet" in sample.factors and "facet" in sample.label_names:
        names = sample.label_names["facet"]
        hidden = [names.index(one) for one in UNSHOWN_FACETS if one in names]
        shown &= ~torch.isin(torch.from_numpy(np.asarray(sample.factors["facet"])), torch.tensor(hidden))
    if bare:
        shown &= written_in(bench) < 0
    if not shown.any():
        raise InputsError(f"{bench.inputs.describe()}: no picture of a thing with a class.")
    return shown


def class_of(bench: Workbench) -> Int[Tensor, " items"]:
    """Return the class of every item of a workbench's sample, -1 where there is none."""
    classes: Any = bench.inputs.classes  # type: ignore[attr-defined]
    return torch.from_numpy(np.asarray(bench.sample.factors[classes.family])).long()


def written_in(bench: Workbench) -> Int[Tensor, " items"]:
    """Return the class whose name is written in each item's picture, across it or beside the thing; -1 if none is."""
    family = bench.inputs.classes.family  # type: ignore[attr-defined]
    factors, names = bench.sample.factors, bench.sample.label_names
    found = torch.full((bench.sample.n_items,), -1)
    for writing in WRITINGS:
        if writing in factors and tuple(names.get(writing, ())) == tuple(names[family]):
            here = torch.from_numpy(np.asarray(factors[writing])).long()
            found = torch.where(here >= 0, here, found)
    return found


def activations(
    bench: Workbench, hookpoint: str, images: UInt8[Tensor, "n 3 rows columns"]
) -> tuple[Tensor, Provenance]:
    """Run the subject on pictures; return the vectors that dictionaries are trained on, and where each is from."""
    found, example, position, kinds = [], [], [], []
    for start in range(0, len(images), _BATCH):
        batch = Batch(first_example=start, images=images[start : start + _BATCH])
        keep = trained_rows(bench.subject, batch, hookpoint).cpu()
        kind = bench.subject.rows(batch, bench.subject.hookpoints()[hookpoint].grid).kind.cpu()
        found.append(bench.subject.run(batch, [hookpoint])[hookpoint].cpu()[keep].float())
        at = keep.nonzero()
        example.append(at[:, 0] + start)
        position.append(at[:, 1].int())
        kinds.append(kind[keep])
    return torch.cat(found), Provenance(torch.cat(example), torch.cat(position), torch.cat(kinds))


def _mixed(word: str, rng: random.Random) -> str:
    """Return a word's letters in another order, or the word where there is none."""
    letters = list(word)
    for _ in range(20):
        rng.shuffle(letters)
        if "".join(letters) != word and not "".join(letters).isspace():
            break
    return "".join(letters)


def _random(word: str, rng: random.Random) -> str:
    return "".join(letter if letter == " " else rng.choice(string.ascii_lowercase) for letter in word)
