"""What latents have to do with an audit's findings, each time beside neurons and random directions.

Which go with a sensitive value by prompts and by images, which speak when a judgement is made, and what becomes of the
definitions of fairness without them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sae.lab.bias.associated import association_figures, association_rows, associations
from sae.lab.bias.fairness import DEFINITIONS
from sae.lab.bias.latent_pictures import WAYS, draw_associations, draw_removed, draw_speaking
from sae.lab.bias.removing import After, Knowing, fairness_left
from sae.lab.bias.speaking import THERE, Speaking, speaking_figures, speaking_rows
from sae.lab.bias.table import Audit
from sae.lab.bias.wording import Wording
from sae.lab.finding import Picture

FIGURES = ("demographic parity", "equalised odds")
"""Definitions whose gaps after removals are figures; the picture's table has all."""


@dataclass(frozen=True)
class Said:
    """Figures by name, and sentences for the verdict."""

    figures: Mapping[str, float]
    told: Sequence[str]


def evidence(
    audit: Audit, knowing: Knowing, words: Wording, titles: Mapping[int, str], n: int, seed: int
) -> tuple[Said, dict[str, Picture]]:
    """Return what is said of latents, and the pictures of it by file name.

    Args:
        audit: what was found.
        knowing: the units of its items.
        words: sensitive values as words.
        titles: what latents are called.
        n: how many units speak for a judgement, and are taken out.
        seed: of what is drawn.
    """
    figures, told, pictures = {}, [], {}
    strongest, values = audit.strongest(), audit.judged.values
    if words.values:
        found = associations(knowing, words)
        figures |= association_figures(found, [values[value] for _, value in strongest])
        rows = association_rows(found, titles)
        told += [_told_words(rows, value) for value in words.values if value not in values]
        pictures["lab-audit-prompts"] = _association_picture(rows)
    speaking = {kind: Speaking.of(knowing, kind, n, seed) for kind in knowing.units}
    figures |= speaking_figures(speaking)
    pictures["lab-audit-speaking"] = _speaking_picture(speaking_rows(speaking, knowing, words, titles))
    if values:
        told.append(_told_speaking(figures))
    removed = []
    for pair in strongest:
        after = _after(audit, knowing, speaking, pair, n, seed)
        judgement, value = audit.names[pair[0]], values[pair[1]]
        figures |= _removed_figures(f"{judgement}, {value}", after)
        removed += _removed_rows((judgement, value), after)
        if audit.goes_with.found[pair]:
            told.append(_told_removed(judgement, value, after, n))
    if removed:
        pictures["lab-audit-removed"] = _removed_picture(removed)
    return Said(figures, told), pictures


def _after(
    audit: Audit, knowing: Knowing, speaking: Mapping[str, Speaking], pair: tuple[int, int], n: int, seed: int
) -> dict[str, After]:
    judgement, value = pair
    family = audit.judged.values[value].partition("=")[0]
    shown = None if audit.effects(value) is None else audit.pairs[family]
    units = {kind: one.units[judgement].tolist() for kind, one in speaking.items()}
    return fairness_left(knowing, shown, pair, units, min(n, knowing.dictionary.d_sae), seed)


def _removed_figures(name: str, after: Mapping[str, After]) -> dict[str, float]:
    figures = {}
    for way, one in after.items():
        what = f"{name}, without {way}"
        figures |= {f"{what}: {definition}": one.gaps[definition].value for definition in FIGURES}
        figures |= {f"{what}: judged so": one.rate, f"{what}: accuracy": one.accuracy}
        if one.effect == one.effect:
            figures[f"{what}: moved by the look alone, nats"] = one.effect
    return figures


def _removed_rows(pair: tuple[str, str], after: Mapping[str, After]) -> list[dict[str, Any]]:
    rows = []
    for way in (way for way in WAYS if way in after):
        one, row = after[way], {"judgement": pair[0], "value": pair[1], "without": way}
        for name in DEFINITIONS:
            gap = one.gaps[name]
            row |= {name: gap.value, f"{name}, low": gap.low, f"{name}, high": gap.high}
        rows.append(row | {"judged so": one.rate, "accuracy": one.accuracy, "effect, nats": one.effect})
    return rows


def _told_speaking(figures: Mapping[str, float]) -> str:
    def known(where: str) -> str:
        counts = [
            f"{figures[f'{kind} that speak most: know a look{where}']:.0f} ({kind})"
            for kind in ("neurons", "random directions")
        ]
        latents = f"{figures[f'latents that speak most: know a look{where}']:.0f}"
        dealt = figures[f"latents that speak most: know a look{where}, looks dealt out"]
        return f"{latents} know a look beyond chance (looks dealt out: {dealt:.2f}; {', '.join(counts)})"

    return (
        f"Of the {figures['latents that speak most: in all']:.0f} latents that speak most where judgements are made "
        f"{known('')}, and among the items judged so {known(THERE)}."
    )


def _told_words(rows: Sequence[Mapping[str, Any]], value: str) -> str:
    first = {row["kind"]: row for row in rows if row["value"] == value and row["rank"] == 1}
    latent, called = first["latents"], f" ({first['latents']['called']})" if first["latents"]["called"] else ""
    others = ", ".join(f"{kind} {row['cosine']:.2f}" for kind, row in first.items() if kind != "latents")
    written = f"latent {latent['unit']}{called}, cosine {latent['cosine']:.2f} ({others})"
    return f"The words of {value} are written most by {written}."


def _told_removed(judgement: str, value: str, after: Mapping[str, After], n: int) -> str:
    parity = {way: f"{one.gaps['demographic parity'].value:+.1%}" for way, one in after.items()}
    odds = {way: f"{one.gaps['equalised odds'].value:+.1%}" for way, one in after.items()}
    ways = {
        f"without the {n} latents that speak most for it": "speaking latents",
        "without those that know the look": "latents",
        "without as many random ones": "random latents",
        "without the difference of means": "difference of means",
    }
    listed = ", ".join(f"{told} {parity[way]} ({odds[way]})" for told, way in ways.items() if way in parity)
    return (
        f"How much more often held-out items with {value} are judged {judgement} (larger gap of the equalised odds): "
        f"{parity['nothing']} ({odds['nothing']}), {listed}."
    )


def _association_picture(rows: Sequence[Mapping[str, Any]]) -> Picture:
    return Picture(
        lambda: draw_associations(rows),
        rows,
        "Left: of the unit that writes a value's words most, against those of its family's other values, the cosine. "
        "Middle: what that unit is worth on images that it was not chosen by; hollow: the unit that knows the value "
        "best on the other half of the images. Right: Spearman's correlation of the two orders over all units that "
        "fire, 95 % intervals over units.",
    )


def _speaking_picture(rows: Sequence[Mapping[str, Any]]) -> Picture:
    known = (
        "Middle: the area under the ROC curve of each for the look that it knows best, among all held-out items; "
        "filled and named where looks dealt out among these reach it in fewer than one audit of twenty. Right: among "
        "the items judged so, where what the judgement itself says of a look counts no more."
    )
    worded = "Right: the cosine of what each writes with the sensitive words that it is nearest to, or farthest from."
    return Picture(
        lambda: draw_speaking(rows),
        rows,
        "Left: what the units that speak most for a judgement add to its log-odds where it is made, on the half that "
        "they were not chosen by. " + (known if any(row["auc"] != "" for row in rows) else worded),
    )


def _removed_picture(rows: Sequence[Mapping[str, Any]]) -> Picture:
    return Picture(
        lambda: draw_removed(rows),
        rows,
        "Gaps between the held-out items with the look and the others once something is taken out of all of them, 95 % "
        "intervals over items (of random latents the range of ten draws). Grey line: nothing taken out. Last: share of "
        "all items judged rightly, and hollow the share judged so.",
    )
