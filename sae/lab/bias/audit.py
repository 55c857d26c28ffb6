"""Audit judgements for bias: which go with appearance, what appearance causes, and which latents carry it.

Two questions, of every judgement and every sensitive value. Are items with the value judged so more often, as the items
come? And does the value alone, in pictures that differ in nothing else, move the judgement? A model can inherit the
first from its pictures without the second. Definitions of fairness stand side by side, as they cannot all hold, and one
decision is told in words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from sae.errors import ConfigError
from sae.lab.bias.decision import Account, account
from sae.lab.bias.evidence import evidence
from sae.lab.bias.fairness import Gap, gaps
from sae.lab.bias.labels import with_labels
from sae.lab.bias.leaning import LEVEL, observed
from sae.lab.bias.pictures import draw_audit, draw_decision
from sae.lab.bias.population import Population, pairs, population
from sae.lab.bias.removing import Knowing, left
from sae.lab.bias.table import Audit, latent_titles, table
from sae.lab.bias.wording import Wording, read_phrases
from sae.lab.finding import Finding, Picture
from sae.lab.workbench import Workbench, WorkbenchConfig

N_SHUFFLED = 100
UNTOLD = ": nothing to choose units on"


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of an audit."""

    sensitive: tuple[str, ...] = ()
    """Families of labels that should not matter to a judgement, such as glasses hair_colour."""
    labels: Path | None = None
    """Labels of pictures that lie at paths, such as those of a folder: a .csv with a column path and one per family, or
    JSON, {"cats/1.jpg": {"fur": "red"}}."""
    prompts: Path | None = None
    """JSON of phrases for sensitive values, {"age": {"old": ["old man"], "young": ["young man"]}}; those of families
    without labels are audited through words alone."""
    among: str | None = None
    """Judge the items with this label, such as family=role, between the classes that any of them is; if null, all."""
    n_vectors: int = 131_072
    """Work on about this many vectors, the first ones; latents are chosen on one half and scored on the other."""
    per_class: int = 24
    """Show so many items of each class again with other looks, where the inputs can."""
    n_removed: int = 4
    """Latents to take out, those that know a value best, or speak most for a judgement."""
    example: int | None = None
    """Tell the decision about this item; if null, the least certain one of the strongest association."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sensitive and self.prompts is None:
            raise ConfigError("sensitive: name at least one family of labels, or give phrases by prompts.")
        if min(self.per_class, self.n_removed) < 1:
            raise ConfigError(f"per_class, n_removed: must be at least 1, got {self.per_class} and {self.n_removed}.")


def run(config: Config) -> Finding:
    """Audit the zero-shot judgements of the inputs' classes."""
    bench = Workbench.open(config)
    if config.labels is not None:
        bench = with_labels(bench, config.labels)
    judged = population(bench, config.among, config.sensitive)
    found = pairs(bench, judged, config.sensitive, config.per_class)
    return finding(bench, Audit.of(judged, found, config.seed), config)


def finding(bench: Workbench, audit: Audit, config: Config) -> Finding:
    """Say what an audit found."""
    judged, strongest = audit.judged, audit.strongest()
    knowing = Knowing(bench.dictionary, judged, config.seed)
    words = Wording.of(bench, judged, None if config.prompts is None else read_phrases(config.prompts))
    figures, definitions = _counted(audit, config.seed), {}
    for pair in strongest:
        definitions[pair] = _definitions(judged, pair, config.seed)
        for name, gap in definitions[pair].items():
            figures[f"{audit.names[pair[0]]}, {judged.values[pair[1]]}: {name}"] = gap.value
    figures |= _known(audit, knowing, config)
    if words.values:
        figures |= {"words": float(len(words.values)), "words unlike for one judgement": float(words.stand_out.sum())}
    titles = latent_titles(bench.latents)
    said, pictures = evidence(audit, knowing, words, titles, config.n_removed, config.seed)
    item, told = _decision(bench, audit, config)
    if judged.values:
        pictures = {"lab-audit": _picture(audit, definitions)} | pictures
    pictures["lab-decision"] = _decision_picture(bench, judged, item, told, titles)
    figures |= said.figures
    untold = [name.removesuffix(UNTOLD) for name in figures if name.endswith(UNTOLD)]
    sentences = [_verdict(audit, figures, strongest)]
    if untold:
        listed = ", ".join(untold)
        sentences.append(f"Not taken out, since the half to choose on lacks items with or without: {listed}.")
    verdict = " ".join([*sentences, *said.told, f"One decision: {told.told(titles)}"])
    rows = table(bench.dictionary, audit, knowing, words)
    return Finding("audit", bench.about, figures, rows, verdict, pictures)


def _counted(audit: Audit, seed: int) -> dict[str, float]:
    judged, (real, own) = audit.judged, audit.caused
    figures: dict[str, float] = {
        "items judged": float(len(judged.truth)),
        "pairs": float(audit.goes_with.p.numel()),
        "found as the items come": float(audit.goes_with.found.sum()),
        "found with looks dealt out": _shuffled(judged, seed),
        "moved by looks alone": float(real.sum()),
        "moved unlike other judgements": float(own.sum()),
        "accuracy": float((judged.judged == judged.truth).double().mean()),
    }
    return figures | _power(audit) if audit.pairs else figures


def _known(audit: Audit, knowing: Knowing, config: Config) -> dict[str, float]:
    """Return how well units know the values of the strongest pairs, and what is left of these without them."""
    judged, figures = audit.judged, {}
    for value in dict.fromkeys(value for _, value in audit.strongest()):
        family = judged.values[value].partition("=")[0]
        if not knowing.can_choose(value):
            figures[f"{judged.values[value]}{UNTOLD}"] = 1.0
            continue
        for kind in knowing.units:
            matched, scored = knowing.auc(kind, value)
            figures[f"{judged.values[value]}: auc of the best of {kind}"] = float(
                scored[matched.nan_to_num(0).argmax()]
            )
        if audit.effects(value) is not None:
            n = min(config.n_removed, knowing.dictionary.d_sae)
            for name, after in left(knowing, audit.pairs[family], value, n, config.seed).items():
                figures |= {f"{judged.values[value]}, without {name}: {key}": one for key, one in after.items()}
    return figures


def _shuffled(judged: Population, seed: int) -> float:
    """Return how many pairs are found on average with looks dealt out among the items that show them."""
    generator, total = torch.Generator().manual_seed(seed), 0
    for _ in range(N_SHUFFLED):
        order = torch.randperm(len(judged.truth), generator=generator)
        dealt = observed(judged.judged[order], judged.has, judged.shown, len(judged.judge.names))
        total += int(dealt.found.sum())
    return total / N_SHUFFLED


def _power(audit: Audit) -> dict[str, float]:
    """Return, by family, what an effect would have to be to be told from chance and from those on other judgements."""
    from scipy.stats import t as student

    n_tests, n = sum(one.effects.mean.numel() for one in audit.pairs.values()), len(audit.names)
    bar, found = float(student.isf(LEVEL / (2 * n_tests), n - 2)) * (1 + 1 / n) ** 0.5, {}
    for name, one in audit.pairs.items():
        error, spread = one.effects.error.median(), one.effects.mean.std(1).median()
        found[f"{name}: told from chance, nats"] = float(error) * audit.thresholds[name]
        found[f"{name}: told from other judgements', nats"] = float(spread) * bar
        found[f"{name}: largest, nats"] = float(one.effects.mean.abs().max())
    return found


def _definitions(judged: Population, pair: tuple[int, int], seed: int) -> dict[str, Gap]:
    judgement, value = pair
    keep = judged.shown[:, value]
    made, truth = judged.judged[keep] == judgement, judged.truth[keep] == judgement
    return gaps(truth, made, judged.probability[keep, judgement], judged.has[keep, value], seed)


def _decision(bench: Workbench, audit: Audit, config: Config) -> tuple[int, Account]:
    judged = audit.judged
    if config.example is not None:
        places = (judged.sample.example == config.example).nonzero()[:, 0]
        if not len(places):
            raise ConfigError(f"example: {config.example} is not among the {len(judged.truth)} items that are judged.")
        item = int(places[0])
    else:
        wanted = scored = ~judged.sample.match
        if strongest := audit.strongest(1):
            judgement, value = strongest[0]
            wanted = scored & judged.has[:, value] & (judged.judged == judgement)
        items = (wanted if wanted.any() else scored).nonzero()[:, 0]
        top = judged.probability[items].topk(2, dim=1).values
        item = int(items[(top[:, 0] - top[:, 1]).argmin()])
    return item, account(judged.judge, bench.dictionary, judged.x[item])


def _verdict(audit: Audit, figures: Mapping[str, float], strongest: list[tuple[int, int]]) -> str:
    goes_with, values = audit.goes_with, audit.judged.values
    if not values:
        n = int(figures["words unlike for one judgement"])
        return (
            "No label says which items have which look, so these are known as words alone. The words of "
            f"{n or 'no'} judgements are nearer to a value's than the others' are, or farther, beyond chance."
        )
    n = int(figures["found as the items come"])
    listed = ", ".join(
        f"{audit.names[one]} with {values[value]} ({goes_with.rate_with[one, value]:.1%} against "
        f"{goes_with.rate_without[one, value]:.1%})"
        for one, value in strongest
    )
    text = (
        f"Of {figures['pairs']:.0f} pairs of judgement and value {n or 'none'} go together beyond chance"
        + (f": {listed}" if n else "")
        + f" (looks dealt out: {figures['found with looks dealt out']:.2f})."
    )
    if not audit.pairs:
        return text + " These inputs cannot show an item again with other looks, so nothing is known of causes."
    largest = max(float(one.effects.mean.abs().max()) for one in audit.pairs.values())
    return text + (
        f" Looks alone, all else in the picture alike, move {figures['moved by looks alone']:.0f} of them beyond "
        f"chance, by at most {largest:.2f} nats, and "
        f"{figures['moved unlike other judgements']:.0f} unlike they move other judgements."
    )


def _picture(audit: Audit, definitions: Mapping[tuple[int, int], Mapping[str, Gap]]) -> Picture:
    values, goes_with = audit.judged.values, audit.goes_with
    change = torch.full(goes_with.p.shape, torch.nan)
    for value in range(len(values)):
        found = audit.effects(value)
        if found is not None:
            change[:, value] = found[0].mean[found[1]]
    gap, own = goes_with.rate_with - goes_with.rate_without, audit.caused[1]
    rows = [
        {"judgement": one, "value": value, "gap": float(gap[i, j]), "effect": float(change[i, j])}
        for j, value in enumerate(values)
        for i, one in enumerate(audit.names)
    ]
    titled = {f"{audit.names[i]}, {values[j]}": gaps for (i, j), gaps in definitions.items()}
    return Picture(
        lambda: draw_audit(audit.names, values, (gap, goes_with.found), (change, own), titled),
        rows,
        "Left: how much more often items with a value are judged so, as they come; framed: beyond chance in any pair. "
        "Middle: what the value alone does to the log-odds, all else in the picture alike; framed: beyond chance and "
        "unlike its effects on other judgements. Right: definitions of fairness, the group with the value less the "
        "others, 95 % intervals.",
    )


def _decision_picture(
    bench: Workbench, judged: Population, item: int, told: Account, titles: Mapping[int, str]
) -> Picture:
    example = int(judged.sample.example[item])
    image = bench.inputs.batch(example, example + 1).images
    assert image is not None
    rows = [
        {
            "part": {-1: "constant", -2: "unexplained"}.get(one, f"latent {one} {titles.get(one, '')}".strip()),
            "nats": part,
        }
        for one, part in told.parts.items()
    ]
    return Picture(
        lambda: draw_decision(image[0].permute(1, 2, 0).numpy(), told, rows),
        rows,
        f"What each latent adds to the lead of {told.judged} over {told.rival} in item {example}; with the constant "
        "and what no latent explains the parts sum to the lead exactly. Orange: those whose removal changes the "
        "judgement.",
    )
