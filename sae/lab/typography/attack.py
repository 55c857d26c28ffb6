"""Write words on pictures: how often the answer becomes the word, and what stops it at which cost.

Goh et al. 2021 (*Multimodal Neurons in Artificial Neural Networks*) attack a linear probe on CLIP so; here zero-shot
and a probe are attacked, by sizes, places and fonts, and the attack is met by removing latents that read, attention
heads that read, a spelling subspace, and controls. What goes is found on one part of the half of the pictures to match
on, how much of it is chosen on the other part, and reported is the half to score on, with other fonts for words that
stand alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sae.errors import ConfigError, EvaluationError
from sae.inputs.lettering import FONTS
from sae.lab.change.interventions import places
from sae.lab.finding import Finding, Picture
from sae.lab.typography import attack_picture
from sae.lab.typography.defence import CLEAN, MOST_LOSS, WORDS, WRITTEN, Bed, Point, chosen, curves
from sae.lab.typography.defences import AS_ACTIVE, RANDOM, READING, defences, leading, on_unseen_words
from sae.lab.typography.lettered import GROUNDS, MATCH_FONTS, SCORE_FONTS, class_of, drawn, things
from sae.lab.typography.stroop import CONDITIONS, INCONGRUENT, in_ink, on_pictures
from sae.lab.typography.wild import Wild, in_the_wild
from sae.lab.typography.written import (
    CHOOSE,
    FIND,
    PARTS,
    READERS,
    SCORE,
    Manner,
    Pairs,
    Reader,
    by_word,
    embedded,
    images_of,
    manners,
    pairs_of,
    right,
    succeeded,
)
from sae.lab.workbench import Workbench, WorkbenchConfig

LEAD = "latents that read"
"""Found in whichever way leaves least success where numbers are chosen."""


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of `sae lab attack`."""

    targets: tuple[str, ...] = ()
    """Classes whose names are written; all of them if not given."""
    n_pairs: int = 2390
    """Pictures to write on, every word on as many: to find what reads, to choose how much goes, and to score on."""
    n_tried: int = 1195
    """Of these, so many for every size, place and font."""
    heights: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.6)
    """The most that a word takes of the picture's height."""
    fonts: tuple[str, ...] = ("serif", "modern", "roman", "slant")
    """Fonts to try beside sans."""
    large: float = 0.4
    """Height at which places and fonts are compared."""
    head_layers: int | None = 4
    """Look for attention heads that read in so many last layers; null for all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.n_pairs, self.n_tried) < 1 or not all(0 < one <= 1 for one in (*self.heights, self.large)):
            raise ConfigError("n_pairs, n_tried: must be at least 1; heights, large: shares in (0, 1].")
        for font in self.fonts:
            if font not in FONTS:
                raise ConfigError(f"fonts: no font {font!r}; allowed: {', '.join(FONTS)}.")


def run(config: Config) -> Finding:
    """Attack, test and defend."""
    bench = Workbench.open(config)
    hookpoint = check(bench)
    parts = {part: pairs_of(bench, config.targets, config.n_pairs, part) for part in PARTS}
    known = (things(bench) & bench.sample.match).nonzero()[:, 0]
    reader = Reader.of(bench, images_of(bench, known), class_of(bench)[known])
    tried = manners(config.heights, config.fonts, config.large)
    matched, scored = (
        [attacked(bench.subject, reader, parts[part].first(config.n_tried), one) for one in tried]
        for part in (CHOOSE, SCORE)
    )
    strongest = max(range(len(tried)), key=lambda i: matched[i]["succeeds, zero-shot"])
    manner, pairs = tried[strongest], parts[SCORE]
    beds = {part: bed_of(bench.subject, reader, hookpoint, parts[part], manner, part) for part in PARTS}
    words = words_table(beds[SCORE], manner)
    stroop = [*on_pictures(bench.subject, reader, pairs, manner, bench.seed), *in_ink(bench.subject, pairs.names)]
    kinds = defences(beds[FIND], bench.dictionary, config.head_layers, bench.seed)
    to_choose, to_report = curves(beds[CHOOSE], kinds), curves(beds[SCORE], kinds)
    picked = {name: chosen(points) for name, points in to_choose.items()}
    lead, latents = leading(kinds, to_choose)
    others = next(one.latents for one in kinds if one.name == RANDOM)[: len(latents)]
    wild = in_the_wild(bench, reader, hookpoint, latents, others)
    unseen = on_unseen_words(beds, bench.dictionary)
    found = Attack(manner, scored, words, stroop, to_report, picked, lead, unseen, wild)
    return found.finding(bench.about, beds[SCORE])


def check(bench: Workbench) -> str:
    """Return the dictionary's hookpoint.

    Raises:
        EvaluationError: it is not of an image tower, a transcoder, or the inputs have no classes.
        DictionaryError: it is of several hookpoints.
    """
    hookpoint, writes = places(bench.dictionary)
    if hookpoint != writes:
        raise EvaluationError(
            f"{bench.dictionary!r}: a transcoder, from {hookpoint} to {writes}; latents are removed where they are "
            "read, so this takes dictionaries that write what they read."
        )
    if getattr(bench.inputs, "classes", None) is None or not hookpoint.startswith("visual."):
        raise EvaluationError(
            f"{bench.subject.id} {hookpoint}: needs images with classes, and a hookpoint of the image tower."
        )
    return hookpoint


def attacked(subject: Any, reader: Reader, pairs: Pairs, manner: Manner) -> dict[str, Any]:
    """Return what one manner of writing does, by reader."""
    images, covered = pairs.written(manner)
    before, after = (reader.answers(embedded(subject, one)) for one in (pairs.images, images))
    row: dict[str, Any] = {"manner": manner.name, "varied": manner.factor, "pixels": round(float(covered.mean()), 4)}
    wins, hits = succeeded(after, before, pairs.word), right(after, pairs.truth)
    for i, name in enumerate(READERS):
        row[f"succeeds, {name}"] = round(float(wins[:, i].double().mean()), 4)
        row[f"right, {name}"] = round(float(hits[:, i].double().mean()), 4)
    return row


def bed_of(subject: Any, reader: Reader, hookpoint: str, pairs: Pairs, manner: Manner, part: str) -> Bed:
    """Return clean and written pictures, and those of each class's name alone."""
    fonts = SCORE_FONTS if part == SCORE else MATCH_FONTS
    size, numbers = pairs.images.shape[2:], pairs.word.unique()
    alone = [
        torch.from_numpy(drawn(pairs.names[number], fonts[(number + i) % len(fonts)], ground, size)).permute(2, 0, 1)
        for number in numbers.tolist()
        for i, ground in enumerate(GROUNDS)
    ]
    images = {CLEAN: pairs.images, WRITTEN: pairs.written(manner)[0], WORDS: torch.stack(alone)}
    truth = {CLEAN: pairs.truth, WRITTEN: pairs.truth, WORDS: numbers.repeat_interleave(len(GROUNDS))}
    return Bed(subject, reader, hookpoint, pairs, images, truth)


def words_table(bed: Bed, manner: Manner) -> list[dict[str, Any]]:
    """Return success by word."""
    answers = bed.untouched()
    wins = succeeded(answers[WRITTEN], answers[CLEAN], bed.pairs.word)
    covered = (bed.images[WRITTEN] != bed.images[CLEAN]).any(1).flatten(1).double().mean(1)
    values = {f"succeeds, {name}": wins[:, i] for i, name in enumerate(READERS)} | {"pixels": covered}
    return [row | {"manner": manner.name} for row in by_word(values, bed.pairs)]


@dataclass(frozen=True)
class Attack:
    """All that was found.

    Attributes:
        manner: the one that succeeds most where numbers are chosen, with which everything else is done.
        tried, words, stroop: rows of their tables.
        points: curves of every defence on the half to score on.
        picked: which of its points each defence takes, chosen elsewhere.
        lead: the way of finding latents that read that leaves least success where numbers are chosen.
        unseen: success on words by which latents were not found, see `defences.on_unseen_words`.
        wild: attacks that nobody made, with the latents of `lead` removed.
    """

    manner: Manner
    tried: Sequence[dict[str, Any]]
    words: Sequence[dict[str, Any]]
    stroop: Sequence[dict[str, Any]]
    points: Mapping[str, Sequence[Point]]
    picked: Mapping[str, int]
    lead: str
    unseen: Mapping[str, float]
    wild: Wild

    def finding(self, about: Mapping[str, Any], bed: Bed) -> Finding:
        figures = self.figures()
        rows = [
            *({"table": "manner"} | row for row in self.tried),
            *({"table": "word"} | row for row in self.words),
            *({"table": "stroop"} | row for row in self.stroop),
            *({"table": "defence", "chosen": i == self.picked[name]} | row
              for name, points in self.points.items() for i, one in enumerate(points) for row in one.row(READERS)),
            *({"table": "in the wild"} | row for row in self.wild.rows()),
        ]  # fmt: skip
        pictures = {
            "lab-attack": Picture(
                lambda: attack_picture.attack(self, bed),
                self.tried,
                "Above: held-out pictures with words on them that became the answer. Below: answers that became the "
                "word, by size, place and font (bars: zero-shot; diamonds: linear probe; in brackets the share of "
                "pixels that changed), and Stroop's test: what is answered where shown and written disagree.",
            ),
            "lab-defence": Picture(
                lambda: attack_picture.defence(self),
                [row for points in self.points.values() for one in points for row in one.row(READERS)],
                "Success of the attack against clean accuracy, zero-shot, on held-out pictures, as more latents, heads "
                "or directions go; filled: the number chosen on the other half, at a clean loss of at most "
                f"{MOST_LOSS:.0%} there. Grey: the bar, half of the success at that loss.",
            ),
        }
        if len(self.wild.rows()):
            pictures["lab-wild"] = Picture(
                lambda: attack_picture.wild(self.wild),
                self.wild.rows(),
                "Held-out pictures answered wrongly with the word that stands in them; nobody wrote it there to "
                "mislead.",
            )
        return Finding("attack", about, figures, rows, self.verdict(figures), pictures)

    def best(self, name: str) -> Point:
        return self.points[name][self.picked[name]]

    def figures(self) -> dict[str, float]:
        start = self.points[READING[0]][0]
        strongest = next(row for row in self.tried if row["manner"] == self.manner.name)
        figures = {"pixels": strongest["pixels"]}
        for i, reader in enumerate(READERS):
            figures |= {
                f"clean accuracy, {reader}": start.clean[i],
                f"success, {reader}": start.success[i],
                f"accuracy with words on, {reader}": start.written[i],
                f"words alone read, {reader}": start.words[i],
            }
        best = {LEAD: self.best(self.lead)} | {name: self.best(name) for name in self.points}
        for name, one in best.items():
            figures |= {
                f"{name}: number": one.amount,
                f"{name}: success": one.success[0],
                f"{name}: clean loss": start.clean[0] - one.clean[0],
                f"{name}: accuracy with words on": one.written[0],
                f"{name}: words alone read": one.words[0],
                f"{name}: bar": float(meets(start, one)),
            }
        for row in self.stroop:
            if row["condition"] in CONDITIONS and row["read by"] == READERS[0]:
                place = f"stroop over {row['word over']}, {row['condition']}"
                figures[f"{place}: what is shown"] = row["what is shown"]
                if row["condition"] == INCONGRUENT:
                    figures[f"{place}: what is written"] = row["what is written"]
        found = {f"found on every other word: {name}": value for name, value in self.unseen.items()}
        return figures | found | self.wild.figures()

    def verdict(self, figures: Mapping[str, float]) -> str:
        latents = self.lead
        others = [name for name in self.points if name not in READING]
        met = [name for name in others if figures[f"{name}: bar"]]
        one = f"{figures[f'{latents}: number']:.0f} {latents}"
        as_good = [name for name in met if figures[f"{name}: success"] <= figures[f"{latents}: success"]]
        return (
            f"Words on pictures ({self.manner.name}, {figures['pixels']:.0%} of the pixels) become the answer for "
            f"{figures['success, zero-shot']:.1%} of held-out pictures zero-shot and for "
            f"{figures['success, linear probe']:.1%} by a linear probe. Without {one} it is "
            f"{figures[f'{latents}: success']:.1%}, at {figures[f'{latents}: clean loss']:.1%} of clean accuracy: "
            + ("success falls by half at a loss of at most one point" if figures[f"{latents}: bar"] else "not by half")
            + f"; as many latents as active leave {figures[f'{AS_ACTIVE}: success']:.1%}. "
            + (f"Others that halve it: {', '.join(met)}" if met else "Nothing else halves it")
            + (f" (as low: {', '.join(as_good)})." if as_good else ".")
        )


def meets(start: Point, one: Point) -> bool:
    """Whether success fell by half at a clean loss of at most a point, zero-shot."""
    return one.success[0] <= start.success[0] / 2 and start.clean[0] - one.clean[0] <= MOST_LOSS
