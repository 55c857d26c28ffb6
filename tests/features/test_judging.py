"""Judges of explanations: what they see, what they are worth, and a chat endpoint that does not always answer."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_catalog import TinyInputs

from sae import cli
from sae.errors import CatalogError
from sae.features.cards import Card
from sae.features.catalog import About, Catalog, write_shard
from sae.features.explanations import Explanations
from sae.features.judging.chat_judge import ChatJudge, excerpt, read_answers
from sae.features.judging.judge import JointSpaceJudge, score
from sae.tensors import Batch


def held_out(n: int = 6) -> list[dict[str, Any]]:
    """Texts that end in a kite where it fires, and images by the same numbers."""
    texts = [["a ", "kite" if i < n else "boat", "\n"] for i in range(2 * n)]
    about = {"value": 3.0, "position": 21, "start": 20}
    return [{"fires": i < n, "example": i, "tokens": tokens} | about for i, tokens in enumerate(texts)]


def written(folder: Path, **changes: Any) -> Catalog:
    cards = [Card("latent", 0, "none", {}), Card("latent", 1, "kites", {"held_out": held_out()})]
    write_shard(folder / "latents", 0, [card.packed() for card in cards])
    about: dict[str, Any] = {"dictionary": {"sha256": "0"}, "subject": "s", "hookpoint": "h", "store": "none"}
    about |= {"modality": "text", "n_vectors": 1, "n_examples": 1, "counts": {"latents": 2}, "complete": True}
    About(**(about | changes)).save(folder)
    return Catalog.open(folder)


class Reader:
    """Says 1 where a text holds the explanation's last word."""

    name = "reader"

    def __init__(self) -> None:
        self.seen: list[Mapping[str, Any]] = []

    def __call__(self, text: str, contexts: Sequence[Mapping[str, Any]]) -> list[float]:
        self.seen += contexts
        return [float(text.split()[-1] in "".join(context["tokens"])) for context in contexts]


def test_a_judge_rates_what_has_not_been_rated_yet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalog, judge, said = written(tmp_path), Reader(), Explanations(tmp_path)
    right, wrong = said.add("latent", 1, "fires on kite", "Ada"), said.add("latent", 1, "fires on boat", "Bob")
    said.add("latent", 0, "nothing to test it on", "Ada")
    found = list(score(catalog, judge))
    assert {one.explanation.id: one.agreement.value for one in found} == {right.id: 1, wrong.id: 0}
    assert all(set(context) == {"example", "position", "start", "tokens"} for context in judge.seen)
    assert [context["example"] for context in judge.seen[:12]] != list(range(12)), "the order tells nothing"
    (logged,) = said[right.id].scores
    assert (logged.rater, logged.method, logged.value, logged.n) == ("reader", "judge", 1, 12)
    assert "latent 0: has no held-out examples" in caplog.text
    assert list(score(catalog, judge)) == []
    edited = said.edit(wrong.id, "fires on kite", "Ada", wrong.revision)
    (again,) = score(catalog, judge, indices=[1])
    assert again.explanation.id == edited.id and said[edited.id].score == 1


def test_a_card_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no latent 7"):
        list(score(written(tmp_path), Reader(), indices=[7]))


class Towers:
    """Embeds an image by its first pixel, and a text by the number in it."""

    id, kind = "towers", "clip"

    def hookpoints(self) -> dict[str, Any]:
        return {}

    def run(self, batch: Batch, hookpoints: Any) -> dict[str, torch.Tensor]:
        assert batch.images is not None
        return {name: torch.eye(256)[batch.images[:, 0, 0, 0].long()][:, None] * 3 for name in hookpoints}

    def zero_shot_classifier(self, prompts: Sequence[Sequence[str]]) -> torch.Tensor:
        return torch.stack([torch.eye(256)[int(texts[0])] for texts in prompts])

    def rows(self, batch: Any, grid: str) -> Any: ...
    def forward(self, batch: Any, edits: Any = None, grad: bool = False) -> Any: ...
    def provenance(self) -> dict[str, Any]:
        return {}


def test_the_joint_space_scores_images_by_the_cosine() -> None:
    inputs = TinyInputs("clip")
    judge = JointSpaceJudge(Towers(), inputs)  # type: ignore[arg-type]
    pixel = int(inputs.image(4)[0, 0, 0])
    found = judge(str(pixel), [{"example": 9}, {"example": 4}, {"example": 9}])
    assert found == pytest.approx([float(int(inputs.image(9)[0, 0, 0]) == pixel), 1, found[0]])


def test_a_subject_without_a_joint_space_cannot_judge() -> None:
    from tiny_catalog import TinySubject

    with pytest.raises(CatalogError, match="tiny:language: does not embed texts and images in one space"):
        JointSpaceJudge(TinySubject("language"), TinyInputs("language"))  # type: ignore[arg-type]


Answer = Callable[[dict[str, Any]], tuple[int, Any]]


@pytest.fixture
def endpoint() -> Iterator[Any]:
    """A chat endpoint that gives the answers of `served.answers` in turn, the last one for good."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append({"path": self.path, "key": self.headers["Authorization"], **body})
            status, content = (served.answers.pop(0) if len(served.answers) > 1 else served.answers[0])(body)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    served: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.asked, served.answers = [], []
    served.address = f"http://127.0.0.1:{served.server_port}/v1"
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join(timeout=20)


def said(text: str) -> Answer:
    return lambda _: (200, {"choices": [{"message": {"content": text}}]})


def reading(body: dict[str, Any]) -> tuple[int, Any]:
    """Answer as a careful reader would."""
    lines = body["messages"][1]["content"].split("Excerpts:\n")[1].splitlines()
    return said(f"Let me see [1, 2]. So: {[int('<<kite>>' in line) for line in lines]}")(body)


def test_a_chat_model_is_asked_five_texts_at_a_time(endpoint: Any) -> None:
    endpoint.answers = [reading]
    judge = ChatJudge(endpoint.address + "/", "tiny", key="k")
    assert judge("kites", held_out()) == [1.0] * 6 + [0.0] * 6
    assert [asked["messages"][1]["content"].count("\n") - 2 for asked in endpoint.asked] == [5, 5, 2]
    first = endpoint.asked[0]
    assert (first["path"], first["key"], first["model"]) == ("/v1/chat/completions", "Bearer k", "tiny")
    assert "Description: kites" in first["messages"][1]["content"]
    assert "1. a <<kite>>\\n" in first["messages"][1]["content"]


def test_what_may_go_better_is_tried_again(endpoint: Any) -> None:
    busy: Answer = lambda _: (429, {"error": "slow down"})  # noqa: E731
    endpoint.answers = [busy, said("I would rather not."), lambda _: (200, b"<html>"), reading]
    assert ChatJudge(endpoint.address, "tiny", wait=0.0)("kites", held_out(2)) == [1, 1, 0, 0]
    assert len(endpoint.asked) == 4 and endpoint.asked[0]["key"] is None


@pytest.mark.parametrize(
    ("answer", "message", "tries"),
    [
        (lambda _: (401, {"error": "no such key"}), "HTTP 401: .*no such key", 1),
        (lambda _: (503, {"error": "asleep"}), "HTTP 503: .*asleep.*tried 4 times", 4),
        (said("[1, 0]"), r"answered '\[1, 0\]', which is no list of 4 numbers.*tried 4 times", 4),
        (lambda _: (200, {"choices": []}), "no chat completion", 1),
    ],
)
def test_what_stays_wrong_is_said(endpoint: Any, answer: Answer, message: str, tries: int) -> None:
    endpoint.answers = [answer]
    with pytest.raises(CatalogError, match=message):
        ChatJudge(endpoint.address, "tiny", wait=0.0)("kites", held_out(2))
    assert len(endpoint.asked) == tries


def test_nobody_at_the_address_is_said(endpoint: Any) -> None:
    with pytest.raises(CatalogError, match=r"refused.*tried 4 times"):
        ChatJudge("http://127.0.0.1:1/v1", "tiny", wait=0.0)("kites", held_out(2))
    with pytest.raises(CatalogError, match="must begin with http"):
        ChatJudge("file:///etc/passwd", "tiny")


def test_excerpts_and_answers() -> None:
    assert excerpt({"example": 1, "position": 1, "start": 0, "tokens": ["a", "\t", "b"]}) == "a<<\\t>>b"
    assert excerpt({"example": 1, "position": 40, "start": 0, "tokens": ["a", "b"], "whole": True}) == "ab"
    with pytest.raises(CatalogError, match="is no text"):
        excerpt({"example": 1, "image": "images/1.png"})
    assert read_answers("as [0] or [0, 1.0,1]\n", 3) == [0, 1, 1]
    assert read_answers("[0, 1, 2]", 3) is None and read_answers("", 0) is None


def test_the_command_writes_scores(endpoint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    endpoint.answers = [reading]
    written(tmp_path)
    one = Explanations(tmp_path).add("latent", 1, "kites", "Ada")
    command = ["judge", str(tmp_path), "--endpoint", endpoint.address, "--model", "tiny", "--latents", "1"]
    assert cli.main(command) == 0
    assert "1.000" in capsys.readouterr().out and Explanations(tmp_path)[one.id].score == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--endpoint", "http://127.0.0.1:1"], "needs --model"),
        ([], "name one judge"),
        (["--endpoint", "http://127.0.0.1:1", "--live", "store"], "name one judge"),
        (["--endpoint", "http://127.0.0.1:1", "--model", "m", "--latents", "one"], "numbers with commas"),
        (["--endpoint", "http://127.0.0.1:1", "--model", "m", "--key-variable", "NO_SUCH_ONE"], "no such variable"),
    ],
)
def test_a_command_that_names_no_judge(tmp_path: Path, words: list[str], message: str, capsys: Any) -> None:
    written(tmp_path)
    assert cli.main(["judge", str(tmp_path), *words]) == 2
    assert message in capsys.readouterr().err
