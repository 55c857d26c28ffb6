"""Every metric against a computation by its definition, one item at a time, to 1e-6.

`TWINS` says which test does that for which metrics. Those that no other module has are here.
"""

import dataclasses
import importlib
import itertools
import math

import numpy as np
import pytest
import torch
from attainable import clip_scores, language_scores
from ground_truth import N_DRAWS, Subjects, dictionaries, values, view
from scipy.stats import pearsonr
from test_explanations import matches, naive_explanation, neurons, noisy
from test_explanations import sample as text_sample
from test_products import random_activations, sparse
from test_resolution import D_IN, TOY
from test_resolution import naive as naive_resolution
from test_similarity import naive_score, sample_of
from test_similarity import neurons as picture_neurons
from test_splitting import naive_masked_cosine
from torch import Tensor

from sae.dictionaries.codes import Codes
from sae.dictionaries.linear import Identity, IdentityConfig
from sae.dictionaries.topk import TopK, TopKConfig
from sae.evaluation.definitions import FAMILIES, import_families
from sae.evaluation.explanations import explanation_scores
from sae.evaluation.meanings import related_labels
from sae.evaluation.metric import METRICS, Accumulator
from sae.evaluation.patterns import Patterns
from sae.evaluation.reconstruction import ExplainedVariance, Reconstruction
from sae.evaluation.recovery import Firing, Recovery, recovery_scores
from sae.evaluation.resolution import Mixtures, resolution_scores
from sae.evaluation.sample import Units
from sae.evaluation.similarity import TOP_ITEMS, Similarity, similarity_scores
from sae.evaluation.splicing import LANGUAGE_METRICS, Splice, next_token_losses
from sae.evaluation.splitting import Step, splitting_scores
from sae.evaluation.stability import match_dictionaries, stability_scores
from sae.evaluation.toy_subjects import HOOKPOINT
from sae.evaluation.toys import toy_sample, true_dictionary
from sae.tensors import Kind

AREAS = ("photo", "sketch", "word", "symbol")
TWINS: dict[str, tuple[str, ...]] = {
    "test_reconstruction.test_naive_twins": ("fvu", "cosine", "norm_ratio", "l0"),
    "test_naive_twins.test_explained_variance": ("explained_variance",),
    "test_reconstruction.test_firing_rates_count_what_is_not_zero": ("firing_rate", "dead_fraction", "dense_fraction"),
    "test_naive_twins.test_language_scores_with_padding": ("ce_recovered", "ce_recovered_mean", "ce_increase", "kl"),
    "test_naive_twins.test_scores_of_subjects": (
        *("zero_shot_accuracy", "zero_shot_accuracy_clean", "zero_shot_ce_recovered", "zero_shot_ce_recovered_mean"),
        "caption_cosine_change",
    ),
    "test_labels.test_every_metric_equals_its_naive_twin": (
        *("label_auc", "label_auc_equal", "label_phi_equal", "label_average_precision_equal", "labels_found_share"),
        *("label_coverage", "label_purity", "label_phi", "label_average_precision"),
        *("unit_auc", "monosemantic_share", "unit_coverage", "unit_purity", "unit_phi"),
    ),
    "test_facets.test_areas_equal_loops_over_concepts_and_units": (
        *(f"concept_auc_{area}{kind}" for area in AREAS for kind in ("", "_unseen")),
        *(f"concept_auc_{seen}{kind}" for seen in ("seen", "unseen") for kind in ("", "_equal")),
    ),
    "test_facets.test_breadth_and_reach_equal_loops_over_units": (
        *("facet_breadth", "facets_reached", "multimodal_share"),
    ),
    "test_joint_space.test_texts_agree_with_units_of_their_concept": ("text_agreement",),
    "test_joint_space.test_modality_share_of_a_toy_with_two_modalities": ("modality_share",),
    "test_dissection.test_cells_give_the_overlap_of_pixels": (
        *("dissection_iou", "dissection_iou_equal", "unit_iou", "dissected_share"),
    ),
    "test_naive_twins.test_explanations": (
        *("explanation_correlation", "token_correlation", "explanation_gain", "context_gain"),
    ),
    "test_explanations.test_passage_scores_agree_with_pairwise_counting": (
        *("detection_auc", "detection_auc_hard", "fuzzing_auc"),
    ),
    "test_naive_twins.test_similarity_of_patches_and_of_the_class_token": (
        f"{name}{token}"
        for name in ("monosemanticity", "monosemanticity_excess", "clarity", "label_entropy")
        for token in ("", "_class")
    ),
    "test_naive_twins.test_resolution": (
        *("polysemantic_share", "resolution_rate", "resolved_neurons", "concept_variance_explained"),
    ),
    "test_pairs.test_agreement_with_a_naive_computation": ("pair_selectivity", "pair_invariance"),
    "test_naive_twins.test_stability": ("stability", "stable_share", "shared_share", "max_cosine"),
    "test_universality.test_the_partner_is_chosen_on_one_half_and_scored_on_the_other": ("universality",),
    "test_naive_twins.test_splitting": ("nearest_parent", "children", "split_share", "inherited_share"),
    "test_naive_twins.test_recovery": (
        *("mean_max_cosine", "mcc", "recovered_fraction", "unique_latents"),
        *("firing_f1", "firing_precision", "firing_recall"),
    ),
}


def test_every_metric_has_a_naive_twin() -> None:
    import_families()
    known = {name for name, one in METRICS.items() if one.module.removeprefix("sae.evaluation.") in FAMILIES}
    named = [metric for metrics in TWINS.values() for metric in metrics]
    assert sorted(named) == sorted(known)
    for reference in TWINS:
        module, test = reference.split(".")
        assert callable(getattr(importlib.import_module(module), test)), reference


def test_explained_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(90, 7, generator=generator) + 3
    x_hat = x + 0.4 * torch.randn(90, 7, generator=generator)
    accumulator = Accumulator([ExplainedVariance])
    for part, part_hat in zip(x.split(20), x_hat.split(20), strict=True):
        accumulator.update(Reconstruction(part, Codes.from_dense(part), part_hat))
    mean = [sum(column) / 90 for column in x.T.tolist()]
    error = sum(
        (a - b) ** 2 for row, hat in zip(x.tolist(), x_hat.tolist(), strict=True) for a, b in zip(row, hat, strict=True)
    )
    spread = sum((a - m) ** 2 for row in x.tolist() for a, m in zip(row, mean, strict=True))
    assert accumulator.scores()[0].value == pytest.approx(1 - error / spread, abs=1e-6)


def test_scores_of_subjects() -> None:
    seen, found = view("superposition", "subjects"), values("superposition", "subjects", "random")
    assert isinstance(seen, Subjects)
    of_text = dictionaries("random", seen.true, seen.rows_of_text, N_DRAWS)
    of_pictures = dictionaries("random", seen.true, seen.shown.x, N_DRAWS)
    for draw, (text, pictures) in enumerate(zip(of_text, of_pictures, strict=True)):
        by_hand = language_scores(seen, text(seen.drawn.x)) | clip_scores(seen, pictures(seen.shown.x))
        assert {name: float(of_draws[draw]) for name, of_draws in found.items()} == pytest.approx(by_hand, abs=1e-6)


def test_language_scores_with_padding() -> None:
    """One prediction at a time; none is scored at BOS or special tokens, nor where the target is padding or special."""
    seen = view("superposition", "subjects")
    assert isinstance(seen, Subjects)
    tokens, kind = seen.texts.tokens[:12], seen.texts.kind[:12].clone()
    attended = torch.arange(16) < torch.arange(5, 17)[:, None]
    kind[:, 7] = int(Kind.SPECIAL)
    batch = dataclasses.replace(seen.texts, tokens=tokens, kind=kind, attended=attended)
    dictionary, mean = next(dictionaries("random", seen.true, seen.rows_of_text)), seen.rows_of_text.mean(0)
    accumulator = Accumulator(LANGUAGE_METRICS)
    for losses in next_token_losses(Splice(dictionary, (HOOKPOINT,), {HOOKPOINT: mean}), seen.language, [batch]):
        accumulator.update(losses)
    x, hat = seen.drawn.x, dictionary(seen.drawn.x)
    sums, n = dict.fromkeys(("clean", "spliced", "zero", "mean", "kl"), 0.0), 0
    for text, place in itertools.product(range(12), range(15)):
        usable = [bool(attended[text, p]) and int(kind[text, p]) == Kind.TOKEN for p in (place, place + 1)]
        if not all(usable):
            continue
        token, target = int(tokens[text, place]), int(tokens[text, place + 1])
        rows = {"clean": x[token], "spliced": hat[token], "zero": torch.zeros_like(mean), "mean": mean}
        odds = {name: (row.double() @ seen.language.unembed.double()).softmax(0).tolist() for name, row in rows.items()}
        n += 1
        for name, of_tokens in odds.items():
            sums[name] -= math.log(of_tokens[target])
        sums["kl"] += sum(p * math.log(p / q) for p, q in zip(odds["clean"], odds["spliced"], strict=True))
    found = {score.name: score for score in accumulator.scores()}
    assert found["kl"].n == n
    wanted = {
        "ce_recovered": (sums["zero"] - sums["spliced"]) / (sums["zero"] - sums["clean"]),
        "ce_recovered_mean": (sums["mean"] - sums["spliced"]) / (sums["mean"] - sums["clean"]),
        "ce_increase": (sums["spliced"] - sums["clean"]) / n,
        "kl": sums["kl"] / n,
    }
    assert {name: score.value for name, score in found.items()} == pytest.approx(wanted, abs=1e-6)


def test_explanations() -> None:
    data = text_sample()
    x = torch.from_numpy(np.stack([noisy(data.rows, seed) for seed in range(2)], 1))
    patterns, token, score = Patterns(data), data.rows.token.numpy(), ~data.match.numpy()
    found = {one.definition.name: one.values for one in explanation_scores(neurons(x), patterns)}
    current = [i for i in range(len(patterns)) if patterns[i].back == 0 and patterns[i].previous is None]
    assert current == list(range(patterns.n_current))
    for unit, column in enumerate(x.numpy().T):
        prediction = naive_explanation(column, patterns, data.rows)[1]
        table = {t: column[~score & (token == t)].mean(dtype=np.float64) for t in set(token[~score].tolist())}
        by_token = np.array([table[t] for t in token.tolist()])
        whole, tokens, alone = (
            pearsonr(predicted[score], column[score].astype(float))[0]
            for predicted in (prediction, by_token, _of_current_tokens(column, patterns, data.rows))
        )
        wanted = {
            "explanation_correlation": whole,
            "token_correlation": tokens,
            "explanation_gain": whole - tokens,
            "context_gain": whole - alone,
        }
        assert {name: float(found[name][unit]) for name in wanted} == pytest.approx(wanted, abs=1e-6)


def _of_current_tokens(column: np.ndarray, patterns: Patterns, rows) -> np.ndarray:
    """Greedy selection among current tokens, every candidate refitted by least squares at every step."""
    truth, chosen = column[patterns.match].astype(float), []
    candidates = np.stack([matches(patterns[i], rows) for i in range(patterns.n_current)], 1).astype(float)

    def fit(which: list[int]) -> tuple[float, np.ndarray]:
        design = np.c_[np.ones(len(candidates)), candidates[:, which]]
        weights = np.linalg.lstsq(design[patterns.match], truth, rcond=None)[0]
        return float(((truth - (design @ weights)[patterns.match]) ** 2).sum()), design @ weights

    error = fit([])[0]
    while len(chosen) < 5:
        errors = [fit([*chosen, i])[0] for i in range(patterns.n_current)]
        if error - min(errors) <= 2 * math.log(patterns.n_current) * error / len(truth):
            break
        chosen.append(int(np.argmin(errors)))
        error = min(errors)
    return fit(chosen)[1]


def test_similarity_of_patches_and_of_the_class_token() -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(90 * 3, 4, generator=generator).relu() * (torch.rand(270, 4, generator=generator) < 0.4)
    x[:, 3] = 0
    concept = torch.randint(6, (90,), generator=generator).numpy()
    sample = sample_of(x, 3, class_first=True, concept=concept)
    similarity = Similarity.of_vectors("random", torch.randn(90, 5, generator=generator) + 0.3)
    found = {
        one.definition.name: one.values for one in similarity_scores(picture_neurons(sample), similarity, "concept")
    }
    embedding, baseline = similarity.embedding.double().numpy(), similarity.baseline
    rows = x.reshape(90, 3, 4).double().numpy()
    for suffix, activations in (("", rows[:, 1:].max(1)), ("_class", rows[:, 0])):
        for unit, column in enumerate(activations.T):
            score = naive_score(column, embedding, baseline)
            clarity, entropy = _of_strongest(column, embedding, baseline, concept)
            wanted = {
                "monosemanticity": score,
                "monosemanticity_excess": (score - baseline) / (1 - baseline),
                "clarity": clarity,
                "label_entropy": entropy,
            }
            assert {name: float(found[f"{name}{suffix}"][unit]) for name in wanted} == pytest.approx(wanted, abs=1e-6)


def _of_strongest(
    column: np.ndarray, embedding: np.ndarray, baseline: float, concept: np.ndarray
) -> tuple[float, float]:
    """Clarity and entropy of the items with the largest activations."""
    limit = np.sort(column)[-TOP_ITEMS]
    top = [item for item in range(len(column)) if column[item] > 0 and column[item] >= limit]
    if len(top) < 2:
        return 0.0, 1.0
    cosine = np.mean([embedding[n] @ embedding[m] for n in top for m in top if n != m])
    mass = {value: sum(column[item] for item in top if concept[item] == value) for value in set(concept.tolist())}
    shares = [part / sum(mass.values()) for part in mass.values() if part > 0]
    entropy = -sum(share * math.log(share) for share in shares) / math.log(min(len(top), len(mass)))
    return (cosine - baseline) / (1 - baseline), entropy


def test_resolution() -> None:
    sample, dictionary = toy_sample(TOY, 1200, seed=3), true_dictionary(TOY)
    dictionary.W_enc_rows.data[:3] += dictionary.W_enc_rows.data[3:6]
    raw = Units("neurons", Identity(IdentityConfig(d_sae=D_IN), D_IN), sample)
    mixtures = Mixtures.of(raw, related_labels(sample.table))
    units = Units("mixed", dictionary, sample)
    found = {one.definition.name: one.values.tolist() for one in resolution_scores(units, mixtures)}
    resolved, explained = naive_resolution(units, mixtures)
    neurons = mixtures.neuron.tolist()
    every = [
        float(all(r for r, other in zip(resolved, neurons, strict=True) if other == neuron))
        for neuron in dict.fromkeys(neurons)
    ]
    answered = np.minimum(*(area.numpy() for area in units.auc)) > 0.8
    mixed = [_meanings(set(np.flatnonzero(row).tolist()), mixtures.related) > 1 for row in answered]
    assert found["polysemantic_share"] == mixed and 0 < sum(mixed) < len(mixed)
    assert found["resolution_rate"] == resolved
    assert found["resolved_neurons"] == every and 0 < sum(every) < len(every)
    assert found["concept_variance_explained"] == pytest.approx(explained, abs=1e-6)


def _meanings(labels: set[int], related: Tensor) -> int:
    """Count groups of labels that are related, directly or through others."""
    n = 0
    while labels:
        n, group = n + 1, {labels.pop()}
        while near := {b for a in group for b in labels if related[a, b]}:
            group, labels = group | near, labels - near
    return n


def test_stability() -> None:
    generator = torch.Generator().manual_seed(1)
    one, two = (TopK(TopKConfig(d_sae=6, k=2), 4).requires_grad_(False) for _ in range(2))
    for name in ("W_dec", "W_enc_rows"):
        getattr(one, name).copy_(torch.randn(6, 4, generator=generator))
        getattr(two, name).copy_(getattr(one, name).roll(2, 0) + 0.5 * torch.randn(6, 4, generator=generator))
    two.W_dec[2] *= -1
    alive = torch.arange(6) != 5, torch.arange(6) != 0
    found = {one.definition.name: one.values.tolist() for one in stability_scores(match_dictionaries(one, two, alive))}
    ours, theirs = range(5), range(1, 6)

    def matched(name: str) -> tuple[np.ndarray, tuple[int, ...]]:
        rows = [getattr(dictionary, name).double() for dictionary in (one, two)]
        cosine = torch.cosine_similarity(rows[0][:, None], rows[1][None], dim=2).numpy()
        return cosine, max(
            itertools.permutations(theirs), key=lambda p: sum(cosine[i, j] for i, j in zip(ours, p, strict=True))
        )

    (cosine, partner), (encoded, by_encoder) = matched("W_dec"), matched("W_enc_rows")
    own = [float(cosine[i, partner[i]]) for i in ours]
    shared = [float(partner[i] == by_encoder[i] and own[i] > 0.7 and encoded[i, by_encoder[i]] > 0.7) for i in ours]
    assert found["stability"] == pytest.approx([*own, 0], abs=1e-6) and min(own) < 0
    assert found["stable_share"] == [float(c > 0.7) for c in (*own, 0)]
    assert found["shared_share"] == [*shared, 0] and 0 < sum(shared) < sum(found["stable_share"])
    assert found["max_cosine"] == pytest.approx([*(float(cosine[i, 1:].max()) for i in ours), 0], abs=1e-6)


def test_splitting() -> None:
    one, two = random_activations(150, 8, 0, 0.25), random_activations(150, 9, 1, 0.25)
    one[:, 7], two[:, 8] = 0, 0
    step = Step.between(sparse(one), sparse(two), bar=0.4)
    found = {one.definition.name: one.values.nan_to_num(-1).tolist() for one in splitting_scores(step)}
    cosine = [
        [
            naive_masked_cosine(one[:, i], two[:, j]) * (int(((one[:, i] > 0) & (two[:, j] > 0)).sum()) >= 10)
            for j in range(9)
        ]
        for i in range(8)
    ]
    edges = [[value > 0.4 for value in row] for row in cosine]
    assert found["nearest_parent"] == pytest.approx([*(max(row[j] for row in cosine) for j in range(8)), -1], abs=1e-6)
    n_children = [sum(row) for row in edges]
    assert found["children"] == n_children and 0 < sum(n_children) < 72
    assert found["split_share"] == [*(float(n >= 2) for n in n_children[:7]), -1]
    assert found["inherited_share"] == [*(float(any(row[j] for row in edges)) for j in range(8)), -1]


def test_recovery() -> None:
    generator = torch.Generator().manual_seed(5)
    truth = torch.randn(4, 5, generator=generator)
    learned = torch.cat(
        [truth[:3] + 0.4 * torch.randn(3, 5, generator=generator), torch.randn(3, 5, generator=generator)]
    )
    fired = torch.rand(60, 4, generator=generator) < 0.3
    codes = torch.rand(60, 6, generator=generator) * (torch.rand(60, 6, generator=generator) < 0.4)
    codes[:, 5] = 0
    recovery = Recovery.of(learned, truth)
    firing = Firing.of(sparse(codes), fired)
    found = {one.definition.name: one.values.tolist() for one in recovery_scores(recovery, firing)}
    cosine = [[float(torch.cosine_similarity(g.double(), d.double(), dim=0)) for d in learned] for g in truth]
    matched = max(itertools.permutations(range(6), 4), key=lambda p: sum(cosine[i][j] for i, j in enumerate(p)))
    closest = [max(range(4), key=lambda i: cosine[i][j]) for j in range(6)]
    unique = [
        float(j == max((k for k in range(6) if closest[k] == closest[j]), key=lambda k: cosine[closest[j]][k]))
        for j in range(6)
    ]
    hits = [[int(((codes[:, j] > 0) & fired[:, i]).sum()) for j in range(6)] for i in range(4)]
    n_codes, n_fired = [int((codes[:, j] > 0).sum()) for j in range(6)], fired.sum(0).tolist()
    wanted = {
        "mean_max_cosine": [max(row) for row in cosine],
        "mcc": [cosine[i][j] for i, j in enumerate(matched)],
        "recovered_fraction": [float(max(row) > 0.9) for row in cosine],
        "unique_latents": unique,
        "firing_f1": [2 * hits[i][j] / (n_codes[j] + n_fired[i]) for i, j in enumerate(matched)],
        "firing_precision": [hits[closest[j]][j] / max(n_codes[j], 1) for j in range(6)],
        "firing_recall": [hits[closest[j]][j] / n_fired[closest[j]] for j in range(6)],
    }
    assert found.keys() == wanted.keys()
    for name, each in wanted.items():
        assert found[name] == pytest.approx(each, abs=1e-6), name
