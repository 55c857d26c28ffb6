"""A latent of a small dictionary and what it becomes in larger ones, drawn as columns of labelled nodes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae.errors import EvaluationError
from sae.evaluation.splitting import Node, SplittingGraph

MAX_COLUMN = 24
"""Nodes drawn per dictionary; the children with the largest masked cosine are kept."""
_COLUMN_INCHES, _SLOT_INCHES = 3.4, 0.34

Edge = tuple[Node, Node, float]


def splitting_picture(
    graph: SplittingGraph, root: Node, labels: Mapping[Node, str], out: Path, caption: str = ""
) -> Path:
    """Draw the descendants of a latent, one column per dictionary.

    Nodes carry the latent's number, its label and the share of rows on which it fires; an edge is as wide as its
    masked cosine, and pale where it leads to a node from a parent that is not its strongest.

    Args:
        graph: the dictionaries.
        root: where to start.
        labels: text of nodes, such as the token each fires on most; nodes may be missing.
        out: path without suffix; `.png`, `.pdf` and `.csv` (one row per edge) are written.
        caption: what goes below the picture.

    Returns:
        The path of the PNG.

    Raises:
        EvaluationError: the latent has no children.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    from sae.evaluation.pictures import save_picture

    edges, n_hidden = drawn_edges(graph, root)
    if not edges:
        raise EvaluationError(f"splitting_picture: latent {root[1]} of {graph.names[root[0]]} has no children.")
    strongest = _strongest_parents(edges)
    heights = node_heights(root, strongest)
    levels = sorted({level for level, _ in heights})
    n_slots = round(max(heights.values())) + 1
    figure = Figure(figsize=(_COLUMN_INCHES * len(levels), _SLOT_INCHES * max(n_slots, 4) + 1.0), layout="constrained")
    axes = figure.add_subplot()
    for parent, child, cosine in edges:
        axes.plot(
            [parent[0], child[0]],
            [heights[parent], heights[child]],
            color=colormaps["viridis"](0.25) if strongest[child][0] == parent else "0.8",
            linewidth=4 * cosine,
            alpha=0.8,
            solid_capstyle="round",
            zorder=1 if strongest[child][0] == parent else 0,
        )
    for node, height in heights.items():
        box = {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": "0.6", "linewidth": 0.8}
        text = f"{_short(labels.get(node, ''))}  #{node[1]}  {_percent(graph, node)}"
        # Tokens may hold dollar signs, which must not start a formula.
        axes.text(node[0], height, text, fontsize=8, ha="center", va="center", bbox=box, parse_math=False)
    for level in levels:
        axes.text(level, -0.9, graph.names[level], fontsize=9, ha="center", va="center", parse_math=False)
    axes.set(xlim=(levels[0] - 0.5, levels[-1] + 0.5), ylim=(n_slots - 0.4, -1.3))
    axes.set_axis_off()
    hidden = f"; {n_hidden} weaker children not drawn" if n_hidden else ""
    about = f"edges: masked cosine above {graph.min_cosine:g}{hidden}. {caption}"
    return save_picture(figure, out, [_row(graph, labels, edge) for edge in edges], about)


def drawn_edges(graph: SplittingGraph, root: Node) -> tuple[list[Edge], int]:
    """Return the edges from a latent down to its last descendants, and how many descendants were left out.

    Where a column would grow longer than `MAX_COLUMN`, the nodes with the largest masked cosine are kept.
    """
    edges: list[Edge] = []
    kept, n_hidden = [root], 0
    for level in range(root[0], len(graph.edges)):
        found = [
            (node, (level + 1, child), cosine) for node in kept for child, cosine in graph.children(node[1], level)
        ]
        # Every node once, in the order of its strongest edge.
        ranked = list(dict.fromkeys(child for _, child, _ in sorted(found, key=lambda edge: -edge[2])))
        kept, n_hidden = ranked[:MAX_COLUMN], n_hidden + len(ranked[MAX_COLUMN:])
        edges += [edge for edge in found if edge[1] in kept]
    return edges, n_hidden


def node_heights(root: Node, strongest: Mapping[Node, tuple[Node, float]]) -> dict[Node, float]:
    """Give every node a height: leaves one slot each, others the middle of what hangs on them by a strongest edge.

    Nodes of a column are at least one slot apart, and no two strongest edges cross.
    """
    hanging: dict[Node, list[Node]] = {}
    for child, (parent, _) in sorted(strongest.items(), key=lambda item: -item[1][1]):
        hanging.setdefault(parent, []).append(child)
    heights: dict[Node, float] = {}
    n_leaves = 0

    def place(node: Node) -> float:
        nonlocal n_leaves
        below = [place(child) for child in hanging.get(node, [])]
        if not below:
            below = [float(n_leaves)]
            n_leaves += 1
        heights[node] = (below[0] + below[-1]) / 2
        return heights[node]

    place(root)
    return heights


def _strongest_parents(edges: list[Edge]) -> dict[Node, tuple[Node, float]]:
    strongest: dict[Node, tuple[Node, float]] = {}
    for parent, child, cosine in edges:
        if child not in strongest or cosine > strongest[child][1]:
            strongest[child] = (parent, cosine)
    return strongest


def _row(graph: SplittingGraph, labels: Mapping[Node, str], edge: Edge) -> dict[str, Any]:
    parent, child, cosine = edge
    return {
        "parent_dictionary": graph.names[parent[0]],
        "parent": parent[1],
        "parent_label": labels.get(parent, ""),
        "parent_rate": float(graph.rates[parent[0]][parent[1]]),
        "child_dictionary": graph.names[child[0]],
        "child": child[1],
        "child_label": labels.get(child, ""),
        "child_rate": float(graph.rates[child[0]][child[1]]),
        "masked_cosine": cosine,
    }


def _percent(graph: SplittingGraph, node: Node) -> str:
    return f"{100 * float(graph.rates[node[0]][node[1]]):.2g} %"


def _short(label: str, longest: int = 18) -> str:
    return label if len(label) <= longest else label[: longest - 1] + "…"
