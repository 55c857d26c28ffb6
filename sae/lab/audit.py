"""Audit judgements for bias: which go with appearance, what appearance causes, and which latents carry it.

Two questions, of every judgement and every sensitive value. Are items with the value judged so more often, as the items
come? And does the value alone, in pictures that differ in nothing else, move the judgement? A model can inherit the
first from its pictures without the second. Definitions of fairness stand side by side, as they cannot all hold, and one
decision is told in words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae.errors import ConfigError, InputsError
from sae.features.live.words import Words
from sae.lab.associations import Effects, Observed, observed, outlying, stands_out
from sae.lab.audit_pictures import draw_audit, draw_decision
from sae.lab.decision import Account, account, scaled
from sae.lab.fairness import Gap, gaps
from sae.lab.finding import Finding, Picture
from sae.lab.population import Pairs, Population, pairs, population
from sae.lab.removing_values import Knowing, left
from sae.lab.workbench import Workbench, WorkbenchConfig

N_SHUFFLED = 100
N_TOLD = 4
"""Pairs of judgement and value that definitions and removals are worked out for, at most."""


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of an audit."""

    sensitive: tuple[str, ...]
    """Families of labels that should not matter to a judgement, such as glasses hair_colour."""
    among: str | None = None
    """Judge the items with this label, such as family=role, between the classes that any of them is; if null, all."""
    n_vectors: int = 131_072
    """Work on about this many vectors, the first ones; latents are chosen on one half and scored on the other."""
    per_class: int = 24
    """Show so many items of each class again with other looks, where the inputs can."""
    n_removed: int = 4
    """Latents to take out, those that know a value best."""
    example: int | None = None
    """Tell the decision about this item; if null, the least certain one of the strongest association."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sensitive:
            raise ConfigError("sensitive: name at least one family of labels.")
        if min(self.per_class, self.n_removed) < 1:
            raise ConfigError(
                f"per_class, n_removed: must be at least 1, got {self.per_class} and {self.n_removed}."
            )


@dataclass(frozen=True)
class Audit:
    """Every judgement beside every sensitive value.

    Attributes:
        judged: who.
        goes_with: as the items come.
        pairs: pictures that differ in appearance alone, by family.
        thresholds: of each family, what |mean| / error of its effects reaches by chance in one audit of twenty.
    """

    judged: Population
    goes_with: Observed
    pairs: Mapping[str, Pairs]
    thresholds: Mapping[str, float]

    @classmethod
    def of(cls, bench: Workbench, config: Config) -> "Audit":
        judged = population(bench, config.among, config.sensitive)
        goes_with = observed(judged.judged, judged.has, judged.shown, len(judged.judge.names))
        found = pairs(bench, judged, config.sensitive, config.per_class)
        level = 1 - 0.05 / max(len(found), 1)
        chance = {name: float(one.effects.largest_by_chance(config.seed).quantile(level)) for name, one in found.items()}
        return cls(judged, goes_with, found, chance)

    @property
    def names(self) -> tuple[str, ...]:
        return self.judged.judge.names

    def effects(self, value: int) -> tuple[Effects, int] | None:
        """Return the effects of a value's family, and the value's place there; None without such pictures."""
        family, _, name = self.judged.values[value].partition("=")
        pair = self.pairs.get(family)
        return None if pair is None or name not in pair.effects.values else (pair.effects, pair.effects.values.index(name))

    @property
    def caused(self) -> tuple[Bool[Tensor, "judgements values"], Bool[Tensor, "judgements values"]]:
        """Return which effects are no chance, and which of these also differ from those on other judgements."""
        real = torch.zeros(len(self.names), len(self.judged.values), dtype=torch.bool)
        own = real.clone()
        n_tests = sum(one.effects.mean.numel() for one in self.pairs.values())
        for value, name in enumerate(self.judged.values):
            found = self.effects(value)
            if found is not None:
                effects, place = found
                real[:, value] = effects.scores[place].abs() > self.thresholds[name.partition("=")[0]]
                own[:, value] = stands_out(effects.outlying, n_tests)[place]
        return real, real & own

    def strongest(self, n: int = N_TOLD) -> list[tuple[int, int]]:
        """Return (judgement, value), those found first, by the difference of rates."""
        found, gap = self.goes_with.found, self.goes_with.rate_with - self.goes_with.rate_without
        order = (gap + 2.0 * found).flatten().argsort(descending=True)[:n].tolist()
        chosen = [divmod(place, len(self.judged.values)) for place in order]
        return [pair for pair in chosen if found[pair]] or chosen[:1]


def run(config: Config) -> Finding:
    """Audit the zero-shot judgements of the inputs' classes."""
    bench = Workbench.open(config)
    return finding(bench, Audit.of(bench, config), config)


def finding(bench: Workbench, audit: Audit, config: Config) -> Finding:
    """Say what an audit found."""
    judged, strongest = audit.judged, audit.strongest()
    knowing = Knowing(bench.dictionary, judged, config.seed)
    real, own = audit.caused
    figures: dict[str, float] = {
        "items judged": float(len(judged.truth)),
        "pairs": float(audit.goes_with.p.numel()),
        "found as the items come": float(audit.goes_with.found.sum()),
        "found with looks dealt out": _shuffled(judged, config.seed),
        "moved by looks alone": float(real.sum()),
        "moved unlike other judgements": float(own.sum()),
        "accuracy": float((judged.judged == judged.truth).double().mean()),
    }
    if audit.pairs:
        figures |= _power(audit)
    definitions = {pair: _definitions(judged, pair, config.seed) for pair in strongest}
    for (judgement, value), of_pair in definitions.items():
        for name, gap in of_pair.items():
            figures[f"{audit.names[judgement]}, {judged.values[value]}: {name}"] = gap.value
    for value in dict.fromkeys(value for _, value in strongest):
        family = judged.values[value].partition("=")[0]
        if audit.effects(value) is not None:
            n = min(config.n_removed, bench.dictionary.d_sae)
            for name, after in left(knowing, audit.pairs[family], value, n, config.seed).items():
                figures |= {f"{judged.values[value]}, without {name}: {key}": one for key, one in after.items()}
    text = _text(bench, judged)
    item, told = _decision(bench, audit, config)
    rows = _rows(bench, audit, knowing, text)
    titles = latent_titles(knowing)
    pictures = {
        "lab-audit": _picture(audit, definitions),
        "lab-decision": _decision_picture(bench, judged, item, told, titles),
    }
    verdict = _verdict(audit, figures, strongest) + " One decision: " + told.told(titles)
    return Finding("audit", bench.about, figures, rows, verdict, pictures)


def _shuffled(judged: Population, seed: int) -> float:
    """Return how many pairs are found on average with looks dealt out among the items that show them."""
    generator, total = torch.Generator().manual_seed(seed), 0
    for _ in range(N_SHUFFLED):
        order = torch.randperm(len(judged.truth), generator=generator)
        dealt = observed(judged.judged[order], judged.has, judged.shown, len(judged.judge.names))
        total += int(dealt.found.sum())
    return total / N_SHUFFLED


def _power(audit: Audit) -> dict[str, float]:
    """Return what an effect would have to be, in nats, to be told from chance and from those on other judgements."""
    from scipy.stats import t as student

    n_tests, n = sum(one.effects.mean.numel() for one in audit.pairs.values()), len(audit.names)
    bar = float(student.isf(0.025 / n_tests, n - 2))
    chance, other, largest = [], [], []
    for name, one in audit.pairs.items():
        chance.append(float((one.effects.error * audit.thresholds[name]).median()))
        other.append(float((one.effects.mean.std(1) * (1 + 1 / n) ** 0.5).median()) * bar)
        largest.append(float(one.effects.mean.abs().max()))
    return {
        "effect told from chance, nats": max(chance),
        "effect told from other judgements', nats": max(other),
        "largest effect, nats": max(largest),
    }


def _definitions(judged: Population, pair: tuple[int, int], seed: int) -> dict[str, Gap]:
    judgement, value = pair
    keep = judged.shown[:, value]
    made, truth = judged.judged[keep] == judgement, judged.truth[keep] == judgement
    return gaps(truth, made, judged.probability[keep, judgement], judged.has[keep, value], seed)


def _text(bench: Workbench, judged: Population) -> dict[int, tuple[Tensor, Tensor]]:
    """Return, per value whose words the subject knows, the cosine of judgements and of latents with them.

    Less the mean word; a value's words are its name and its family's first word ("gray hair"), of a yes or no the
    family's.
    """
    words, found = Words(bench.subject, bench.inputs), {}
    names = words.towards(judged.judge.names) if all(name in words.names for name in judged.judge.names) else None
    places = torch.nn.functional.normalize(bench.dictionary.W_dec.detach().float().cpu(), dim=1)
    for value, label in enumerate(judged.values):
        family, _, name = label.partition("=")
        phrase = family.replace("_", " ") if name in ("yes", "no") else f"{name} {family.partition('_')[0]}"
        try:
            towards = words.towards([phrase])[0]
        except InputsError:
            continue
        if name != "no" and names is not None:
            found[value] = (names @ towards, places @ towards)
    return found


def latent_titles(knowing: Knowing) -> dict[int, str]:
    """Return what each latent is called: the class or the value that it separates best on the half to match on."""
    judged = knowing.judged
    responses = knowing.units["latents"].responses.on(judged.sample.match)
    one = torch.nn.functional.one_hot(judged.truth, len(judged.judge.names)).bool()
    columns = torch.cat([one, judged.has], 1)[judged.sample.match]
    area = responses.auc(columns).nan_to_num(0.5)
    names = [*judged.judge.names, *judged.values]
    best = area.max(1)
    return {
        latent: names[int(label)]
        for latent, (area_of, label) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True))
        if area_of > 0.6
    }


def _decision(bench: Workbench, audit: Audit, config: Config) -> tuple[int, Account]:
    judged = audit.judged
    if config.example is not None:
        places = (judged.sample.example == config.example).nonzero()[:, 0]
        if not len(places):
            raise ConfigError(f"example: {config.example} is not among the {len(judged.truth)} items that are judged.")
        item = int(places[0])
    else:
        judgement, value = audit.strongest(1)[0]
        wanted = ~judged.sample.match & judged.has[:, value] & (judged.judged == judgement)
        items = (wanted if wanted.any() else ~judged.sample.match).nonzero()[:, 0]
        top = judged.probability[items].topk(2, dim=1).values
        item = int(items[(top[:, 0] - top[:, 1]).argmin()])
    return item, account(judged.judge, bench.dictionary, judged.x[item])


def _rows(
    bench: Workbench, audit: Audit, knowing: Knowing, text: Mapping[int, tuple[Tensor, Tensor]]
) -> list[dict[str, Any]]:
    """Return one row per judgement and value, with the latent that carries most of what the value does."""
    judged, goes_with, rows = audit.judged, audit.goes_with, []
    real, own = audit.caused
    carried = {name: _carried(bench, audit, pair) for name, pair in audit.pairs.items()}
    for value, label in enumerate(judged.values):
        found, family = audit.effects(value), label.partition("=")[0]
        areas = knowing.auc("latents", value)
        t = outlying(torch.stack([text[value][0]]))[0] if value in text else None
        for judgement, name in enumerate(audit.names):
            row: dict[str, Any] = {"judgement": name, "value": label, "items": int(goes_with.n_with[value])}
            row["judged so"] = round(float(goes_with.rate_with[judgement, value]), 4)
            row["others judged so"] = round(float(goes_with.rate_without[judgement, value]), 4)
            row |= {"p": float(goes_with.p[judgement, value]), "found": bool(goes_with.found[judgement, value])}
            latent = int(areas[0].nan_to_num(0).argmax())
            row |= dict.fromkeys(("effect, nats", "low", "high", "t among judgements", "carried, nats"), "")
            row |= {"no chance": bool(real[judgement, value]), "own": bool(own[judgement, value])}
            if found is not None:
                effects, place = found
                effect, error = float(effects.mean[place, judgement]), 1.96 * float(effects.error[place, judgement])
                matched, scored = (half[place, :, judgement] for half in carried[family])
                latent = int((matched * (1 if effect > 0 else -1)).argmax())
                row |= {"effect, nats": round(effect, 3), "low": round(effect - error, 3)}
                row |= {"high": round(effect + error, 3), "carried, nats": round(float(scored[latent]), 3)}
                row["t among judgements"] = round(float(effects.outlying[place, judgement]), 2)
            row |= {"latent": latent, "auc for the value": round(float(areas[1][latent]), 3)}
            row["cosine of words"] = round(float(text[value][0][judgement]), 3) if value in text else ""
            row["t of words"] = round(float(t[judgement]), 2) if t is not None else ""
            row["cosine of latent with value"] = round(float(text[value][1][latent]), 3) if value in text else ""
            rows.append(row)
    return rows


def _carried(
    bench: Workbench, audit: Audit, pair: Pairs
) -> tuple[Float[Tensor, "values latents judgements"], Float[Tensor, "values latents judgements"]]:
    """Return each latent's share of every effect, in nats, on the half to match on and on the other."""
    judge = audit.judged.judge
    held = scaled(judge, bench.dictionary, pair.x.flatten(0, 1)).unflatten(0, pair.x.shape[:2])
    n = held.shape[1]
    changes = (held - held.mean(1, keepdim=True)) * n / (n - 1)
    towards = bench.dictionary.W_dec.detach().float().cpu() @ (judge.classifier - judge.classifier.mean(0)).T
    return changes[pair.match].mean(0)[..., None] * towards, changes[~pair.match].mean(0)[..., None] * towards


def _verdict(audit: Audit, figures: Mapping[str, float], strongest: list[tuple[int, int]]) -> str:
    goes_with, values = audit.goes_with, audit.judged.values
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
    return text + (
        f" Looks alone, all else in the picture alike, move {figures['moved by looks alone']:.0f} of them beyond chance, "
        f"by at most {figures['largest effect, nats']:.2f} nats, and "
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
        {"part": {-1: "constant", -2: "unexplained"}.get(one, f"latent {one} {titles.get(one, '')}".strip()), "nats": part}
        for one, part in told.parts.items()
    ]
    return Picture(
        lambda: draw_decision(image[0].permute(1, 2, 0).numpy(), told, rows),
        rows,
        f"What each latent adds to the lead of {told.judged} over {told.rival} in item {example}; with the constant and "
        "what no latent explains the parts sum to the lead exactly. Orange: those whose removal changes the judgement.",
    )
