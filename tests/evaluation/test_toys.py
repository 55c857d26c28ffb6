from pathlib import Path

from sae.dictionaries.topk import TopKConfig
from sae.evaluation.recovery import Recovery
from sae.evaluation.toys import pentagon
from scripts import pentagon as script


def test_five_concepts_in_two_neurons_are_all_recovered(tmp_path: Path) -> None:
    toy = pentagon()
    dictionary = script.train_best(toy, TopKConfig(d_sae=5, k=1), n_steps=600)
    recovery = Recovery.of(dictionary.W_dec, toy.directions)
    assert recovery.best.min() > 0.98
    picture = script.draw(toy, dictionary, recovery, tmp_path / "pentagon")
    assert picture.is_file() and picture.with_suffix(".pdf").is_file() and picture.with_suffix(".csv").is_file()
