"""Take a concept apart: a sparse sum of latents, or of simpler concepts, in the space that images and texts share.

The target t is a word's direction there (less the mean word, a mean over prompts), or that of the mean image which
shows it. Orthogonal matching pursuit (Pati et al. 1993) with weights that may not be negative writes it as

    t = w_1 d_1 + ... + w_n d_n + rest,   w_i > 0

over the places of latents, or over the directions of simpler words. Goh et al. 2021 (*Multimodal Neurons*, Distill)
write emotions as such sums of neurons ("bored = relaxed + grumpy").

How much a sum speaks of a simple concept is the sum over its terms of w_i times what the unit knows of it: its AUC
above 1/2 for the concept, on the half to match on, without the images of the mixtures themselves. Any phrase that the
subject's texts may hold can be taken apart, and over any; one that is no class of the inputs has no mean image and no
AUC, and is taken apart from its text alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sae.errors import ConfigError, InputsError, nearest
from sae.evaluation.responses import Responses
from sae.evaluation.sample import Units
from sae.evaluation.weights import Weights
from sae.features.live.words import Words
from sae.lab.concepts import Concepts, compared
from sae.lab.finding import Finding
from sae.lab.words.arithmetic_picture import KINDS, SIZES, arithmetic_picture
from sae.lab.words.boosting import Boosted, Texts
from sae.lab.words.joint import JointSpace, Way
from sae.lab.words.question import Question, spoken
from sae.lab.words.sums import Sum, decompose, equation, jaccard
from sae.lab.workbench import Workbench, WorkbenchConfig

SIDES = ("text", "image")
"""Where the target comes from."""
UNSEEN = "words with too few examples"


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of an arithmetic."""

    words: tuple[str, ...] = ()
    """Take these words or phrases apart; if empty, those of which the inputs know the parts."""
    over: tuple[str, ...] = ()
    """The simpler words or phrases; if empty, the parts that the inputs know."""
    templates: tuple[str, ...] = ()
    """Prompts around these words, {} for the word; if empty, those of the inputs' classes with these names."""
    images: tuple[str, ...] = ()
    """Mean images are those of images with one of these labels, such as facet=photo; if empty, of all."""
    n_terms: int = 4
    """Most terms of a sum over latents."""
    way: Way = "path"
    """Places by what latents write (path), or by the images that they fire on (covariance)."""
    n_images: int = 1024
    """Average attributions over so many images of the half to match on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.n_terms, self.n_images) < 1:
            raise ConfigError(f"n_terms, n_images: must be at least 1, got {self.n_terms} and {self.n_images}.")


def knowledge(
    concepts: Concepts, responses: Responses, simple: Sequence[str], mixtures: Sequence[str]
) -> Float[Tensor, "units simple"]:
    """Return the AUC above 1/2 of units for simple concepts, on the images to match on that show no mixture.

    Nothing is known of what is no class, or a class with too few examples.
    """
    columns = {place: column for place, word in enumerate(simple) if (column := concepts.column(word)) is not None}
    mixed = [column for word in mixtures if (column := concepts.column(word)) is not None]
    keep = concepts.match & ~concepts.columns[:, mixed].any(1)
    known = torch.zeros(responses.n_units, len(simple))
    if columns:
        shown = concepts.columns[:, list(columns.values())]
        known[:, list(columns)] = (responses.on(keep).auc(Weights.of(shown[keep])).float() - 0.5).clamp(min=0)
    return known


@dataclass(frozen=True)
class Arithmetic:
    """Words of a subject taken apart on one side.

    Attributes:
        question: which words, and over which.
        targets: of the words; zeros where this side knows nothing of one.
        simple: directions of the simpler words on the same side, likewise.
    """

    question: Question
    targets: Float[Tensor, "words d_joint"]
    simple: Float[Tensor, "simple d_joint"]

    @classmethod
    def of_texts(cls, words: Words, question: Question, templates: Sequence[str] | None = None) -> "Arithmetic":
        """Take texts, in all of the question's templates or in some."""
        prompts = templates or question.templates
        return cls(question, words.towards(question.words, prompts), words.towards(question.over, prompts))

    @classmethod
    def of_images(
        cls, space: JointSpace, concepts: Concepts, question: Question, images: Sequence[str]
    ) -> "Arithmetic":
        """Take mean images of the half to match on, less the mean over all concepts.

        Raises:
            InputsError: no images have such a label.
        """
        table, keep = space.bench.sample.table, concepts.match
        for name in images:
            if name not in table.names:
                raise InputsError(f"images: no label {name!r}.{nearest(name, table.names)}")
        if images:
            keep = keep & table.columns[:, [table.names.index(name) for name in images]].any(1)
        shown = (concepts.columns & keep[:, None]).double()
        means = shown.T @ space.embedding.double() / shown.sum(0)[:, None]
        means = F.normalize(means - means.nanmean(0), dim=1).float().nan_to_num(0)
        nothing = means.new_zeros(means.shape[1])

        def of(words: Sequence[str]) -> Tensor:
            columns = map(concepts.column, words)
            return torch.stack([nothing if column is None else means[column] for column in columns])

        return cls(question, of(question.words), of(question.over))

    @property
    def unseen(self) -> list[str]:
        """The classes that this side knows nothing of."""
        asked = zip((*self.question.words, *self.question.over), (*self.targets, *self.simple), strict=True)
        found = dict.fromkeys(word for word, direction in asked if not direction.any())
        return [word for word in found if word not in self.question.no_classes]

    def over_words(self) -> list[Sum]:
        """Write every word as a sum over the simpler ones."""
        return [decompose(target, self.simple, len(self.simple)) for target in self.targets]

    def over_units(self, places: Float[Tensor, "units d_joint"], n_terms: int) -> list[Sum]:
        """Write every word as a sum over units."""
        return [decompose(target, places, n_terms) for target in self.targets]

    def share(
        self, places: Float[Tensor, "units d_joint"], known: Float[Tensor, "units simple"], n_terms: int
    ) -> float:
        """Return the share of the words both of whose parts are found over units."""
        return self.question.share([spoken(found, known) for found in self.over_units(places, n_terms)])

    def figures(self, found: Sequence[Sum], known: Float[Tensor, "units simple"]) -> dict[str, float]:
        """Return how often both parts are found, of all words, and how long and near the sums are that there are."""
        sums = [one for one, target in zip(found, self.targets, strict=True) if target.any()]
        n = max(1, len(sums))
        figures = {"terms": sum(len(one.terms) for one in sums) / n, "cosine": sum(one.cosine for one in sums) / n}
        if self.question.answered:
            said = [spoken(one, known) for one in found]
            shuffled = self.question.shuffled_share(said)
            figures |= {"both parts": self.question.share(said), "both parts, shuffled": shuffled}
        return figures


def run(config: Config) -> Finding:
    """Take words apart over latents and over simpler words, and say how often the parts are found."""
    space = JointSpace.of(Workbench.open(config), config.n_images)
    bench, concepts = space.bench, Concepts.of(space)
    question = Question.of(space.words, bench.inputs, config.words, config.over, config.templates)
    units = dict(zip(KINDS, (bench.latents, bench.neurons, bench.random), strict=True))
    places = dict(zip(KINDS, space.places(list(units.values()), config.way), strict=True))
    known = {name: knowledge(concepts, one.responses, question.over, question.words) for name, one in units.items()}
    sides = {"text": Arithmetic.of_texts(space.words, question)}
    images = Arithmetic.of_images(space, concepts, question, config.images)
    if set(question.words) - set(question.no_classes):
        sides["image"] = images
    figures = {"n_words": float(len(question.words)), "words that are no classes": float(len(question.no_classes))}
    figures[UNSEEN] = float(len(images.unseen))
    for side, one in sides.items():
        of_words = one.figures(one.over_words(), torch.eye(len(question.over)))
        figures |= {f"{side}, words, {what}": value for what, value in of_words.items()}
        for name in KINDS:
            of_units = one.figures(one.over_units(places[name], config.n_terms), known[name])
            figures |= {f"{side}, {name}, {what}": value for what, value in of_units.items()}
    chosen = {name: sides["text"].over_units(places[name], config.n_terms) for name in KINDS}
    stable = _stability(space.words, question, places["latents"], config.n_terms)
    figures["text, latents, stability"] = sum(stable) / len(stable)
    alive = bench.latents.alive.nonzero()[:, 0].tolist()
    tried = {name: (units[name], chosen[name]) for name in KINDS}
    tried["drawn latents"] = (bench.latents, _drawn(chosen["latents"], alive, config.seed))
    boosted = {name: _boosted(space, question, *one) for name, one in tried.items()}
    for name, one in boosted.items():
        figures |= one.figures(f"{name}, boosted", "word ")
    over_words = sides["text"].over_words()
    rows = _rows(question, over_words, chosen["latents"], known["latents"], stable, boosted["latents"])
    pictures = {}
    if question.answered:
        curves = _curves(sides, places, known)
        shares = {side: figures[f"{side}, words, both parts"] for side in sides}
        pictures["lab-arithmetic"] = arithmetic_picture(curves, shares)
    return Finding("arithmetic", bench.about, figures, rows, _verdict(figures, question), pictures)


def _curves(
    sides: Mapping[str, Arithmetic], places: Mapping[str, Tensor], known: Mapping[str, Tensor]
) -> list[dict[str, Any]]:
    return [
        {"side": side, "units": name, "terms": n, "both_parts": one.share(places[name], known[name], n)}
        for side, one in sides.items()
        for name in KINDS
        for n in SIZES
    ]


def _stability(words: Words, question: Question, places: Tensor, n_terms: int) -> list[float]:
    """Return for every word how alike the terms are in different templates."""
    found = [Arithmetic.of_texts(words, question, [one]).over_units(places, n_terms) for one in question.templates]
    return [jaccard([one[place].terms for one in found]) for place in range(len(question.words))]


def _boosted(space: JointSpace, question: Question, units: Units, sums: Sequence[Sum]) -> Boosted:
    """Boost the units of each word's sum together: the largest term to its maximum, the others in proportion."""
    texts = Texts.of(space, (*question.words, *question.over))
    groups = [dict(zip(one.terms, (weight / max(one.weights) for weight in one.weights), strict=True)) for one in sums]
    return Boosted.of(space, units, groups, texts.directions, texts.numbers(question.words))


def _drawn(sums: Sequence[Sum], alive: Sequence[int], seed: int) -> list[Sum]:
    """Return the same weights on units drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    order = [torch.randperm(len(alive), generator=generator)[: len(one.terms)].tolist() for one in sums]
    return [replace(one, terms=tuple(alive[i] for i in chosen)) for one, chosen in zip(sums, order, strict=True)]


def _rows(
    question: Question,
    over_words: Sequence[Sum],
    over_latents: Sequence[Sum],
    known: Float[Tensor, "units simple"],
    stable: Sequence[float],
    boosted: Boosted,
) -> list[dict[str, Any]]:
    rows = []
    for place, (word, parts) in enumerate(zip(question.words, question.parts, strict=True)):
        simpler, latents = over_words[place], over_latents[place]
        names = [question.over[term] for term in simpler.terms]
        called = [f"{term}{_speaks_of(question, known[term])}" for term in latents.terms]
        rows.append(
            {
                "word": word,
                "parts": " + ".join(question.over[part] for part in sorted(parts or ())),
                "over_words": equation(simpler.weights, names),
                "over_latents": equation(latents.weights, called),
                "cosine": round(latents.cosine, 3),
                "stability": round(stable[place], 3),
            }
            | boosted.row(place, len(question.words))
        )
    return rows


def _speaks_of(question: Question, known: Float[Tensor, " simple"]) -> str:
    """Return the simple word that a unit knows best, "?" for one that knows none, nothing where none is a class."""
    if set(question.over) <= set(question.no_classes):
        return ""
    return f" ({question.over[int(known.argmax())] if known.any() else '?'})"


def _verdict(figures: Mapping[str, float], question: Question) -> str:
    def said(side: str) -> str:
        words, latents, neurons, random = (figures[f"{side}, {name}, both parts"] for name in ("words", *KINDS))
        best = max(neurons, random)
        told = compared(latents, best, int(figures["n_words"]))
        return (
            f"From the {side} both parts are found for {words:.0%} of the mixtures over simpler words "
            f"({figures[f'{side}, words, both parts, shuffled']:.0%} with shuffled parts), and for {latents:.0%} over "
            f"latents, {told} what is found over the best control ({best:.0%})."
        )

    sides = [side for side in SIDES if f"{side}, words, both parts" in figures]
    text = " ".join(map(said, sides)) or (
        "The parts of these words are not known, so nothing can be said about whether they are found."
    )
    if question.no_classes:
        called = ", ".join(question.no_classes)
        text += f" No classes of the inputs, so known from their text alone, without pictures or AUC: {called}."
    if figures[UNSEEN]:
        text += (
            f" {figures[UNSEEN]:.0f} of the words have too few examples to be known from pictures, where they count as "
            "not found."
        )
    return text
