"""Take a concept apart: a sparse sum of latents, or of simpler concepts, in the space that images and texts share.

The target t is a word's direction there (less the mean word, a mean over prompts), or that of the mean image which
shows it. Orthogonal matching pursuit (Pati et al. 1993) with weights that may not be negative writes it as

    t = w_1 d_1 + ... + w_n d_n + rest,   w_i > 0

over the places of latents, or over the directions of simpler words. Goh et al. 2021 (*Multimodal Neurons*, Distill)
write emotions as such sums of neurons ("bored = relaxed + grumpy").

How much a sum speaks of a simple concept is the sum over its terms of w_i times what the unit knows of it: its AUC
above 1/2 for the concept, on the half to match on, without the images of the mixtures themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sae.errors import ConfigError, InputsError, nearest
from sae.evaluation.pictures import style
from sae.evaluation.responses import Responses
from sae.evaluation.sample import Units
from sae.evaluation.weights import Weights
from sae.features.live.words import Words, words_and_templates
from sae.inputs.base import Composed
from sae.lab.concepts import Concepts, compared
from sae.lab.finding import Finding, Picture
from sae.lab.words.joint import JointSpace, Way, rank_of_own
from sae.lab.words.sums import Sum, decompose, equation, jaccard
from sae.lab.workbench import Workbench, WorkbenchConfig

SIDES = ("text", "image")
"""Where the target comes from."""
SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
"""Numbers of terms that the picture shows."""
KINDS = ("latents", "neurons", "random_directions")


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of an arithmetic."""

    words: tuple[str, ...] = ()
    """Take these apart; if empty, those of which the inputs know the parts."""
    over: tuple[str, ...] = ()
    """The simpler words; if empty, the parts that the inputs know."""
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
    concepts: Concepts, responses: Responses, simple: Sequence[int], mixtures: Sequence[int]
) -> Float[Tensor, "units simple"]:
    """Return the AUC above 1/2 of units for simple concepts, on the images to match on that show no mixture."""
    column = concepts.places
    mixed = concepts.columns[:, [column[number] for number in mixtures if number in column]].any(1)
    keep = concepts.match & ~mixed
    columns = concepts.columns[:, [column[number] for number in simple]]
    return (responses.on(keep).auc(Weights.of(columns[keep])).float() - 0.5).clamp(min=0)


def spoken(found: Sum, known: Float[Tensor, "units simple"]) -> Float[Tensor, " simple"]:
    """Return how much a sum speaks of each simple concept (see the module)."""
    total = known.new_zeros(known.shape[1])
    for term, weight in zip(found.terms, found.weights, strict=True):
        total += weight * known[term]
    return total


def both_parts(spoken_of: Float[Tensor, " simple"], parts: set[int]) -> bool:
    """Whether the parts are what is spoken of most; what is not spoken of at all is not found."""
    top = spoken_of.topk(len(parts))
    return bool((top.values > 0).all()) and set(top.indices.tolist()) == parts


@dataclass(frozen=True)
class Question:
    """What is to be taken apart, and what the answer is where it is known.

    Attributes:
        words: to take apart.
        over: the simpler words.
        templates: prompts around them.
        parts: of each word, places in `over`; None where the inputs do not know them.
    """

    words: tuple[str, ...]
    over: tuple[str, ...]
    templates: tuple[str, ...]
    parts: tuple[set[int] | None, ...]

    @property
    def answered(self) -> bool:
        """Whether the parts of any word are known."""
        return any(parts is not None for parts in self.parts)

    @classmethod
    def of(cls, words: Words, inputs: Any, config: Config) -> "Question":
        """Complete what the config names by what the inputs know, and check every word.

        Raises:
            ConfigError: neither says what to take apart, or over what.
            InputsError: a word is not among the inputs' classes.
        """
        known = inputs.parts() if isinstance(inputs, Composed) else {}
        chosen = config.words or tuple(known)
        over = config.over or tuple(dict.fromkeys(part for parts in known.values() for part in parts))
        if not chosen or len(over) < 2:
            raise ConfigError("words, over: these inputs know no mixtures; name what to take apart, and over what.")
        for word in (*chosen, *over):
            if word not in words.names:
                raise InputsError(f"no class is called {word!r}.{nearest(word, words.names)}")
        for template in config.templates:
            if "{}" not in template:
                raise ConfigError(f"templates: {template!r} has no place for the word; write {{}} there.")
        whole = [word in known and set(known[word]) <= set(over) for word in chosen]
        parts = tuple(
            {over.index(part) for part in known[word]} if ok else None for word, ok in zip(chosen, whole, strict=True)
        )
        return cls(chosen, over, config.templates or words_and_templates(inputs, {*chosen, *over})[1], parts)

    def share(self, spoken_of: Sequence[Float[Tensor, " simple"]]) -> float:
        """Return the share of the words with known parts that both are found of."""
        known = [both_parts(one, parts) for one, parts in zip(spoken_of, self.parts, strict=True) if parts is not None]
        return sum(known) / len(known)

    def shuffled_share(self, spoken_of: Sequence[Float[Tensor, " simple"]]) -> float:
        """Return the same with the parts of other words, the mean over all words with other parts."""
        pairs = [
            both_parts(one, parts)
            for one, own in zip(spoken_of, self.parts, strict=True)
            for parts in self.parts
            if own is not None and parts is not None and parts != own
        ]
        return sum(pairs) / len(pairs) if pairs else 0.0


@dataclass(frozen=True)
class Arithmetic:
    """Words of a subject taken apart on one side.

    Attributes:
        question: which words, and over which.
        targets: of the words.
        simple: directions of the simpler words on the same side.
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
            InputsError: no images have such a label, or too few show a word.
        """
        table, keep, column = space.bench.sample.table, concepts.match, concepts.places
        for name in images:
            if name not in table.names:
                raise InputsError(f"images: no label {name!r}.{nearest(name, table.names)}")
        if images:
            keep = keep & table.columns[:, [table.names.index(name) for name in images]].any(1)
        shown = (concepts.columns & keep[:, None]).double()
        means = shown.T @ space.embedding.double() / shown.sum(0)[:, None]
        means = F.normalize(means - means.nanmean(0), dim=1).float()
        for word in (*question.words, *question.over):
            number = column.get(space.words.names.index(word))
            if number is None or not shown[:, number].any():
                raise InputsError(f"{word!r}: too few of the images show it; take more vectors.")
        at = [[column[space.words.names.index(word)] for word in group] for group in (question.words, question.over)]
        return cls(question, means[at[0]], means[at[1]])

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


def run(config: Config) -> Finding:
    """Take words apart over latents and over simpler words, and say how often the parts are found."""
    space = JointSpace.of(Workbench.open(config), config.n_images)
    bench, concepts = space.bench, Concepts.of(space)
    question = Question.of(space.words, bench.inputs, config)
    units = dict(zip(KINDS, (bench.latents, bench.neurons, bench.random), strict=True))
    places = dict(zip(KINDS, space.places(list(units.values()), config.way), strict=True))
    numbers = [[space.words.names.index(word) for word in group] for group in (question.over, question.words)]
    sides = {
        "text": Arithmetic.of_texts(space.words, question),
        "image": Arithmetic.of_images(space, concepts, question, config.images),
    }
    known = {name: knowledge(concepts, one.responses, *numbers) for name, one in units.items()}
    figures: dict[str, float] = {"n_words": float(len(question.words))}
    curves: list[dict[str, Any]] = []
    for side, one in sides.items():
        figures |= {f"{side}, words, {what}": value for what, value in _figures(question, one.over_words()).items()}
        for name in KINDS:
            found = one.over_units(places[name], config.n_terms)
            figures |= {f"{side}, {name}, {what}": v for what, v in _figures(question, found, known[name]).items()}
            curves += [
                {
                    "side": side,
                    "units": name,
                    "terms": n,
                    "both_parts": one.share(places[name], known[name], n),
                }
                for n in SIZES
                if question.answered
            ]
    chosen = {name: sides["text"].over_units(places[name], config.n_terms) for name in KINDS}
    stable = _stability(space.words, question, places["latents"], config.n_terms)
    figures["text, latents, stability"] = sum(stable) / len(stable)
    ranks = {name: _boosted(space, units[name], chosen[name], numbers[1]) for name in KINDS}
    alive = bench.latents.alive.nonzero()[:, 0].tolist()
    ranks["drawn latents"] = _boosted(space, bench.latents, _drawn(chosen["latents"], alive, config.seed), numbers[1])
    for name, rank in ranks.items():
        figures[f"{name}, boosted, word rises most"] = float((rank == 1).double().mean())
        figures[f"{name}, boosted, median rank"] = float(rank.double().median())
    rows = _rows(question, sides["text"].over_words(), chosen["latents"], known["latents"], stable, ranks["latents"])
    caption = (
        "Share of the mixtures both of whose parts a sum speaks of most, by the number of its terms; dashed: the sum "
        "over the simpler words."
    )
    pictures = {"lab-arithmetic": Picture(lambda: _draw(curves, figures), curves, caption)} if question.answered else {}
    return Finding("arithmetic", bench.about, figures, rows, _verdict(figures), pictures)


def _figures(
    question: Question, found: Sequence[Sum], known: Float[Tensor, "units simple"] | None = None
) -> dict[str, float]:
    known = torch.eye(len(question.over)) if known is None else known
    said = [spoken(one, known) for one in found]
    figures = {
        "terms": sum(len(one.terms) for one in found) / len(found),
        "cosine": sum(one.cosine for one in found) / len(found),
    }
    if question.answered:
        figures |= {"both parts": question.share(said), "both parts, shuffled": question.shuffled_share(said)}
    return figures


def _stability(words: Words, question: Question, places: Tensor, n_terms: int) -> list[float]:
    """Return for every word how alike the terms are in different templates."""
    found = [Arithmetic.of_texts(words, question, [one]).over_units(places, n_terms) for one in question.templates]
    return [jaccard([one[place].terms for one in found]) for place in range(len(question.words))]


def _boosted(space: JointSpace, units: Units, sums: Sequence[Sum], words: Sequence[int]) -> Int[Tensor, " words"]:
    """Return the rank of each word's rise when the units of its sum are boosted together.

    The largest term goes to its maximum, the others in proportion.
    """
    groups = [dict(zip(one.terms, (weight / max(one.weights) for weight in one.weights), strict=True)) for one in sums]
    return rank_of_own(space.rises(units, groups), torch.tensor(words))


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
    rank: Int[Tensor, " words"],
) -> list[dict[str, Any]]:
    rows = []
    for place, (word, parts) in enumerate(zip(question.words, question.parts, strict=True)):
        simpler, latents = over_words[place], over_latents[place]
        names = [question.over[term] for term in simpler.terms]
        called = [f"{term} ({_speaks_of(question, known[term])})" for term in latents.terms]
        rows.append(
            {
                "word": word,
                "parts": " + ".join(question.over[part] for part in sorted(parts or ())),
                "over_words": equation(simpler.weights, names),
                "over_latents": equation(latents.weights, called),
                "cosine": round(latents.cosine, 3),
                "stability": round(stable[place], 3),
                "rank_of_rise": int(rank[place]),
            }
        )
    return rows


def _speaks_of(question: Question, known: Float[Tensor, " simple"]) -> str:
    """Return the simple word that a unit knows best, "?" for one that knows none."""
    return question.over[int(known.argmax())] if known.any() else "?"


def _verdict(figures: Mapping[str, float]) -> str:
    def said(side: str) -> str:
        words, latents, neurons, random = (figures[f"{side}, {name}, both parts"] for name in ("words", *KINDS))
        best = max(neurons, random)
        told = compared(latents, best, int(figures["n_words"]))
        return (
            f"From the {side} both parts are found for {words:.0%} of the mixtures over simpler words "
            f"({figures[f'{side}, words, both parts, shuffled']:.0%} with shuffled parts), and for {latents:.0%} over "
            f"latents, {told} what is found over the best control ({best:.0%})."
        )

    if "text, words, both parts" not in figures:
        return "The parts of these words are not known, so nothing can be said about whether they are found."
    return " ".join(map(said, SIDES))


def _draw(curves: Sequence[Mapping[str, Any]], figures: Mapping[str, float]) -> Any:
    """Draw one panel per side: the share found over the number of terms, a line per set of units."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    for axes, side in zip(figure.subplots(1, 2, sharey=True), SIDES, strict=True):
        for number, name in enumerate(KINDS):
            chosen = [row for row in curves if (row["side"], row["units"]) == (side, name)]
            look = style(number)
            label, grey = name.replace("_", " "), name != KINDS[0]
            axes.plot(
                [row["terms"] for row in chosen],
                [row["both_parts"] for row in chosen],
                label=label,
                color="0.55" if grey else look["color"],
                marker=look["marker"],
                markersize=5,
                linewidth=1.2 if grey else 1.8,
                zorder=2 if grey else 3,
            )
        axes.axhline(figures[f"{side}, words, both parts"], color="0.3", linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_title(f"from the {side}", fontsize=9, loc="left")
        axes.set(xscale="log", ylim=(-0.03, 1.03), xlabel="terms")
        axes.set_xticks(SIZES, list(map(str, SIZES)))
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.tick_params(labelsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    figure.supylabel("both parts found", fontsize=9)
    return figure
