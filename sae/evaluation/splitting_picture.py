"""A latent of a small dictionary and what it becomes in larger ones, drawn as columns of labelled nodes."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae.errors import EvaluationError
from sae.evaluation.pictures import GREY, save_picture, style
from sae.evaluation.splitting_graph import Node, SplittingGraph
from sae.evaluation.typical import Portrait

MAX_COLUMN = 24
"""Nodes drawn per dictionary; the children with the largest masked cosine are kept."""
MAX_COLOURS = 6
"""Contexts with a colour of their own, the most frequent ones."""
_COLUMN_INCHES, _SLOT_INCHES = 3.9, 0.47

Edge = tuple[Node, Node, float]


def splitting_picture(
    graph: SplittingGraph, root: Node, portraits: Mapping[Node, Portrait], out: Path, caption: str = ""
) -> Path:
    """Draw the descendants of a latent, one column per dictionary.

    Nodes carry their tokens, the latent's number, the share of rows on which it fires and, in a colour, the context
    that sets it apart from the first latent with the share of its activation there. An edge is as wide as its masked
    cosine, and pale where it comes from a parent that is not its child's closest.

    Args:
        graph: the dictionaries.
        root: where to start.
        portraits: of every node drawn.
        out: path without suffix; `.png`, `.pdf` and `.csv` (one row per edge) are written.
        caption: what goes below the picture.

    Returns:
        The path of the PNG.

    Raises:
        EvaluationError: the latent has no children.
    """
    from matplotlib.figure import Figure

    edges, n_hidden = drawn_edges(graph, root)
    if not edges:
        raise EvaluationError(f"splitting_picture: latent {root[1]} of {graph.names[root[0]]} has no children.")
    closest = _closest_parents(edges)
    colours = context_colours({node: portraits[node] for node in (root, *closest)})
    heights = node_heights(root, closest, {node: (colour, portraits[node].context) for node, colour in colours.items()})
    levels = sorted({level for level, _ in heights})
    n_slots = round(max(heights.values())) + 1
    figure = Figure(figsize=(_COLUMN_INCHES * len(levels), _SLOT_INCHES * max(n_slots, 4) + 0.8), layout="constrained")
    axes = figure.add_subplot()
    for edge in edges:
        parent, child, _ = edge
        _draw_edge(axes, edge, heights, colours[child] if closest[child][0] == parent else None)
    for node, height in heights.items():
        number = f"#{node[1]}  fires on {_percent(graph, node)}"
        _draw_node(axes, (node[0], height), portraits[node], number, colours[node])
    for level in levels:
        axes.text(level, -0.95, graph.names[level], fontsize=10, ha="center", va="center", weight="bold")
    axes.set(xlim=(levels[0] - 0.5, levels[-1] + 0.5), ylim=(n_slots - 0.4, -1.3))
    axes.set_axis_off()
    hidden = f"; {n_hidden} less close descendants not drawn" if n_hidden else ""
    bars = ", ".join(f"{bar:.2f}" for bar in graph.bars[root[0] :])
    about = (
        f"Edges: masked cosine above {bars}, which 5 % of random directions that fire as often reach{hidden}. "
        f"In colour: context in which a latent is active more than the first one, and the share of its activation "
        f"there.\n{caption}"
    )
    return save_picture(figure, out, [_row(graph, portraits, edge) for edge in edges], about)


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


def node_heights(
    root: Node, closest: Mapping[Node, tuple[Node, float]], groups: Mapping[Node, Any]
) -> dict[Node, float]:
    """Give every node a height: leaves one slot each, others the middle of what hangs on them by a closest edge.

    Nodes of a column are at least one slot apart, and no two closest edges cross. Children of a group stand together.
    """
    hanging: dict[Node, list[Node]] = {}
    for child, (parent, _) in sorted(closest.items(), key=lambda item: (groups[item[0]], -item[1][1])):
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


def context_colours(portraits: Mapping[Node, Portrait]) -> dict[Node, str]:
    """Give the most frequent contexts a colour each, and all other nodes grey."""
    counts = Counter(portrait.context for portrait in portraits.values() if portrait.context)
    frequent = [context for context, _ in counts.most_common(MAX_COLOURS)]
    return {
        node: style(frequent.index(portrait.context))["color"] if portrait.context in frequent else GREY
        for node, portrait in portraits.items()
    }


def _draw_edge(axes: Any, edge: Edge, heights: Mapping[Node, float], colour: str | None) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    parent, child, cosine = edge
    (x, y), (to_x, to_y) = (parent[0], heights[parent]), (child[0], heights[child])
    middle = (x + to_x) / 2
    curve = Curve(
        [(x, y), (middle, y), (middle, to_y), (to_x, to_y)], [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4]
    )
    width, alpha, order = (5 * (cosine - 0.4), 0.65, 1) if colour else (1.0, 1.0, 0)
    patch = PathPatch(
        curve, facecolor="none", edgecolor=colour or "0.88", linewidth=max(width, 0.8), alpha=alpha, zorder=order
    )
    axes.add_patch(patch)


def _draw_node(axes: Any, place: tuple[float, float], portrait: Portrait, number: str, colour: str) -> None:
    from matplotlib.offsetbox import AnnotationBbox, HPacker, TextArea, VPacker

    def text(words: str, **look: Any) -> TextArea:
        # Tokens may hold dollar signs, which must not start a formula.
        return TextArea(words, textprops={"fontsize": 7, "parse_math": False, **look})

    first: list[Any] = [text(number, color=GREY)]
    if portrait.tokens:
        first.insert(0, text(_short(portrait.tokens), fontsize=8, family="monospace", weight="bold"))
    lines: list[Any] = [HPacker(children=first, pad=0, sep=6, align="baseline")]
    if portrait.context:
        lines.append(text(f"{_short(portrait.context, 40)}  {portrait.share:.0%}", color=colour))
    box = VPacker(children=lines, pad=0, sep=2, align="left")
    frame = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": colour, "linewidth": 0.9}
    axes.add_artist(AnnotationBbox(box, place, bboxprops=frame, pad=0.2))


def _closest_parents(edges: list[Edge]) -> dict[Node, tuple[Node, float]]:
    closest: dict[Node, tuple[Node, float]] = {}
    for parent, child, cosine in edges:
        if child not in closest or cosine > closest[child][1]:
            closest[child] = (parent, cosine)
    return closest


def _row(graph: SplittingGraph, portraits: Mapping[Node, Portrait], edge: Edge) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for what, node in (("parent", edge[0]), ("child", edge[1])):
        row |= {
            f"{what}_dictionary": graph.names[node[0]],
            what: node[1],
            f"{what}_tokens": portraits[node].tokens,
            f"{what}_context": portraits[node].context,
            f"{what}_context_share": portraits[node].share,
            f"{what}_rate": float(graph.rates[node[0]][node[1]]),
        }
    return row | {"masked_cosine": edge[2]}


def _percent(graph: SplittingGraph, node: Node) -> str:
    return f"{100 * float(graph.rates[node[0]][node[1]]):.2g} %"


def _short(text: str, longest: int = 24) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
