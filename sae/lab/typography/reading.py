"""Show every latent words drawn as pictures: which latents read, and do those that read a word see the thing?

A dictionary of strings is drawn in several fonts on plain grounds (`lettered.Strings`). A unit *reads* if it tells
words from pictures of things; it reads a *word* if it tells it from all other strings, its own anagram and letters
drawn at random among them, in fonts that it was not chosen on. After Goh et al. 2021 (*Multimodal Neurons in
Artificial Neural Networks*, Distill), which finds reading neurons by eye.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.errors import ConfigError, EvaluationError
from sae.evaluation.labels import MONOSEMANTIC_AUC
from sae.evaluation.responses import Responses
from sae.evaluation.sample import Units
from sae.evaluation.weights import Weights
from sae.lab.concepts import beside
from sae.lab.finding import Finding, Picture
from sae.lab.typography.lettered import ANAGRAM, CLASS, KINDS, KNOWN, LETTERS, Shown, strings_of
from sae.lab.typography.reading_picture import draw
from sae.lab.words.joint import before_selection
from sae.lab.workbench import Workbench, WorkbenchConfig

LATENTS = "latents"
TEXT_SHARE = 0.9
"""Share of activation from which on a unit is for text."""
CONTROLS = ("neurons", "random directions")
SETS = (LATENTS, "latents before selection", *CONTROLS)


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of `sae lab reading`."""

    words: Path | None = None
    """File of words to draw beside the classes' names, one a line; if null, those a built-in subject knows, and some
    common ones that it does not."""
    n_top: int = 20
    """Latents to list: those that tell words from things best."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_top < 1:
            raise ConfigError(f"n_top: must be at least 1, got {self.n_top}.")


@dataclass(frozen=True)
class Areas:
    """Areas under the ROC curve of units, all held out.

    Attributes:
        matched_words: of words against things, where units are chosen; the only one not held out.
        words: of words against things; words and fonts are others than those of `matched_words`.
        letters: of random letters against things.
        words_from_letters: of words against random letters.
        matched_share, share: of the mean activation on words in that on words and things, where units are chosen and
            held out; 0.5 fires for both alike, nan for neither. Negative activations count as none.
        letters_share: the same of random letters, held out.
    """

    matched_words: Float[Tensor, " units"]
    words: Float[Tensor, " units"]
    letters: Float[Tensor, " units"]
    words_from_letters: Float[Tensor, " units"]
    matched_share: Float[Tensor, " units"]
    share: Float[Tensor, " units"]
    letters_share: Float[Tensor, " units"]

    @property
    def for_text(self) -> Bool[Tensor, " units"]:
        """Units that fire nine times as much for words as for things, on both halves."""
        return (self.matched_share > TEXT_SHARE) & (self.share > TEXT_SHARE)

    @property
    def for_any_text(self) -> Bool[Tensor, " units"]:
        """Of these, units that do so for random letters."""
        return self.for_text & (self.letters_share > TEXT_SHARE)

    @property
    def for_things(self) -> Bool[Tensor, " units"]:
        """Units that fire nine times as much for things as for words, on both halves."""
        return (self.matched_share < 1 - TEXT_SHARE) & (self.share < 1 - TEXT_SHARE)

    @property
    def reads(self) -> Bool[Tensor, " units"]:
        """Units chosen as telling words from things that do so on other words, fonts and things."""
        return (self.matched_words > MONOSEMANTIC_AUC) & (self.words > MONOSEMANTIC_AUC)


def areas(responses: Responses, shown: Shown) -> Areas:
    """Return how well each unit tells text from things; half of the words, and half of the fonts, choose."""
    thing, match = shown.string < 0, shown.sample.match
    half = (shown.string % 2 == 0) | thing
    words, letters = shown.are(CLASS, KNOWN), shown.are(LETTERS)

    def area(one: Tensor, other: Tensor, on: Tensor) -> Tensor:
        keep = (one | other) & on
        return responses.on(keep).auc(one[keep, None])[:, 0]

    def shared(one: Tensor, on: Tensor) -> Tensor:
        drawn, seen = (_positive(responses.on(part & on)) for part in (one, thing))
        return drawn / (drawn + seen)

    scored = ~match & (~half | thing)
    return Areas(
        area(words, thing, match & half),
        area(words, thing, scored),
        area(letters, thing, ~match),
        area(words, letters, ~match),
        shared(words, match),
        shared(words, ~match),
        shared(letters, ~match),
    )


@dataclass(frozen=True)
class Words:
    """The unit that reads each string best, chosen on some fonts, and what it does on others.

    Attributes:
        unit: of each string.
        auc: of the string against all others.
        shuffled: of another string against all others, by the same unit.
        own_anagram: of the string against its own anagram; nan where it has none.
    """

    unit: Int[Tensor, " strings"]
    auc: Float[Tensor, " strings"]
    shuffled: Float[Tensor, " strings"]
    own_anagram: Float[Tensor, " strings"]


def word_readers(responses: Responses, shown: Shown, seed: int = 0) -> Words:
    """Choose the unit of every string on the fonts to match on, and score it on the others."""
    strings, match = shown.strings, shown.sample.match
    n, is_drawn = len(strings.texts), shown.string >= 0
    on, off = is_drawn & match, is_drawn & ~match
    unit = responses.on(on).auc(Weights.of_groups(shown.string[on], n)).argmax(0)
    scored = responses.on(off).auc(Weights.of_groups(shown.string[off], n))
    dealt = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).roll(1)
    dealt = torch.where(dealt == torch.arange(n), (dealt + 1) % n, dealt)
    columns = responses.on(off).columns(unit.unique())
    place = torch.searchsorted(unit.unique(), unit)
    of = shown.string[off]
    own = torch.full((n,), torch.nan, dtype=torch.float64)
    for number, (kind, source) in enumerate(zip(strings.kinds, strings.source, strict=True)):
        if kind == ANAGRAM:
            values = columns[:, place[source]]
            word, other = values[of == source], values[of == number]
            above = (word[:, None] > other).double() + (word[:, None] == other).double() / 2
            own[source] = above.mean()
    here = torch.arange(n)
    return Words(unit, scored[unit, here], scored[unit, dealt], own)


@dataclass(frozen=True)
class Seeing:
    """Reading a class's name beside seeing the thing, held out; by class.

    Attributes:
        reader_sees: area for the thing of the unit chosen to read the name.
        seer: the unit chosen to see the thing.
        seer_sees, seer_reads: its areas for the thing, and for the name.
        both: the smaller area of the unit chosen for being good at both.
        agreement: of each unit, Spearman's correlation over classes of the mean response to the name with that to the
            thing; nan where a unit never varies.
        shuffled: the same with the names dealt out at random.
    """

    reader_sees: Float[Tensor, " classes"]
    seer: Int[Tensor, " classes"]
    seer_sees: Float[Tensor, " classes"]
    seer_reads: Float[Tensor, " classes"]
    both: Float[Tensor, " classes"]
    agreement: Float[Tensor, " units"]
    shuffled: Float[Tensor, " units"]


def seeing(responses: Responses, shown: Shown, readers: Words, seed: int = 0) -> Seeing:
    """Compare names with things; among things a class is told from other things, among strings from other strings."""
    match, n = shown.sample.match, int(shown.strings.are(CLASS).sum())
    halves = []
    for half in (match, ~match):
        seen, read = (shown.concept >= 0) & half, (shown.string >= 0) & half
        halves.append(
            (
                responses.on(seen).auc(Weights.of_groups(shown.concept[seen], n)).nan_to_num(0.5),
                responses.on(read).auc(Weights.of_groups(torch.where(shown.are(CLASS), shown.string, -1)[read], n)),
            )
        )
    (matched_seen, matched_read), (scored_seen, scored_read) = halves
    here, seer = torch.arange(n), matched_seen.argmax(0)
    both = torch.minimum(matched_seen, matched_read).argmax(0)
    seen, read = (shown.concept >= 0) & ~match, shown.are(CLASS) & ~match
    of_things = _means(responses.on(seen), shown.concept[seen], n)
    of_names = _means(responses.on(read), shown.string[read], n)
    dealt = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return Seeing(
        scored_seen[readers.unit[:n], here],
        seer,
        scored_seen[seer, here],
        scored_read[seer, here],
        torch.minimum(scored_seen, scored_read)[both, here],
        spearman(of_names, of_things),
        spearman(of_names[:, dealt], of_things),
    )


def spearman(one: Float[Tensor, "rows n"], other: Float[Tensor, "rows n"]) -> Float[Tensor, " rows"]:
    """Return the rank correlation of each row of one with that row of the other, over columns finite in both."""
    from scipy.stats import rankdata

    keep = (one.isfinite() & other.isfinite()).all(0)
    ranks = [torch.from_numpy(rankdata(part[:, keep].numpy(), axis=1)) for part in (one, other)]
    first, second = (part - part.mean(1, keepdim=True) for part in ranks)
    return (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))


def responses_of(bench: Workbench, shown: Shown) -> dict[str, Responses]:
    """Return what latents and controls answer to things and strings."""
    latents = Units(LATENTS, bench.dictionary, shown.sample)
    neurons, random = (Units(one.name, one.dictionary, shown.sample) for one in (bench.neurons, bench.random))
    units = (latents.responses, before_selection(latents), neurons.responses, random.responses)
    return dict(zip(SETS, units, strict=True))


def open_shown(bench: Workbench, words: Path | None) -> Shown:
    """Draw the strings for a workbench.

    Raises:
        EvaluationError: the dictionary is not one of the image tower of a model with classes.
    """
    hookpoint = str(bench.dictionary.provenance.get("hookpoint"))
    if bench.subject.kind != "clip" or not hookpoint.startswith("visual."):
        raise EvaluationError(
            f"{bench.subject.id} {hookpoint}: words are drawn as pictures, so this needs a hookpoint of an image tower."
        )
    return Shown.of(bench, strings_of(bench, words, bench.seed))


def run(config: Config) -> Finding:
    """Draw words, and say which units read them."""
    bench = Workbench.open(config)
    shown = open_shown(bench, config.words)
    read: dict[str, tuple[Areas, Words, Seeing]] = {}
    responses = responses_of(bench, shown)
    for name, one in responses.items():
        readers = word_readers(one, shown, bench.seed)
        read[name] = areas(one, shown), readers, seeing(one, shown, readers, bench.seed)
    figures = figures_of(shown, read)
    rows = rows_of(shown, responses[LATENTS], read[LATENTS], config.n_top)
    picture = Picture(
        lambda: draw(shown, responses[LATENTS], read, figures),
        rows,
        "Left: every unit, the share of its mean activation that is on words rather than things, and on letters drawn "
        "at random; on the diagonal it sees text and does not read. Middle: strings that one unit, chosen on four "
        f"fonts, tells from all other strings in three others (AUC above {MONOSEMANTIC_AUC}). Right: for every class "
        "the latent that reads its name best, before selection, and whether it sees the thing. Below: strings that "
        "excite the latents that tell words from things best.",
    )
    return Finding("reading", bench.about, figures, rows, verdict(figures), {"lab-reading": picture})


def figures_of(shown: Shown, read: Mapping[str, tuple[Areas, Words, Seeing]]) -> dict[str, float]:
    """Return shares of units, strings and classes, of every set of units."""
    n = int(shown.strings.are(CLASS).sum())
    figures = {"classes": float(n), "strings": float(len(shown.strings.texts)), "things": float(shown.n_things)}
    share = lambda values: float((values > MONOSEMANTIC_AUC).double().mean())  # noqa: E731
    for name, (area, words, see) in read.items():
        reads = area.reads
        figures |= {
            f"{name}: units": float(len(reads)),
            f"{name}: units that read": float(reads.sum()),
            f"{name}: best area of words": float(area.words[area.matched_words.argmax()]),
            f"{name}: units for text": float(area.for_text.sum()),
            f"{name}: of these for random letters too": float(area.for_any_text.sum()),
            f"{name}: units for things": float(area.for_things.sum()),
            f"{name}: letters, of units that read": _mean(area.letters[reads]),
            f"{name}: words from letters, of units that read": _mean(area.words_from_letters[reads]),
        }
        for kind in KINDS:
            if (chosen := shown.strings.are(kind)).any():
                figures[f"{name}: {kind} strings with a unit"] = share(words.auc[chosen])
        figures |= {
            f"{name}: class strings with a unit, shuffled": share(words.shuffled[:n]),
            f"{name}: word above its own anagram": _mean(words.own_anagram[:n]),
            f"{name}: readers that see": share(torch.minimum(see.reader_sees, words.auc[:n])),
            f"{name}: classes seen": share(see.seer_sees),
            f"{name}: seers that read": share(torch.minimum(see.seer_sees, see.seer_reads)),
            f"{name}: classes read and seen by one unit": share(see.both),
            f"{name}: agreement": _mean(see.agreement),
            f"{name}: agreement, shuffled": _mean(see.shuffled),
        }
    return {name: value for name, value in figures.items() if isfinite(value)}


def rows_of(shown: Shown, responses: Responses, read: tuple[Areas, Words, Seeing], n_top: int) -> list[dict[str, Any]]:
    """List the latents that tell words from things best, with the strings that excite them most."""
    area, words, see = read
    top = area.matched_words.nan_to_num(0).topk(min(n_top, len(area.words))).indices
    rows = []
    for unit, best in zip(top.tolist(), best_strings(shown, responses, top, 5), strict=True):
        own = (words.unit == unit).nonzero()[:, 0].tolist()
        rows.append(
            {
                "latent": unit,
                "words from things": round(float(area.words[unit]), 3),
                "share of words": round(share, 3) if isfinite(share := float(area.share[unit])) else "",
                "letters from things": round(float(area.letters[unit]), 3),
                "words from letters": round(float(area.words_from_letters[unit]), 3),
                "agreement": round(agreement, 3) if isfinite(agreement := float(see.agreement[unit])) else "",
                "fires most for": " ".join(best),
                "reads best of all": " ".join(shown.strings.texts[one] for one in own[:5]),
            }
        )
    return rows


def best_strings(shown: Shown, responses: Responses, units: Tensor, n: int) -> list[list[str]]:
    """Return the strings to which each unit answers most on average, in the fonts to score on."""
    keep = (shown.string >= 0) & ~shown.sample.match
    columns, of = responses.on(keep).columns(units).double(), shown.string[keep]
    totals = torch.zeros(len(shown.strings.texts), len(units), dtype=torch.float64).index_add_(0, of, columns)
    top = totals.topk(n, dim=0).indices.T
    return [[shown.strings.texts[one] for one in row] for row in top.tolist()]


def verdict(figures: Mapping[str, float]) -> str:
    """Say how many latents read, and whether more than the controls do."""
    get = lambda name, what: figures[f"{name}: {what}"]  # noqa: E731
    n, before = int(figures["classes"]), SETS[1]

    def units(what: str) -> str:
        n_units = {name: int(get(name, "units")) for name in (LATENTS, *CONTROLS)}
        share = {name: get(name, what) / n_units[name] for name in n_units}
        return beside(share[LATENTS], n_units[LATENTS], {name: (share[name], n_units[name]) for name in CONTROLS})

    def names(what: str, who: str) -> str:
        return beside(get(who, what), n, {name: (get(name, what), n) for name in CONTROLS})

    texture = ""
    if get(LATENTS, "units that read"):
        apart = get(LATENTS, "words from letters, of units that read")
        texture = f", and words from random letters by {apart:.2f} on average" + (
            ": they see text rather than read it" if apart < 0.6 else ""
        )
    read, both, letters = "class strings with a unit", "classes read and seen by one unit", "strings of random letters"
    shares = {
        letters: (get(LATENTS, f"{LETTERS} strings with a unit"), n),
        "names dealt at random": (get(LATENTS, f"{read}, shuffled"), n),
    }
    return (
        f"{get(LATENTS, 'units that read'):.0f} of {get(LATENTS, 'units'):.0f} latents tell words from things (AUC "
        f"above {MONOSEMANTIC_AUC}), {units('units that read')}{texture}; {get(LATENTS, 'units for text'):.0f} fire "
        f"nine times as much for words as for things, {units('units for text')}, "
        f"{get(LATENTS, 'of these for random letters too'):.0f} of them for random letters too. "
        f"{get(LATENTS, read):.0%} of {n} class names have a latent that tells them from all other strings in unseen "
        f"fonts, {names(read, LATENTS)}, {beside(get(LATENTS, read), n, shares)}; before selection "
        f"{get(before, read):.0%}, {names(read, before)}. One latent both reads and sees {get(LATENTS, both):.0%}, "
        f"{names(both, LATENTS)}; before selection {get(before, both):.0%}, {names(both, before)}."
    )


def _means(responses: Responses, group: Int[Tensor, " items"], n: int) -> Float[Tensor, "units groups"]:
    weights = Weights.of_groups(group, n)
    return responses.total(weights) / weights.totals


def _positive(responses: Responses) -> Float[Tensor, " units"]:
    return torch.cat([block.clamp(min=0).double().mean(0) for _, block in responses.blocks()])


def _mean(values: Tensor) -> float:
    finite = values[values.isfinite()]
    return float(finite.mean()) if len(finite) else float(np.nan)
