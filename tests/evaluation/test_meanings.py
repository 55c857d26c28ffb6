import torch

from sae.evaluation.meanings import meanings, related_labels
from sae.evaluation.sample import LabelTable
from sae.inputs.concepts import ConceptInputs, World


def table(**columns: list[int]) -> LabelTable:
    return LabelTable(tuple(columns), torch.tensor(list(columns.values()), dtype=torch.bool).T)


def test_labels_that_predict_each_other_are_related() -> None:
    cat = [1] * 10 + [0] * 90
    dog = [0] * 10 + [1] * 10 + [0] * 80
    animal = [1] * 20 + [0] * 80
    sign = [0, 1] * 50
    found = related_labels(table(**{"concept=cat": cat, "concept=dog": dog, "family=animal": animal, "sign=yes": sign}))
    expected = torch.eye(4, dtype=torch.bool)
    expected[0, 2] = expected[2, 0] = expected[1, 2] = expected[2, 1] = True
    assert torch.equal(found, expected)
    both = torch.tensor([[True, True, False, False], [True, True, True, False], [False, False, False, True]])
    assert meanings(both, found).tolist() == [[0, 1, -1, -1], [0, 0, 0, -1], [-1, -1, -1, 3]]


def test_neighbouring_numbers_are_related() -> None:
    columns = {f"indent={value}": [int(i % 4 == n) for i in range(40)] for n, value in enumerate(("0", "1", "2", "3+"))}
    assert related_labels(table(**columns)).int().sum(1).tolist() == [2, 3, 3, 2]


def test_the_concept_world_knows_its_kin() -> None:
    world = World(size=32)
    inputs = ConceptInputs(world, "score", 4)
    names = ["concept=cat", "concept=dog", "text=cat", "concept=red", "concept=tom", "colour=red"]
    labels = table(**{name: [int(i % 6 == n) for i in range(60)] for n, name in enumerate(names)})
    found = related_labels(labels, inputs)
    assert found[0].tolist() == [True, True, True, False, False, False]
    # Dogs are the weak companion of one person.
    assert found[4].tolist() == [False, True, False, False, True, False]
    assert not found[3, 5]
