"""`sae convert` and `sae push`, as they are typed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch

from sae import cli
from sae.dictionaries import io, registry
from sae.dictionaries.base import Dictionary
from sae.evaluation.report import Report

SHIPPED = "builtin:concepts-clip-rn/visual.embedding"


def error_of(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must end with one line and status 2, and return that line."""
    assert cli.main(command) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    return printed


def small(kind: str, **settings: Any) -> Dictionary:
    made = registry.make_dictionary(registry.decode_config({"kind": kind, "d_sae": 12, **settings}), 6)
    generator = torch.Generator().manual_seed(0)
    made.initialise(torch.randn(64, 6, generator=generator), generator)
    return made.eval()


def test_a_dictionary_goes_to_another_format_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = io.load_dictionary(SHIPPED)
    x = torch.randn(50, original.d_in)
    source = SHIPPED
    for form in ("saelens", "sparsify", "sae"):
        out = tmp_path / form
        assert cli.main(["convert", source, str(out), "--format", form]) == 0
        printed = capsys.readouterr().out
        assert repr(original).partition(";")[0].rstrip(">") in printed and f"saved in {out} as {form}" in printed
        written = io.load_dictionary(out)
        assert torch.equal(written.encode(x).dense(), original.encode(x).dense())
        assert torch.equal(written(x), original(x))
        assert cli.main(["info", str(out)]) == 0
        assert f"topk dictionary: d_in={original.d_in}" in capsys.readouterr().out
        source = str(out)


def test_what_a_file_does_not_say_is_given_as_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, file = small("topk", k=3), tmp_path / "sae.pt"
    encoder = {"encoder.weight": made.W_enc_rows.detach(), "encoder.bias": made.b_enc.detach()}
    torch.save({"dictionary._weights": made.W_dec.detach(), **encoder}, file)
    command = ["convert", str(file), str(tmp_path / "out"), "--format", "sae"]
    assert "does not save the kind" in error_of(command, capsys)
    assert "takes no 'kinds'. Did you mean 'kind'?" in error_of([*command, "--kinds", "topk"], capsys)
    assert "--kind: needs a value." in error_of([*command, "--kind"], capsys)
    assert "'topk': expected --name VALUE" in error_of([*command, "topk"], capsys)
    assert not (tmp_path / "out").exists()
    assert cli.main([*command, "--kind", "topk", "--k", "3"]) == 0
    assert io.load_dictionary(tmp_path / "out").config == made.config


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "notes.txt"):
        assert "is there already" in error_of(["convert", SHIPPED, str(out), "--format", "sae"], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    assert cli.main(["convert", SHIPPED, str(tmp_path / "empty"), "--format", "sae"]) == 0


@pytest.mark.parametrize(
    ("kind", "settings", "form", "message"),
    [
        ("topk", {"k": 3}, "sparsfy", "cannot write the format 'sparsfy'. Did you mean 'sparsify'?"),
        ("relu", {}, "sparsify", "keeps the k largest pre-activations of every vector and nothing else"),
        ("topk", {"k": 3, "layer_norm": True}, "sparsify", "it has no layer norm"),
        ("identity", {"d_sae": 6}, "saelens", "no architecture that gives the codes of a identity dictionary"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_the_reason(
    kind: str, settings: dict[str, Any], form: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    io.save_dictionary(small(kind, **settings), tmp_path / "ours")
    command = ["convert", str(tmp_path / "ours"), str(tmp_path / "out"), "--format", form]
    assert message in error_of(command, capsys)
    assert not (tmp_path / "out").exists()


def test_convert_needs_a_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "the format is missing" in error_of(["convert", SHIPPED, str(tmp_path / "out")], capsys)


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """What the hub was given."""
    commits: list[SimpleNamespace] = []

    def create_commit(self: Any, repo: str, operations: list, commit_message: str) -> Any:
        files = {one.path_in_repo: one.path_or_fileobj for one in operations}
        commits.append(SimpleNamespace(repo=repo, files=files, message=commit_message))
        return SimpleNamespace(commit_url=f"https://hub/{repo}/commit/1")

    def create_repo(self: Any, repo: str, **settings: Any) -> None:
        commits.append(SimpleNamespace(repo=repo, **settings))

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", create_commit)
    return commits


def test_push_uploads_the_folder_with_its_own_report(pushed: list, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["push", SHIPPED, "one/two", "--private", "--message", "the first"]) == 0
    assert "https://hub/one/two/commit/1" in capsys.readouterr().out
    created, commit = pushed
    assert (created.repo, created.private, commit.repo, commit.message) == ("one/two", True, "one/two", "the first")
    folder = io.dictionary_folder(SHIPPED)
    assert {name: path for name, path in commit.files.items() if name != "README.md"} == {
        file.name: str(file) for file in folder.iterdir() if file.is_file()
    }
    card = commit.files["README.md"].decode()
    fvu = Report.load(folder / "report.json")["fvu"]
    assert f"| fvu | {fvu.value:.4g} |" in card and 'sae.load_dictionary("hub:one/two")' in card


def test_push_takes_a_report_from_elsewhere(pushed: list, tmp_path: Path) -> None:
    for name in ("dictionary.json", "dictionary.safetensors"):
        (tmp_path / name).write_bytes((io.dictionary_folder(SHIPPED) / name).read_bytes())
    assert cli.main(["push", str(tmp_path), "one/two/embedding"]) == 0
    assert sorted(pushed[1].files) == ["README.md", "embedding/dictionary.json", "embedding/dictionary.safetensors"]
    assert b"There is no report." in pushed[1].files["README.md"]
    assert not pushed[0].private and pushed[1].message == "Upload embedding"
    assert cli.main(["push", str(tmp_path), "one/two/embedding", "--report", SHIPPED]) == 0
    assert pushed[3].files["embedding/report.json"] == str(io.dictionary_folder(SHIPPED) / "report.json")
    assert b"| fvu |" in pushed[3].files["README.md"]


def test_push_takes_what_other_libraries_wrote(pushed: list, tmp_path: Path) -> None:
    assert cli.main(["convert", SHIPPED, str(tmp_path / "out"), "--format", "saelens"]) == 0
    assert cli.main(["push", str(tmp_path / "out"), "one/two"]) == 0
    assert sorted(pushed[1].files) == ["README.md", "cfg.json", "sae_weights.safetensors"]


def test_mistakes_upload_nothing(pushed: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    io.save_dictionary(small("topk", k=3), tmp_path / "other")
    other = str(tmp_path / "other")
    assert "usage: sae push DICTIONARY OWNER/NAME[/FOLDER]" in error_of(["push", other], capsys)
    assert "two: expected OWNER/NAME[/FOLDER]." in error_of(["push", other, "two"], capsys)
    assert "Did you mean '--private'?" in error_of(["push", other, "one/two", "--privat"], capsys)
    assert "no such report" in error_of(["push", other, "one/two", "--report", str(tmp_path / "none")], capsys)
    found = error_of(["push", other, "one/two", "--report", SHIPPED], capsys)
    assert f"about {SHIPPED}" in found and io.load_dictionary(other).hash in found
    single = {"pre_bias": torch.zeros(6), "latent_bias": torch.zeros(12)}
    single |= {"encoder.weight": torch.ones(12, 6), "decoder.weight": torch.ones(6, 12)}
    torch.save(single, tmp_path / "8.pt")
    assert "8.pt: a single file" in error_of(["push", str(tmp_path / "8.pt"), "one/two"], capsys)
    assert "no such file" in error_of(["push", str(tmp_path / "nothing"), "one/two"], capsys)
    assert not pushed
