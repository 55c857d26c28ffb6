import random
import sysconfig
from pathlib import Path

import pytest

from sae.errors import ConfigError, InputsError
from sae.inputs.stdlib_chunks import (
    SPLITS,
    Chunk,
    cut,
    library_chunks,
    read_chunks,
    seen_share,
    sides,
    source_files,
    write_seen,
)


def function(number: int) -> str:
    body = "".join(f"    value_{i} = call({number}, {i})  # step {i}\n" for i in range(8))
    return f"\n\ndef work_{number}(self):\n{body}    return value_1\n"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    (tmp_path / "email").mkdir()
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "left_out.py").write_text("x = 1\n")
    for name, numbers in {"json.py": range(14), "email/a.py": range(10, 24), "email/b.py": range(24, 34)}.items():
        (tmp_path / name).write_text(f'"""Module {name}."""\n' + "".join(map(function, numbers)))
    return tmp_path


def test_cut_loses_nothing_and_starts_at_definitions():
    source = "import os\n" * 30 + "".join(map(function, range(9)))
    passages = cut(source)
    assert "".join(text for _, text in passages) == source
    assert all(source.startswith(text, start) for start, text in passages)
    assert all(text.startswith("def work_") for _, text in passages[1:])
    assert len(cut("\n\n  \n")) == 0


def test_an_edit_moves_only_nearby_cuts():
    source = "".join(map(function, range(30)))
    edited = source.replace("def work_3(self):\n", "def work_3(self):\n    added = 1\n")
    before, after = ({text for _, text in cut(each)} for each in (source, edited))
    assert len(before - after) == 1


def test_split_is_the_same_in_whatever_order_files_are_read(library: Path):
    files = source_files(library)
    assert [path.name for path in files] == ["a.py", "b.py", "json.py"]
    expected = read_chunks(library, files)
    for seed in range(5):
        random.Random(seed).shuffle(files)
        assert read_chunks(library, files) == expected


def test_no_text_stands_on_two_sides(library: Path):
    chunks = library_chunks(library)
    texts = [chunk.text for chunk in chunks]
    assert len(set(texts)) == len(texts)
    assert {chunk.side for chunk in chunks} == set(SPLITS)
    assert sum(text.startswith("def work_12(") for text in texts) == 1  # stands in two files


def test_sides_have_about_their_shares():
    chunks = [Chunk(digest=random.Random(i).randbytes(32), path="", start=0, text="") for i in range(2000)]
    for side, share in SPLITS.items():
        assert abs(sum(chunk.side == side for chunk in chunks) / len(chunks) - share) < 0.05


def test_seen_share(library: Path, tmp_path: Path):
    chunks = library_chunks(library)
    train = [chunk for chunk in chunks if chunk.side == "train"]
    write_seen(train, tmp_path)
    assert seen_share(train, tmp_path) == 1.0
    assert seen_share([chunk for chunk in chunks if chunk.side == "score"], tmp_path) == 0.0
    expected = sum(len(c.text) for c in train) / sum(len(c.text) for c in chunks)
    assert seen_share(chunks, tmp_path) == pytest.approx(expected)
    with pytest.raises(InputsError, match="seen_chunks"):
        seen_share(chunks, tmp_path / "nowhere")


def test_the_running_python_has_a_library():
    files = source_files(Path(sysconfig.get_path("stdlib")))
    names = {path.name for path in files}
    assert len(files) > 200 and {"argparse.py", "message.py"} <= names
    assert not names & {"topics.py", "cp1252.py", "regrtest.py"}
    source = (next(path for path in files if path.name == "argparse.py")).read_text()
    assert max(len(text) for _, text in cut(source)) < 4096


def test_what_cannot_work_is_refused(tmp_path: Path):
    assert sides("train+score") == ("train", "score")
    with pytest.raises(ConfigError, match="'score'"):
        sides("train+scores")
    with pytest.raises(InputsError, match="no Python source"):
        library_chunks(tmp_path)
