import csv
import itertools

import pytest
from test_splitting import graph

from sae.errors import EvaluationError
from sae.evaluation import splitting_picture as module
from sae.evaluation.splitting_picture import drawn_edges, node_heights, splitting_picture


def test_the_picture_is_written_with_its_data(tmp_path):
    png = splitting_picture(graph(), (0, 0), {(0, 0): "'$a_b'"}, tmp_path / "tree", "a caption")
    assert png.is_file() and png.with_suffix(".pdf").is_file()
    with png.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {(row["parent"], row["child"]) for row in rows if row["parent_dictionary"] == "3"} == {
        ("0", "0"),
        ("0", "1"),
        ("0", "2"),
    }
    assert {row["parent_label"] for row in rows} == {"'$a_b'", ""}


def test_a_long_column_keeps_the_strongest(monkeypatch):
    monkeypatch.setattr(module, "MAX_COLUMN", 2)
    edges, n_hidden = drawn_edges(graph(), (0, 0))
    assert len({child for _, child, _ in edges if child[0] == 1}) == 2 and n_hidden == 1


def test_nodes_of_a_column_keep_their_distance():
    strongest = {
        (1, 0): ((0, 0), 0.9),
        (1, 1): ((0, 0), 0.8),
        (1, 2): ((0, 0), 0.7),
        **{(2, child): ((1, 1), 0.5) for child in range(4)},
        (2, 9): ((1, 2), 0.6),
    }
    heights = node_heights((0, 0), strongest)
    assert set(heights) == {(0, 0), *strongest}
    for level in (1, 2):
        column = sorted(height for node, height in heights.items() if node[0] == level)
        assert all(b - a >= 1 for a, b in itertools.pairwise(column))


def test_a_latent_without_children_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match="latent 2 of 3 has no children"):
        splitting_picture(graph(), (0, 2), {}, tmp_path / "tree")
