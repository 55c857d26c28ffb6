"""What an audit finds in the built-in CLIP model and in its clean seed, and how many latents other networks share.

Part of scripts/bench_lab.py: python -m scripts.bench_lab --part audit

Needs the stores of configs/harvest-concepts-clip-audit.yaml for both seeds, the scoring store of the second seed on the
first one's world (configs/harvest-concepts-clip-score.yaml --subject builtin:concepts-clip-rn@1 --out
runs/concepts-clip-1/store-score-shared), and dictionaries of both text towers
(configs/train-concepts-clip-embedding.yaml --hookpoint text.embedding).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sae.inputs.concepts.sampling import PLANTED
from sae.lab.bias import audit
from sae.lab.bias.evidence import FIGURES
from sae.lab.bias.latent_pictures import WAYS
from sae.lab.bias.population import pairs, population
from sae.lab.bias.speaking import THERE
from sae.lab.bias.table import Audit
from sae.lab.finding import Finding
from sae.lab.universality import universality
from sae.lab.workbench import Workbench
from scripts.bench import Figure

DICTIONARY = "builtin:concepts-clip-rn/visual.embedding"
STORE, AUDITED = Path("runs/concepts-clip/store-score"), Path("runs/concepts-clip/store-audit")
OTHER_SEED, SECOND = Path("runs/concepts-clip-1"), "builtin:concepts-clip-rn@1"
CLEAN = f"{SECOND}/visual.embedding"
SENSITIVE: dict[str, Any] = {"among": "family=role", "sensitive": ("glasses", "hair_colour", "hair", "skin")}
NETWORKS = {
    CLEAN: OTHER_SEED / "store-score-shared",
    f"{SECOND}/visual.layer4.0.hook_post": OTHER_SEED / "store-score-shared",
    "runs/concepts-clip/dictionary-text-1024/dictionary": STORE,
    f"{OTHER_SEED}/dictionary-text-1024/dictionary": OTHER_SEED / "store-score-shared",
    "builtin:concepts-clip-rn/visual.layer4.0.hook_post": STORE,
}
LANGUAGE = "builtin:stdlib-1l/blocks.0.mlp.hook_post"
KINDS = ("latents", "neurons", "random directions")
KNOWN = tuple(f"know a look{where}{dealt}" for where in ("", THERE) for dealt in ("", ", looks dealt out"))
PROMPTED = {"auc of the best": "auc", "auc of the best by images": "auc", "rank correlation with images": "correlation",
            "agree beyond chance": "pairs"}  # fmt: skip


def figures(out: Path) -> list[Figure]:
    """Run both methods and return their headline figures; findings are saved below a folder."""
    return _audits(out) + _leans() + _networks(out)


def _audits(out: Path) -> list[Figure]:
    audits = {
        "planted": (DICTIONARY, AUDITED),
        "clean": (CLEAN, OTHER_SEED / "store-audit"),
        "independent looks": (DICTIONARY, STORE),
    }
    found = []
    for name, (dictionary, store) in audits.items():
        one = audit.run(audit.Config(dictionary=dictionary, store=store, **SENSITIVE))
        one.save(out / f"audit {name}")
        pairs = {(row["judgement"], row["value"]) for row in one.rows if row["found"]}
        planted = {
            (role, f"{factor}={'yes' if value is True else value}") for role, (factor, value, _) in PLANTED.items()
        }
        place = f"lab/audit/{name}"
        if name == "planted":
            found.append(Figure(f"{place}/planted pairs found", len(pairs & planted), "pairs", "higher", len(planted)))
        others = pairs - planted if name == "planted" else pairs
        found.append(Figure(f"{place}/other pairs found", len(others), "pairs", "lower", 0))
        for figure in ("found with looks dealt out", "moved by looks alone", "moved unlike other judgements"):
            found.append(Figure(f"{place}/{figure}", one.figures[figure], "pairs", "neither"))
        found += _latents(one, place) + _removed(one, place)
    return found


def _latents(one: Finding, place: str) -> list[Figure]:
    """Return how many units that speak for judgements know a look, and what prompts choose, each beside controls."""
    spoken = [
        Figure(
            f"{place}/{kind} that speak most: {what}", one.figures[f"{kind} that speak most: {what}"], unit, "neither"
        )
        for kind in KINDS
        for what, unit in (("in all", "units"), ("add, nats", "nats"), *((what, "units") for what in KNOWN))
    ]
    prompted = [
        Figure(f"{place}/{group} by prompts, {kind}: {what}", one.figures[f"{group} by prompts, {kind}: {what}"], unit,
               "neither")
        for group in ("values", "judgements themselves")
        for kind in KINDS
        for what, unit in PROMPTED.items()
    ]  # fmt: skip
    return spoken + prompted


def _removed(one: Finding, place: str) -> list[Figure]:
    """Return what definitions of fairness become for the pairs that were found, by what is taken out."""
    pairs = {f"{row['judgement']}, {row['value']}" for row in one.rows if row["found"]}
    return [
        Figure(
            f"{place}/{pair}, without {way}: {what}", one.figures[f"{pair}, without {way}: {what}"], "share", "neither"
        )
        for pair in sorted(pairs)
        for way in WAYS
        for what in (*FIGURES, "accuracy")
        if f"{pair}, without {way}: {what}" in one.figures
    ]


def _leans() -> list[Figure]:
    """Write ever more of what a planted value does to pictures into the text of its role, until the audit says so."""
    config = audit.Config(dictionary=DICTIONARY, store=AUDITED, **SENSITIVE)
    bench = Workbench.open(config)
    judged = population(bench, config.among, config.sensitive)
    shown, found = pairs(bench, judged, config.sensitive, config.per_class), []
    for role, (family, value, _) in PLANTED.items():
        wanted = f"{family}={'yes' if value is True else value}"
        pair, place = shown[family], judged.judge.names.index(role)
        number = pair.effects.values.index(wanted.partition("=")[2])
        unit = torch.nn.functional.normalize(pair.x, dim=-1).mean(0)
        step = unit[number] - (unit.sum(0) - unit[number]) / (len(unit) - 1)
        for tenths in range(1, 31):
            classifier, n = judged.judge.classifier.clone(), len(judged.judge.names)
            written = tenths / 10 / float(judged.judge.logit_scale.exp()) * n / (n - 1)
            classifier[place] += written * step / step.square().sum()
            judge = replace(judged.judge, classifier=classifier)
            seen = {name: replace(one, effects=one.on(one.match | True, judge)) for name, one in shown.items()}
            one = Audit.of(replace(judged, judge=judge), seen, config.seed)
            if one.caused[1][place, judged.values.index(wanted)]:
                effect = float(seen[family].effects.mean[number, place])
                found.append(Figure(f"lab/audit/lean found from/{role}, {wanted}", effect, "nats", "lower"))
                break
    return found


def _networks(out: Path) -> list[Figure]:
    clip = _counterparts(out, "clip", DICTIONARY, STORE, NETWORKS)
    second = {"runs/stdlib-1l/split-4096-subject1/dictionary": Path("runs/stdlib-1l/store-score-seed1")}
    text = _counterparts(out, "stdlib-1l", LANGUAGE, Path("runs/stdlib-1l/store-score"), second)
    return [
        Figure(
            f"lab/universality/{name}/{kind} in all", one.figures[f"{kind}: in {n} or more of {n}"], "share", "neither"
        )
        for name, one, n in (("clip", clip, 4), ("stdlib-1l", text, 1))
        for kind in KINDS
    ]  # fmt: skip


def _counterparts(out: Path, name: str, dictionary: str, store: Path, others: dict[str, Path]) -> Finding:
    config = universality.Config(
        dictionary=dictionary, store=store, others=tuple(others), other_stores=tuple(others.values())
    )
    one = universality.run(config)
    one.save(out / f"universality {name}")
    return one
