"""Fill the tables and draw the pictures of docs/results.md from the reports of the shipped dictionaries.

Usage: python scripts/write_results.py [--check]    (--check only says whether the tables are those of the reports)

The page's sentences are written by hand; what stands between `<!-- NAME -->` and `<!-- end -->` is written here.
"""

import re
import sys
from pathlib import Path

from sae import builtin
from sae.evaluation.pictures import caption_hashes, controls_picture, label_scatter
from sae.evaluation.report import Report, interval_text
from sae.evaluation.resolution_picture import resolution_picture

ROOT = Path(__file__).parents[1]
PAGE, PICTURES = ROOT / "docs" / "results.md", ROOT / "docs" / "pictures"
DICTIONARIES = {
    "stdlib-1l": "builtin:stdlib-1l/blocks.0.mlp.hook_post",
    "concepts-clip": "builtin:concepts-clip-rn/visual.layer4.0.hook_post",
    "concepts-clip-embedding": "builtin:concepts-clip-rn/visual.embedding",
}
FIDELITY = (
    *("fvu", "l0", "dead_fraction", "ce_recovered", "ce_recovered_mean", "ce_increase"),
    *("zero_shot_accuracy", "zero_shot_accuracy_clean", "zero_shot_ce_recovered"),
)
LABELS = (
    *("label_average_precision", "label_average_precision_equal", "label_phi", "label_phi_equal"),
    *("label_purity", "label_coverage", "label_auc", "label_auc_equal"),
    *("labels_found_share", "monosemantic_share", "polysemantic_share", "unit_purity", "unit_phi"),
    *("resolution_rate", "resolved_neurons", "concept_variance_explained"),
    *("monosemanticity_excess", "clarity", "label_entropy"),
    *("explanation_correlation", "explanation_gain", "context_gain"),
    *("detection_auc", "detection_auc_hard", "fuzzing_auc"),
    *("multimodal_share", "facets_reached", "text_agreement"),
    *("concept_auc_photo", "concept_auc_sketch", "concept_auc_word", "concept_auc_symbol"),
    *("concept_auc_photo_unseen", "concept_auc_sketch_unseen", "concept_auc_word_unseen", "concept_auc_symbol_unseen"),
    *("concept_auc_seen", "concept_auc_seen_equal", "concept_auc_unseen", "concept_auc_unseen_equal"),
    *("dissection_iou", "dissection_iou_equal", "unit_iou", "pair_selectivity", "pair_invariance"),
)
PICTURED = {
    "stdlib-1l": ("label_average_precision", "resolution_rate", "monosemanticity_excess", "explanation_correlation"),
    "concepts-clip": ("label_average_precision", "resolution_rate", "monosemanticity_excess", "dissection_iou"),
    "concepts-clip-embedding": ("label_average_precision", "label_auc", "resolution_rate", "monosemanticity_excess"),
}
SECTION = re.compile(r"<!-- (?P<name>\S+) -->\n.*?<!-- end -->", re.DOTALL)


def fidelity(reports: dict[str, Report]) -> str:
    """Return what each dictionary keeps of its vectors and its subject."""
    lines = ["| | " + " | ".join(reports) + " |", "|---|" + "---|" * len(reports)]
    for metric in FIDELITY:
        scores = [report.score(metric) for report in reports.values()]
        cells = [f"{score.value:.3g} {interval_text(score.interval)}".strip() if score else "" for score in scores]
        if any(cells):
            lines.append(f"| `{metric}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def controls(report: Report) -> str:
    """Return every score beside the controls'; a control that cannot be told from the dictionary is in italics."""
    names = list(report.controls)
    lines = ["| | dictionary | " + " | ".join(name.replace("_", " ") for name in names) + " |"]
    lines.append("|---|---|" + "---|" * len(names))
    for metric in LABELS:
        score = report.score(metric)
        if score is None:
            continue
        ends = f" {interval_text(score.interval)}" if score.interval else ""
        cells = [_control(report, metric, name) for name in names]
        lines.append(f"| `{metric}` | **{score.value:.3f}**{ends} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _control(report: Report, metric: str, name: str) -> str:
    score, difference = report.score(metric, name), report.difference(metric, name)
    if score is None:
        return ""
    same = difference is not None and difference.verdict == "not distinguishable"
    return f"*{score.value:.3f}*" if same else f"{score.value:.3f}"


def written(page: str, reports: dict[str, Report]) -> str:
    """Return the page with its tables filled."""
    tables = {"fidelity": fidelity(reports)} | {name: controls(report) for name, report in reports.items()}

    def table(section: re.Match[str]) -> str:
        return f"<!-- {section['name']} -->\n\n{tables[section['name']]}\n\n<!-- end -->"

    return SECTION.sub(table, page)


def draw(name: str, report: Report) -> None:
    """Draw the pictures of one dictionary; of its resolved neurons the one that mixes most is shown."""
    label_scatter(report, PICTURES / f"labels-{name}")
    controls_picture(report, PICTURED[name], PICTURES / f"controls-{name}")
    by_neuron: dict[int, list[dict]] = {}
    for row in report.details["resolution"]:
        by_neuron.setdefault(row["neuron"], []).append(row)
    resolved = [rows for rows in by_neuron.values() if all(row["outcome"] == "resolved" for row in rows)]
    chosen = max(resolved or by_neuron.values(), key=len, default=None)
    if chosen:
        resolution_picture(chosen, PICTURES / f"resolution-{name}", caption_hashes(report.about))


def main(arguments: list[str]) -> int:
    folders = {name: builtin.dictionary_folder(source) for name, source in DICTIONARIES.items()}
    reports = {name: Report.load(folder / "report.json") for name, folder in folders.items()}
    old = PAGE.read_text(encoding="utf-8")
    new = written(old, reports)
    if "--check" in arguments:
        print(f"{PAGE.name} is {'up to date' if new == old else 'not what scripts/write_results.py writes'}")
        return int(new != old)
    PAGE.write_text(new, encoding="utf-8")
    for name, report in reports.items():
        draw(name, report)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
