"""Write docs/metrics.md from the definitions in the code.

Usage: python scripts/write_metrics.py [--check]    (--check only says whether the page is up to date)
"""

import math
import sys
from pathlib import Path

from sae.evaluation.definitions import FAMILIES, import_families
from sae.evaluation.metric import Definition

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
HEAD = """# Metrics

What every name in a `report.json` means. This page is written from the code by `scripts/write_metrics.py`; a metric
whose meaning changes gets another version, and reports with unequal versions are not compared.

*Mean over* says what the items are that a score averages; intervals are 95 % bootstrap intervals over them, or over
blocks of whole examples for vectors, tokens and images. *Chance* is the score of an answer without information, where
it does not depend on the data. *Paired* metrics have the same items for every dictionary on the same data, so that a
difference is taken item by item.

The more units a set has, the better the best of them finds a label or a concept, whatever they are. Scores that pick
the best unit therefore come once more with an equal number of candidates (`..._equal`): what the best of m units drawn
at random scores on average, where m is the size of the smallest set compared. Scores of single units need none, for
every unit chooses among the same labels, or factors, in every set. Nor does the resolution of neurons: a unit has to
carry the concept into the neuron, which of the raw, cut or rectified neurons only the neuron itself does, and apart
from PCA all other controls have as many units as the dictionary.

What every metric is for a perfect dictionary, for constant units and for shuffled ones is stated, and tested on toys
whose features are known, in `tests/evaluation/test_ground_truth.py`.
"""


def page() -> str:
    parts = [HEAD]
    for family, definitions in import_families().items():
        parts.append(f"## {FAMILIES[family]}\n")
        parts.append("\n".join(_table(definitions)) + "\n")
        parts += [f"### {one.name}\n\n{one.text}\n" for one in definitions]
    return "\n".join(parts)


def _table(definitions: list[Definition]) -> list[str]:
    head = ("metric", "version", "mean over", "range", "better", "chance", "paired")
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for one in definitions:
        chance = "" if one.chance is None else f"{one.chance:g}"
        # A link's target is its heading in lower case.
        cells = (
            f"[{one.name}](#{one.name.lower()})",
            str(one.version),
            one.unit,
            _range(one.bounds),
            one.better,
            chance,
        )
        lines.append(f"| {' | '.join(cells)} | {'yes' if one.paired else 'no'} |")
    return lines


def _range(bounds: tuple[float, float]) -> str:
    low, high = bounds
    left = "(-∞" if math.isinf(low) else f"[{low:g}"
    return f"{left}, ∞)" if math.isinf(high) else f"{left}, {high:g}]"


def main(check: bool) -> int:
    text = page()
    if check:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        print(f"{PAGE.name} is {'up to date' if same else 'out of date; run python scripts/write_metrics.py'}")
        return 0 if same else 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
