import csv
import itertools

import pytest
from test_products import sparse
from test_splitting import parent_and_parts
from test_splitting_graph import graph

from sae.errors import EvaluationError
from sae.evaluation import splitting_picture as module
from sae.evaluation.chance_picture import chance_picture
from sae.evaluation.pictures import GREY
from sae.evaluation.splitting import Step
from sae.evaluation.splitting_picture import context_colours, drawn_edges, node_heights, splitting_picture
from sae.evaluation.typical import Portrait

PLAIN = Portrait("«$a_b»", "", "", 0.0, 0.0)
PORTRAITS = {(level, n): Portrait("«a»", "sense", f"sense={n}", 0.8, 0.4) for level in (1, 2) for n in range(3)}


def test_the_picture_is_written_with_its_data(tmp_path):
    png = splitting_picture(graph(), (0, 0), PORTRAITS | {(0, 0): PLAIN}, tmp_path / "tree", "a caption")
    assert png.is_file() and png.with_suffix(".pdf").is_file()
    with png.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {(row["parent"], row["child"]) for row in rows if row["parent_dictionary"] == "3"} == {
        ("0", "0"),
        ("0", "1"),
        ("0", "2"),
    }
    assert {row["parent_tokens"] for row in rows} == {"«$a_b»", "«a»"}
    assert {row["child_context"] for row in rows} == {"sense=0", "sense=1", "sense=2"}


def test_a_long_column_keeps_the_strongest(monkeypatch):
    monkeypatch.setattr(module, "MAX_COLUMN", 2)
    edges, n_hidden = drawn_edges(graph(), (0, 0))
    assert len({child for _, child, _ in edges if child[0] == 1}) == 2 and n_hidden == 1


def test_nodes_of_a_column_keep_their_distance():
    closest = {
        (1, 0): ((0, 0), 0.9),
        (1, 1): ((0, 0), 0.8),
        (1, 2): ((0, 0), 0.7),
        **{(2, child): ((1, 1), 0.5) for child in range(4)},
        (2, 9): ((1, 2), 0.6),
    }
    heights = node_heights((0, 0), closest, dict.fromkeys(closest, ""))
    assert set(heights) == {(0, 0), *closest}
    for level in (1, 2):
        column = sorted(height for node, height in heights.items() if node[0] == level)
        assert all(b - a >= 1 for a, b in itertools.pairwise(column))


def test_children_of_a_group_stand_together():
    closest = {(1, child): ((0, 0), 0.5 + child / 10) for child in range(4)}
    heights = node_heights((0, 0), closest, {(1, child): child % 2 for child in range(4)})
    assert sorted(closest, key=lambda node: heights[node]) == [(1, 2), (1, 0), (1, 3), (1, 1)]


def test_the_most_frequent_contexts_have_a_colour_each(monkeypatch):
    monkeypatch.setattr(module, "MAX_COLOURS", 2)
    contexts = ["a", "b", "b", "a", "b", "c", ""]
    colours = context_colours({(1, n): Portrait("", "", context, 0.5, 0.5) for n, context in enumerate(contexts)})
    assert colours[1, 0] == colours[1, 3] and colours[1, 1] == colours[1, 4] != colours[1, 0]
    assert colours[1, 5] == colours[1, 6] == GREY


def test_a_latent_without_children_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match="latent 2 of 3 has no children"):
        splitting_picture(graph(), (0, 2), {}, tmp_path / "tree")


def test_shares_are_drawn_against_every_bar(tmp_path):
    small, large = parent_and_parts()
    step = Step.between(sparse(small), sparse(large), 0.9)
    png = chance_picture({"3 to 5": {"dictionary": step, "same_size": step}}, tmp_path / "chance", "a caption")
    assert png.is_file() and png.with_suffix(".pdf").is_file()
    with png.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["who"] for row in rows} == {"dictionary", "same_size"}
    at = {float(row["masked_cosine"]): row for row in rows}
    assert float(at[0.5]["inherited_share"]) == pytest.approx(4 / 5)
    assert float(at[0.5]["split_share"]) == pytest.approx(1 / 2)
    assert float(at[1.0]["inherited_share"]) <= 4 / 5
