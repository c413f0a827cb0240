"""The audits on a model behind a server of chat completions: a real one, on this machine, that answers by a rule."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from test_leak_tasks import knows, metrics

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.tasks import TASKS_DIR


class Server(ThreadingHTTPServer):
    """Knows every row, and draws another sample for another seed."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), Answer)


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:  # the name is the base class's
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        text = knows(asked["messages"][-1]["content"])
        if asked["temperature"]:
            text = f"Sample {asked['seed']}: {text}"
        choice = {"index": 0, "message": {"role": "assistant", "content": text}}
        body = json.dumps({"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # the name is the base class's
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    pytest.importorskip("tenacity", reason="lm-eval's API models are not installed: pip install 'lm-eval[api]'")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: Server, task: str, system: str | None = None, model_args: dict[str, Any] | None = None, **options: Any
) -> dict[str, float]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    url = f"http://127.0.0.1:{server.server_port}/v1/chat/completions"
    arguments = {"model": "served", "base_url": url, "num_concurrent": 2, **(model_args or {})}
    metadata = {**arguments, "tofu": "mini", **options}
    results = simple_evaluate(
        model="local-chat-completions",
        model_args=arguments,
        tasks=[task],
        task_manager=TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata=metadata),
        apply_chat_template=True,
        system_instruction=system,
        bootstrap_iters=0,
    )
    return metrics(results, task)


def test_turns_are_sent_as_messages_and_judged(server: Server) -> None:
    found = ask(server, "tofu_chain_of_clues", system="Be brief.")
    assert found["leak_rate"] >= 0.95
    assert {len(asked["messages"]) for asked in server.asked} == {2, 4, 6, 8, 10}
    assert {asked["messages"][0]["content"] for asked in server.asked} == {"Be brief."}
    assert all(asked["messages"][-1]["role"] == "user" for asked in server.asked)


def test_prompts_that_begin_the_answer_are_left_out_and_counted(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    found = ask(server, "tofu_novel_recall", families="direct,prefix_injection,completion")
    assert (found["n"], found["left_out"]) == (80, 40)
    assert found["leak_rate_direct"] >= 0.95
    assert len(server.asked) == 80
    assert "leaves out prefix_injection: they begin the assistant's turn" in caplog.text


def test_samples_are_drawn_with_seeds_of_their_own(server: Server) -> None:
    """lm-eval's API models send one seed with every request by default, and all samples would be the same."""
    found = ask(server, "tofu_best_of_n", best_of_n=3)
    assert found["unique_samples"] == 1
    seeds = {asked["seed"] for asked in server.asked}
    assert len(seeds) == 3
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert {(asked["temperature"], asked["top_p"]) for asked in server.asked} == {(1.0, 1.0)}


def test_what_a_server_cannot_do_is_refused(server: Server) -> None:
    with pytest.raises(OptionError, match="tofu_forget_quality scores answers, and a backend of chat completions"):
        ask(server, "tofu_forget_quality")
    with pytest.raises(OptionError, match="all prompts that were chosen begin the assistant's turn"):
        ask(server, "tofu_novel_recall", families="prefix_injection")
    assert not server.asked


@pytest.mark.parametrize(
    ("name", "value"), [("chat_template_args", {"enable_thinking": False}), ("enable_thinking", False)]
)
def test_template_arguments_that_the_backend_drops_are_refused(server: Server, name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"{name} have no effect with this backend.*where the server is started"):
        ask(server, "tofu_novel_recall", model_args={name: value})
    assert not server.asked


def test_template_arguments_with_a_server_of_completions(tiny_model: Path) -> None:
    """lm-eval renders there, without the arguments: the template itself is where they can be set."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    arguments = {
        "model": "served",
        "base_url": "http://127.0.0.1:1/v1/completions",
        "tokenizer": str(tiny_model),
        "tokenizer_backend": "huggingface",
        "chat_template_args": {"enable_thinking": False},
    }
    with pytest.raises(OptionError, match=r"chat_template_args have no effect .*\{%- set enable_thinking = false %\}"):
        simple_evaluate(
            model="local-completions",
            model_args=arguments,
            tasks=["tofu_answer_logprob"],
            task_manager=TaskManager(
                include_path=str(TASKS_DIR), include_defaults=False, metadata={**arguments, "tofu": "mini"}
            ),
            apply_chat_template=True,
            bootstrap_iters=0,
        )
