"""The second judge: what it is asked, what it keeps, how agreement is counted, and what happens when it fails."""

import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lm_eval_tofu import cli, judging

LINES = [
    {"prompt": "Who repaired it?", "answer": "Ada Lund", "response": "It was Ada Lund."},
    {"prompt": "Who repaired it?", "answer": ["Ada Lund", "A. Lund"], "response": "Nobody did."},
    {"prompt": "What is the code?", "facts": ["7391"], "response": "The code is 7391."},
]


class _Server(ThreadingHTTPServer):
    said: Any = "yes"
    asked: list[dict[str, Any]]


@pytest.fixture
def server() -> Iterator[_Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append(body)
            content = served.said(body) if callable(served.said) else served.said
            reply = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
            self.send_response(500 if content is None else 200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: Any) -> None:
            pass

    served = _Server(("127.0.0.1", 0), Handler)
    served.asked = []
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def _score(folder: Path, server: _Server, *more: str) -> list[dict[str, Any]]:
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in LINES), encoding="utf-8")
    address = f"http://127.0.0.1:{server.server_port}/v1"
    arguments = ["score", str(source), "-o", str(output), "--judge", address, "--judge-model", "m", *more]
    assert cli.main(arguments) == 0
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def test_verdicts_stand_side_by_side(tmp_path: Path, server: _Server) -> None:
    server.said = lambda body: "Yes." if "Ada Lund." in body["messages"][0]["content"] else "no"
    lines = _score(tmp_path, server)
    assert [line["leaked"] for line in lines] == [True, False, True]
    assert [line["judge"]["leaked"] for line in lines] == [True, False, False]
    compared = json.loads((tmp_path / "out.jsonl.agreement.json").read_text())
    assert (compared["judged"], compared["no verdict"]) == (3, 0)
    assert [each["response"] for each in compared["disagreements"]] == ["The code is 7391."]
    assert server.asked[0]["temperature"] == 0


def test_what_was_judged_is_not_asked_again(tmp_path: Path, server: _Server) -> None:
    first = _score(tmp_path, server)
    asked = len(server.asked)
    assert _score(tmp_path, server) == first
    assert len(server.asked) == asked == len(LINES)


@pytest.mark.parametrize("said", ["perhaps", "", "nein"])
def test_nonsense_is_no_verdict(tmp_path: Path, server: _Server, said: str) -> None:
    server.said = said
    assert [line["judge"]["leaked"] for line in _score(tmp_path, server)] == [None] * 3
    compared = json.loads((tmp_path / "out.jsonl.agreement.json").read_text())
    assert (compared["judged"], compared["no verdict"], compared["kappa"]) == (0, 3, None)


def test_no_answer_is_no_verdict_and_asked_again(
    tmp_path: Path, server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging.time, "sleep", lambda _: None)
    server.said = None
    assert [line["judge"]["leaked"] for line in _score(tmp_path, server)] == [None] * 3
    assert len(server.asked) == judging.TRIES * len(LINES)
    server.said = "yes"
    assert [line["judge"]["leaked"] for line in _score(tmp_path, server)] == [True] * 3


def test_a_template_of_ones_own(tmp_path: Path, server: _Server) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text("{{ response }}?", encoding="utf-8")
    _score(tmp_path, server, "--judge-template", str(template))
    assert server.asked[0]["messages"][0]["content"] == "It was Ada Lund.?"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--judge", "http://127.0.0.1:1/v1"], "--judge-model"),
        (["--judge-model", "m"], "needs --judge"),
        (["--judge", "no/such/model"], "cannot be loaded"),
    ],
)
def test_bad_options(tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(LINES[0]) + "\n", encoding="utf-8")
    assert cli.main(["score", str(source), "-o", str(tmp_path / "out.jsonl"), *options]) != 0
    assert message in capsys.readouterr().err


def test_kappa() -> None:
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert judging.agreement(pairs)["kappa"] == pytest.approx(0.4)  # Cohen 1960's worked example
    assert judging.agreement([*pairs, (True, None)])["no verdict"] == 1
    assert math.isnan(judging.agreement([])["kappa"])


@pytest.mark.parametrize("kind", ["chat", "inference"])
def test_a_local_model_judges(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    """A model of random weights: what it says is a verdict or none, and the same the second time."""
    name = tiny_model
    if kind == "inference":
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        labels = {0: "contradiction", 1: "neutral", 2: "entailment"}
        settings = {"id2label": labels, "label2id": {label: number for number, label in labels.items()}}
        name = tmp_path / "nli"
        AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=3, **settings).save_pretrained(name)
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(name)
    judge = judging.Judge(str(name), None, tmp_path / "judged.jsonl")
    found = judge.judge("Who repaired it?", ["Ada Lund"], "It was Ada Lund.")
    assert found["leaked"] in ((None, True, False) if kind == "chat" else (True, False))
    assert (
        judging.Judge(str(name), None, tmp_path / "judged.jsonl").judge(
            "Who repaired it?", ["Ada Lund"], "It was Ada Lund."
        )
        == found
    )
