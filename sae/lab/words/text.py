"""Find the text that a latent asks for: the one nearest to it in the space that images and texts share.

A text T scores for a latent with place p in the joint space (`JointSpace.places`)

    cos(p, embedding(T) - mean word) + prior * mean log2 P(word | the word before it)

First single words of a vocabulary are ranked, then the best ones are extended by a word before or after, as long as
that helps: greedily, or with a beam of several texts. Language is a bigram model of the inputs' captions; where these
have none, nothing but the cosine counts. Goh et al. 2021 (*Multimodal Neurons*, Distill) climb likewise, with a
language model's log-probability as penalty.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import log2
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.errors import ConfigError, DictionaryError, EvaluationError
from sae.evaluation.pictures import style
from sae.features.building.known import CAPTION
from sae.features.live.words import PLAIN, Words
from sae.lab.concepts import Concepts, compared, too_few
from sae.lab.finding import Finding, Picture
from sae.lab.words.joint import JointSpace, Way
from sae.lab.workbench import Workbench, WorkbenchConfig

SMOOTHING = 0.1
"""Added to the count of every pair of words."""
MOST_CAPTIONS = 4096
N_RANDOM = 256
"""Captions drawn at random that found texts are compared with."""
LABELS = {"ranking": "first word", "greedy": "extended greedily", "beam": "extended with a beam"}
STEPS = tuple(LABELS)


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of a search for texts."""

    latents: tuple[int, ...] = ()
    """Show texts for these; if empty, for the best latent of every class of the inputs."""
    vocabulary: tuple[str, ...] = ()
    """Words to make texts of; if empty, those that a built-in subject was trained on, or those of the captions."""
    beam: int = 4
    """Texts to keep at a time."""
    n_words: int = 5
    """Most words of a text."""
    n_tried: int = 8
    """Words of the vocabulary to try at every extension, the nearest ones, beside those that captions continue with."""
    prior: float = 0.02
    """Weight of the language, per bit and word; 0 for none."""
    way: Way = "path"
    """Places by what latents write (path), or by the images that they fire on (covariance)."""
    n_images: int = 1024
    """Average attributions over so many images of the half to match on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.beam, self.n_words, self.n_tried, self.n_images) < 1 or self.prior < 0:
            raise ConfigError("beam, n_words, n_tried, n_images: must be at least 1; prior: must not be negative.")


class Bigrams:
    """How likely words follow one another in some captions, a little added to every count.

    Args:
        captions: what counts.
        vocabulary: every word that there is.
    """

    def __init__(self, captions: Sequence[str], vocabulary: Sequence[str]) -> None:
        self._n_words = len(vocabulary) + 1
        self.after: dict[str, Counter[str]] = defaultdict(Counter)
        self.before: dict[str, set[str]] = defaultdict(set)
        for caption in captions:
            words = ["", *caption.split(), ""]
            for one, other in pairwise(words):
                self.after[one][other] += 1
                self.before[other].add(one)
        self._totals = {word: counts.total() for word, counts in self.after.items()}

    def __call__(self, text: str) -> float:
        """Return the mean log2-probability of the words and the end of a text; 0 if there are no captions."""
        if not self._totals:
            return 0.0
        words = ["", *text.split(), ""]
        return sum(map(self._log2, words, words[1:])) / (len(words) - 1)

    def _log2(self, one: str, other: str) -> float:
        count = self.after[one][other] if one in self.after else 0
        return log2((count + SMOOTHING) / (self._totals.get(one, 0) + SMOOTHING * self._n_words))


@dataclass
class TextSearch:
    """Finds texts for places in the joint space.

    Attributes:
        words: whose space it is.
        vocabulary: what texts are made of.
        language: how well a text reads.
        config: how far to look.
    """

    words: Words
    vocabulary: tuple[str, ...]
    language: Bigrams
    config: Config
    _known: dict[str, Tensor] = field(default_factory=dict)

    def directions(self, texts: Sequence[str]) -> Float[Tensor, "texts d_joint"]:
        """Embed texts as they are, less the mean of the names as they are."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= dict(zip(new, self.words.towards(new, PLAIN), strict=True))
        return torch.stack([self._known[text] for text in texts])

    def scores(self, place: Float[Tensor, " d_joint"], texts: Sequence[str]) -> Float[Tensor, " texts"]:
        """Return the score of each text (see the module)."""
        fluency = torch.tensor([self.language(text) for text in texts])
        return self.directions(texts) @ F.normalize(place, dim=0) + self.config.prior * fluency

    def ranked(self, place: Float[Tensor, " d_joint"]) -> list[str]:
        """Return the vocabulary by its cosine with a place, nearest first."""
        cosines = self.directions(self.vocabulary) @ place
        return [self.vocabulary[number] for number in cosines.argsort(descending=True, stable=True).tolist()]

    def found(self, place: Float[Tensor, " d_joint"], beam: int) -> str:
        """Return the best text that extension finds; the first of the vocabulary has to be beaten."""
        nearest = self.ranked(place)
        kept = self._best(place, nearest[: max(beam, self.config.n_tried)], beam)
        best = kept[0]
        for _ in range(self.config.n_words - 1):
            longer = {new for text, _ in kept for new in self._extended(text, nearest[: self.config.n_tried])}
            if not longer:
                break
            kept = self._best(place, sorted(longer), beam)
            if kept[0][1] <= best[1]:
                break
            best = kept[0]
        return best[0]

    def all_steps(self, places: Float[Tensor, "n d_joint"]) -> dict[str, list[str]]:
        """Return for every place the nearest word, and the texts by greedy extension and with a beam."""
        return {
            "ranking": [self.ranked(place)[0] for place in places],
            "greedy": [self.found(place, 1) for place in places],
            "beam": [self.found(place, self.config.beam) for place in places],
        }

    def _best(self, place: Tensor, texts: Sequence[str], n: int) -> list[tuple[str, float]]:
        top = (scores := self.scores(place, texts)).topk(min(n, len(texts)))
        return [(texts[int(number)], float(scores[number])) for number in top.indices]

    def _extended(self, text: str, tried: Sequence[str]) -> list[str]:
        words = text.split()
        before = {*self.language.before.get(words[0], ()), *tried} - {""}
        after = {*dict(self.language.after.get(words[-1], Counter()).most_common(self.config.n_tried)), *tried} - {""}
        allowed = set(self.vocabulary)
        extended = [f"{one} {text}" for one in before & allowed] + [f"{text} {one}" for one in after & allowed]
        return [one for one in extended if len(set(one.split())) == len(words) + 1]


@dataclass(frozen=True)
class Judged:
    """Texts found for the unit that detects each concept best.

    Attributes:
        unit: of each concept.
        texts: of each concept, by step of the search.
        figures: how often they name the concept, and cosines with the unit's place.
    """

    unit: Int[Tensor, " concepts"]
    texts: Mapping[str, Sequence[str]]
    figures: Mapping[str, float]


def run(config: Config) -> Finding:
    """Find texts for latents, and say how often a text names what its latent detects."""
    space = JointSpace.of(Workbench.open(config), config.n_images)
    bench, concepts, n = space.bench, Concepts.of(space), space.bench.dictionary.d_sae
    for latent in config.latents:
        if not 0 <= latent < n:
            raise DictionaryError(f"no latent {latent}; they are numbered 0 to {n - 1}.")
    captions = known_captions(bench)
    vocabulary = config.vocabulary or space.words.vocabulary or tuple(sorted({*" ".join(captions).split()}))
    if not vocabulary:
        raise EvaluationError("text: neither the subject nor the captions give words to make texts of; name some.")
    search = TextSearch(space.words, vocabulary, Bigrams(captions, vocabulary), config)
    sets = {"latents": bench.latents, "neurons": bench.neurons, "random_directions": bench.random}
    places = dict(zip(sets, space.places(list(sets.values()), config.way), strict=True))
    found = {
        name: judged(search, places[name], concepts, concepts.detectors(units.responses), captions)
        for name, units in sets.items()
    }
    figures = {f"{name}, {what}": value for name, one in found.items() for what, value in one.figures.items()}
    figures |= concepts.figures
    if config.latents:
        rows = _rows(config.latents, search.all_steps(places["latents"][list(config.latents)]))
    else:
        rows = _rows(found["latents"].unit.tolist(), found["latents"].texts, concepts.names)
    picture = Picture(
        lambda: _draw(figures),
        _picture_rows(figures),
        "Share of the inputs' concepts named by the text that was found for the unit that detects them best, by how it "
        "was found; dashed: the text of another concept's latent.",
    )
    return Finding("text", bench.about, figures, rows, _verdict(figures), {"lab-text": picture})


def judged(
    search: TextSearch,
    places: Float[Tensor, "units d_joint"],
    concepts: Concepts,
    unit: Int[Tensor, " concepts"],
    captions: Sequence[str],
) -> Judged:
    """Find a text for each concept's unit; say how often it holds the concept's name, and how near the unit it is.

    Cosines are those of the text that the beam finds, of the nearest of the concept's own prompts, and of the nearest
    and the mean of captions drawn at random.
    """
    texts, chosen, names = search.all_steps(places[unit]), F.normalize(places[unit], dim=1), concepts.names
    figures = {f"{step}, names the concept": concepts.share(naming(found, names)) for step, found in texts.items()}
    figures["beam, names the next concept"] = concepts.share(naming(texts["beam"], [*names[1:], *names[:1]]))
    figures["cosine of the text"] = float((search.directions(texts["beam"]) * chosen).sum(1).mean())
    templates = search.words.templates
    own = search.directions([one.replace("{}", name) for name in names for one in templates])
    own = own.view(len(names), len(templates), -1)
    figures["cosine of its own best prompt"] = float(torch.einsum("ctd,cd->ct", own, chosen).amax(1).mean())
    if captions:
        drawn = torch.randperm(len(captions), generator=torch.Generator().manual_seed(search.config.seed))[:N_RANDOM]
        random = chosen @ search.directions([captions[int(number)] for number in drawn]).T
        figures["cosine of random captions"] = float(random.mean())
        figures["cosine of the best random caption"] = float(random.amax(1).mean())
    return Judged(unit, texts, figures)


def naming(texts: Sequence[str], names: Sequence[str]) -> Bool[Tensor, " texts"]:
    """Return which texts hold the name beside them, as words."""
    return torch.tensor([f" {name} " in f" {text} " for text, name in zip(texts, names, strict=True)])


def known_captions(bench: Workbench) -> list[str]:
    """Return captions of the half to match on, none where the inputs have none."""
    inputs: Any = bench.inputs
    if not hasattr(inputs, "references"):
        return []
    examples = bench.sample.example[bench.sample.match].unique()[:MOST_CAPTIONS].tolist()
    references = (inputs.references(number, number + 1)[0] for number in examples)
    return [found[CAPTION] for found in references if found.get(CAPTION)]


def _rows(
    latents: Sequence[int], texts: Mapping[str, Sequence[str]], names: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    shown = [
        {"latent": latent} | {step: found[place] for step, found in texts.items()}
        for place, latent in enumerate(latents)
    ]
    return shown if names is None else [{"concept": name} | row for name, row in zip(names, shown, strict=True)]


def _verdict(figures: Mapping[str, float]) -> str:
    shares = {name: figures[f"{name}, beam, names the concept"] for name in ("latents", "neurons", "random_directions")}
    best = max(("neurons", "random_directions"), key=shares.__getitem__)
    told = compared(shares["latents"], shares[best], int(figures["n_concepts"]))
    return (
        f"The text found for the latent that detects a concept best names it for {shares['latents']:.0%} of "
        f"{figures['n_concepts']:.0f} concepts (the first word alone for "
        f"{figures['latents, ranking, names the concept']:.0%}): {told} the best control, {best.replace('_', ' ')} "
        f"with {shares[best]:.0%}; the text of another concept's latent does for "
        f"{figures['latents, beam, names the next concept']:.0%}.{too_few(figures)}"
    )


def _picture_rows(figures: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {"units": name, "text": step, "share": figures[f"{name}, {step}, names the concept"]}
        for name in ("latents", "neurons", "random_directions")
        for step in STEPS
    ]


def _draw(figures: Mapping[str, float]) -> Any:
    """Draw a row of dots per set of units, one dot per step of the search."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.4), layout="constrained")
    axes, rows = figure.subplots(), _picture_rows(figures)
    names = list(dict.fromkeys(row["units"] for row in rows))
    for number, step in enumerate(STEPS):
        chosen = [row for row in rows if row["text"] == step]
        heights = [names.index(row["units"]) + 0.18 * (number - 1) for row in chosen]
        look, marks = style(number), {"linestyle": "", "markersize": 6, "label": LABELS[step]}
        axes.plot([row["share"] for row in chosen], heights, color=look["color"], marker=look["marker"], **marks)
    chance = figures["latents, beam, names the next concept"]
    axes.axvline(chance, color="0.45", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.5, -0.5), xlabel="share of concepts that the text names")
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.tick_params(labelsize=9)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.93", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    return figure
