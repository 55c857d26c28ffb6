"""What metrics attain on a view where that is no plain number: worked out from the toy itself, with no dictionary."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from test_splitting import naive_masked_cosine
from torch import Tensor

from sae.evaluation.facets import FACETS, MIN_FACET_POSITIVES
from sae.evaluation.similarity import TOP_ITEMS
from sae.evaluation.splitting import MIN_TOGETHER
from sae.evaluation.toys import Drawn, Toy, TwoModalities

SPLITTING_BAR = 0.4
"""Masked cosine from which on one feature leads to another."""

Attained = Callable[[Any], "float | Tensor | Between | Luck"]
"""Maps a view to a value, to one per item (nan where nothing is claimed), to bounds, or to a value up to luck."""


@dataclass(frozen=True)
class Between:
    """Bounds that the value keeps."""

    low: float
    high: float


@dataclass(frozen=True)
class Luck:
    """A value up to chance, with the standard deviation that one item has by it."""

    value: float
    deviation: float


def luck_of_correlation(view: Any) -> Luck:
    """Of a correlation with n rows dealt out: its variance over all orders is 1 / (n - 1), however skewed they are."""
    n = int((~view.sample.match).sum())
    return Luck(0.0, 1 / math.sqrt(n - 1))


def luck_of_difference(view: Any) -> Luck:
    """Of a difference of two such correlations, which are not independent."""
    return Luck(0.0, 2 * luck_of_correlation(view).deviation)


# Rows and their reconstructions ---------------------------------------------------------------------------------------


def features_alone(view: Any) -> Tensor:
    """Rows rebuilt from the true codes; of the offsets of two modalities only the mean is known."""
    return _rebuilt(view.toy, view.drawn)


def _rebuilt(toy: Toy, drawn: Drawn) -> Tensor:
    middle = toy.offsets.mean(0) if isinstance(toy, TwoModalities) else torch.zeros(toy.directions.shape[1])
    return (drawn.codes @ toy.directions + middle).double()


def mean_alone(view: Any) -> Tensor:
    return view.drawn.x.double().mean(0).expand_as(view.drawn.x)


def fvu(rebuilt: Callable[[Any], Tensor]) -> Attained:
    def value(view: Any) -> float:
        x = view.drawn.x.double()
        return float((x - rebuilt(view)).square().sum() / (x - x.mean(0)).square().sum())

    return value


def explained_variance(rebuilt: Callable[[Any], Tensor]) -> Attained:
    return lambda view: 1 - fvu(rebuilt)(view)


def cosine(rebuilt: Callable[[Any], Tensor]) -> Attained:
    """Rows in which no feature fires are zero, and count 0 by definition."""
    return lambda view: float(torch.cosine_similarity(view.drawn.x.double(), rebuilt(view), dim=1).mean())


def norm_ratio(rebuilt: Callable[[Any], Tensor]) -> Attained:
    def value(view: Any) -> float:
        norms = view.drawn.x.double().norm(dim=1)
        return float((rebuilt(view).norm(dim=1)[norms > 0] / norms[norms > 0]).mean())

    return value


def features_per_row(view: Any) -> float:
    return float(view.drawn.fired.sum(1).double().mean())


def rate(view: Any) -> float:
    return float(view.drawn.fired.double().mean())


def never_fire(view: Any) -> float:
    return float((~view.drawn.fired.any(0)).double().mean())


def fire_in_a_tenth(view: Any) -> float:
    return float((view.drawn.fired.double().mean(0) > 0.1).double().mean())


# Subjects -------------------------------------------------------------------------------------------------------------


def _recovered(loss: dict[str, float], ablated: str) -> float:
    return (loss[ablated] - loss["spliced"]) / (loss[ablated] - loss["clean"])


def language_scores(view: Any, hat: Tensor) -> dict[str, float]:
    """Return the scores of `splicing` when the row of every token is replaced by hand."""
    tokens, x = view.texts.tokens[:, 1:-1], view.drawn.x.double()
    mean = view.rows_of_text.double().mean(0).expand_as(x)
    rows = {"clean": x, "spliced": hat.double(), "zero": torch.zeros_like(x), "mean": mean}
    logs = {kind: (x[tokens] @ view.language.unembed.double()).log_softmax(-1) for kind, x in rows.items()}
    targets = view.texts.tokens[:, 2:, None]
    loss = {kind: float(-log.gather(-1, targets).mean()) for kind, log in logs.items()}
    apart = (logs["clean"].exp() * (logs["clean"] - logs["spliced"])).sum(-1).mean()
    return {
        "ce_recovered": _recovered(loss, "zero"),
        "ce_recovered_mean": _recovered(loss, "mean"),
        "ce_increase": loss["spliced"] - loss["clean"],
        "kl": float(apart),
    }


def clip_scores(view: Any, hat: Tensor) -> dict[str, float]:
    """Return the zero-shot scores when the row of every picture is replaced by hand."""
    x, texts = view.shown.x.double(), view.toy.directions.double()
    rows = {"clean": x, "spliced": hat.double(), "zero": torch.zeros_like(x), "mean": x.mean(0).expand_as(x)}
    cosines = {kind: F.normalize(rows, dim=1) @ texts.T for kind, rows in rows.items()}
    scale, own = math.exp(float(view.clip.LOGIT_SCALE)), view.concept
    loss = {kind: float(F.cross_entropy(scale * cosine, own)) for kind, cosine in cosines.items()}
    hits = {kind: float((cosine.argmax(1) == own).double().mean()) for kind, cosine in cosines.items()}
    captions = {kind: float(cosine.gather(1, own[:, None]).mean()) for kind, cosine in cosines.items()}
    return {
        "zero_shot_accuracy": hits["spliced"],
        "zero_shot_accuracy_clean": hits["clean"],
        "zero_shot_ce_recovered": _recovered(loss, "zero"),
        "zero_shot_ce_recovered_mean": _recovered(loss, "mean"),
        "caption_cosine_change": captions["spliced"] - captions["clean"],
    }


def language(name: str, by: str) -> Attained:
    """A language score with rows rebuilt by the true `features`, or replaced by their `mean`."""

    def value(view: Any) -> float:
        mean = view.rows_of_text.mean(0).expand_as(view.drawn.x)
        return language_scores(view, features_alone(view) if by == "features" else mean)[name]

    return value


def clip(name: str, by: str) -> Attained:
    """Likewise, a zero-shot score."""

    def value(view: Any) -> float:
        mean = view.shown.x.mean(0).expand_as(view.shown.x)
        return clip_scores(view, _rebuilt(view.toy, view.shown) if by == "features" else mean)[name]

    return value


# Labels, neurons and known features -----------------------------------------------------------------------------------


def base_rate(view: Any) -> Tensor:
    """How often labels occur where scores are taken: the precision of firing without knowing them."""
    return view.detection("shuffled").base_rate


def base_rate_of_first(view: Any) -> float:
    """Units that are all alike have the first label for their best."""
    return float(base_rate(view)[0])


def base_rate_of_label(view: Any) -> Tensor:
    return base_rate(view)[view.detection("shuffled").label]


def rate_of_unit(view: Any) -> Tensor:
    """How often a label's unit fires: the share of the label's items that it covers without knowing them."""
    found = view.detection("shuffled")
    return _rates(found)[found.unit]


def rates_of_units(view: Any) -> Tensor:
    return _rates(view.detection("shuffled"))


def _rates(found: Any) -> Tensor:
    return found.firing.n_latent / found._scored[1].n_items


def precision_of_luck(view: Any) -> Between:
    """Average precision of n items in random order: the base rate and, for early hits, at most H_n / n more."""
    base, n = float(base_rate(view).mean()), int((~view.sample.match).sum())
    return Between(base, base + float((1 / torch.arange(1, n + 1, dtype=torch.float64)).sum()) / n)


def variance_explained(view: Any) -> Tensor:
    """1 - (1 - s)^2 per neuron and concept, s the part in the neuron's answer of features that stand for the concept.

    The rest is carried by features that fire with the concept without standing for it: by sampling error where
    features are independent, by the others of a block, and by the offsets of modalities.
    """
    codes, x, directions = (part.double().numpy() for part in (view.drawn.codes, view.drawn.x, view.toy.directions))
    labels, match = view.sample.table.columns.numpy(), view.sample.match.numpy()

    standing = np.logical_and(*(_areas(codes[half], labels[half]) > 0.9 for half in (match, ~match)))
    values = []
    for neuron, label in zip(view.mixtures.neuron.tolist(), view.mixtures.label.tolist(), strict=True):
        inside = ~match & labels[:, label]
        rises = (codes[inside].mean(0) - codes[~match].mean(0)) * directions[:, neuron]
        share = rises[standing[:, label]].sum() / (x[inside, neuron].mean() - x[~match, neuron].mean())
        values.append(max(0.0, 1 - (1 - share) ** 2))
    return torch.tensor(values, dtype=torch.float64)


def _areas(codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Areas under the ROC curve of features for labels, by ranks (Mann and Whitney 1947)."""
    n, n_with = len(labels), labels.sum(0)
    return (rankdata(codes, axis=0).T @ labels - n_with * (n_with + 1) / 2) / (n_with * (n - n_with))


def firing_rates(view: Any) -> Tensor:
    return view.drawn.fired.double().mean(0)


def rate_of_first(view: Any) -> float:
    """Units without a direction are all closest to the first feature."""
    return float(firing_rates(view)[0])


def f1_of_always(view: Any) -> Tensor:
    return 2 * firing_rates(view) / (1 + firing_rates(view))


# Texts ----------------------------------------------------------------------------------------------------------------


def _token_table(view: Any, found_on: np.ndarray) -> Tensor:
    token, codes = view.sample.rows.token.numpy(), view.drawn.codes.double().numpy()
    score, n_tokens = ~view.sample.match.numpy(), token.max() + 1
    seen = np.bincount(token[found_on], minlength=n_tokens)
    values = []
    for column in codes.T:
        sums = np.bincount(token[found_on], column[found_on], minlength=n_tokens)
        table = np.where(seen > 0, sums / np.maximum(seen, 1), column[found_on].mean())
        values.append(np.corrcoef(table[token[score]], column[score])[0, 1])
    return torch.tensor(values)


def token_correlation(view: Any) -> Tensor:
    """What a table of current tokens knows of a feature that one of four tokens tells."""
    return _token_table(view, view.sample.match.numpy())


def beyond_tokens(view: Any) -> Tensor:
    return 1 - token_correlation(view)


def beyond_any_tokens(view: Any) -> Between:
    """At least 1 less what any function of the current token reaches, which is the table of the scored rows."""
    best = _token_table(view, ~view.sample.match.numpy())
    return Between(float((1 - best).mean()), 1.0)


# Pictures -------------------------------------------------------------------------------------------------------------


def of_concepts(value: float) -> Attained:
    """A value of the latents that stand for concepts; nothing is claimed of those for facets and for the rest."""

    def values(view: Any) -> Tensor:
        out = torch.full((len(view.toy.directions),), torch.nan, dtype=torch.float64)
        out[view.images.concepts] = value
        return out

    return values


def area_of_luck(facet: str, unseen: bool) -> Attained:
    """Of an area under the ROC curve with pictures dealt out: (n + m + 1) / (12 n m) of n with the concept, m without.

    That is its variance where no activations are equal, and more than it has where some are (Mann and Whitney 1947).
    """

    def value(view: Any) -> Luck:
        concept, shown, held = (view.sample.factors[name] for name in ("concept", "facet", "held_out_facet"))
        here = (shown == FACETS.index(facet)) & ~(view.sample.match.numpy() & (held == 0))
        variances = []
        for number in range(len(view.images.concepts)):
            own = here & (concept == number)
            n, m = int(own.sum()), int(here.sum() - own.sum())
            if n >= MIN_FACET_POSITIVES and bool(held[own].any()) == unseen:
                variances.append((n + m + 1) / (12 * n * m))
        return Luck(0.5, math.sqrt(np.mean(variances)))

    return value


def similarity_of_chance(view: Any) -> float:
    """Mean cosine of two different pictures: 1 for the same concept, 0 for two."""
    concept = view.sample.factors["concept"]
    same = (concept[:, None] == concept).sum() - len(concept)
    return float(same / (len(concept) ** 2 - len(concept)))


def _entropy(mass: np.ndarray, n_items: int) -> float:
    share = mass[mass > 0] / mass.sum()
    return float(-(share * np.log(share)).sum() / math.log(min(n_items, len(mass))))


def entropy_of_all(view: Any) -> float:
    concept = view.sample.factors["concept"]
    return _entropy(np.bincount(concept).astype(float), len(concept))


def entropy_of_chance(of_class_token: bool) -> Attained:
    """Mean entropy of as many pictures as a latent counts, their concepts dealt out anew a hundred times."""

    def values(view: Any) -> Tensor:
        units, concept = view.units("shuffled"), view.sample.factors["concept"]
        responses = units.class_responses if of_class_token else units.responses
        generator, found = np.random.default_rng(0), []
        for column in responses.columns(torch.arange(units.n_units)).double().numpy().T:
            ordered = np.sort(column)[::-1]
            counted = ordered[(ordered > 0) & (ordered >= ordered[TOP_ITEMS - 1])]
            dealt = [generator.choice(concept, len(counted), replace=False) for _ in range(100)]
            masses = [np.bincount(some, counted, minlength=concept.max() + 1) for some in dealt]
            few = len(counted) < 2
            found.append(1.0 if few else np.mean([_entropy(mass, len(counted)) for mass in masses]))
        return torch.tensor(found, dtype=torch.float64)

    return values


# Pairs, towers and twins ----------------------------------------------------------------------------------------------


def one_factor_in_all(view: Any) -> float:
    return 1 / len(view.toy.directions)


def share_of_images(view: Any) -> Tensor:
    """Half for features of both modalities, up to the sample; all or nothing for the others."""
    images, texts = (view.drawn.codes[keep].double().mean(0) for keep in (~view.is_text, view.is_text))
    share = images / (images + texts)
    if isinstance(view.toy, TwoModalities):
        own = ~view.toy.present.all(0)
        assert torch.equal(share[own], view.toy.present[0, own].double())
    return share


def _related(view: Any) -> np.ndarray:
    """Which features lead to which, by the definition of an edge."""
    codes = view.drawn.codes
    fired = view.drawn.fired.double()
    often = (fired.T @ fired >= MIN_TOGETHER).numpy()
    cosine = [[naive_masked_cosine(one, two) for two in codes.T] for one in codes.T]
    return (np.array(cosine) > SPLITTING_BAR) & often


def children(view: Any) -> Tensor:
    """Every feature leads to itself in the other order, and to those that fire with it."""
    return torch.from_numpy(_related(view).sum(1)).double()


def splits(view: Any) -> Tensor:
    return (children(view) >= 2).double()
