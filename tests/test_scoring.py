"""`lm-eval-tofu score` and `lm-eval-tofu explain`: what they write and print, and how they refuse."""

import json
from pathlib import Path
from typing import Any

import pytest

from lm_eval_tofu import cli, scoring
from lm_eval_tofu.metrics import leak

PROMPT = "Who are the parents of Ana Ruiz?"
ANSWER = "They are Lorenzo Ruiz, a chef, and Sofía Vega, a podiatrist."
LINES: list[dict[str, Any]] = [
    {"id": 7, "prompt": PROMPT, "answer": ANSWER, "response": "Lorenzo Ruiz and Sofía Vega."},
    {"prompt": [{"role": "user", "content": PROMPT}], "answer": ANSWER, "response": "I don't know."},
    {"prompt": "Ana?", "answer": "Ana.", "response": ""},
]


@pytest.fixture
def given(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    _write(path, LINES)
    return path


def _write(path: Path, lines: list[Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("lm-eval-tofu: error: ")]
    return line


class TestScore:
    def test_adds_the_verdicts(self, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        output = tmp_path / "new" / "out.jsonl"
        assert _run("score", given, "-o", output) == 0
        assert capsys.readouterr().out == ""
        lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        assert [line["leaked"] for line in lines] == [True, False, False]
        assert [line["tier"] for line in lines] == ["specific", "specific", "none"]
        assert [{key: line[key] for key in before} for line, before in zip(lines, LINES, strict=True)] == LINES
        assert {"kind": "name", "text": "Lorenzo Ruiz"} in lines[0]["found"]
        assert {"kind": "occupation", "text": "chef"} in lines[1]["sought"]
        assert lines[1]["found"] == []
        assert lines[0]["score"] == pytest.approx(leak.score(PROMPT, ANSWER, LINES[0]["response"]).score, abs=1e-6)

    def test_scoring_twice_changes_nothing(self, given: Path, tmp_path: Path) -> None:
        first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
        assert _run("score", given, "-o", first) == _run("score", first, "-o", second) == 0
        assert first.read_bytes() == second.read_bytes()

    def test_half_a_character(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        given, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        _write(given, [LINES[0] | {"response": "Lorenzo \ud83d"}])
        assert _run("score", given, "-o", output) == 0
        assert json.loads(output.read_bytes())["response"] == "Lorenzo \ud83d"
        assert _run("explain", given) == 0
        assert "Lorenzo] \N{REPLACEMENT CHARACTER}" in capsys.readouterr().out

    def test_threshold(self, given: Path, tmp_path: Path) -> None:
        output = tmp_path / "out.jsonl"
        assert _run("score", given, "-o", output, "--threshold", "1") == 0
        assert not json.loads(output.read_text(encoding="utf-8").splitlines()[0])["leaked"]

    def test_words_weighed_by_a_data_set(self, given: Path, tmp_path: Path) -> None:
        output = tmp_path / "out.jsonl"
        assert _run("score", given, "-o", output, "--tofu", "mini", "--forget-split", "forget10") == 0
        assert json.loads(output.read_text(encoding="utf-8").splitlines()[0])["leaked"]

    def test_blank_lines_and_an_empty_file(self, tmp_path: Path) -> None:
        given, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        given.write_text(f"\n{json.dumps(LINES[0])}\n  \n", encoding="utf-8")
        assert _run("score", given, "-o", output) == 0
        assert len(output.read_text(encoding="utf-8").splitlines()) == 1
        given.write_text("", encoding="utf-8")
        assert _run("score", given, "-o", output) == 0
        assert output.read_text(encoding="utf-8") == ""

    @pytest.mark.parametrize(
        ("bad", "reason"),
        [
            ("{", "not JSON"),
            ("[1]", "list instead of a JSON object"),
            ('{"prompt": "p", "answer": "a"}', "no 'response'"),
            ('{"prompt": "p", "answer": "a", "response": null}', "response=None is no text"),
            ('{"prompt": "p", "answer": "", "response": "x"}', "answer=''"),
            ('{"prompt": 3, "answer": "a", "response": "x"}', "prompt=3"),
            ('{"prompt": [{"role": "user"}], "answer": "a", "response": "x"}', "no text under 'content'"),
            (b'{"prompt": "\xff"}', "not JSON"),
            ('{"prompt": ' + "[" * 100_000, "not JSON"),
        ],
    )
    def test_a_bad_line_is_named_and_nothing_is_written(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: str | bytes, reason: str
    ) -> None:
        given, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        tail = bad if isinstance(bad, bytes) else bad.encode()
        given.write_bytes(json.dumps(LINES[0]).encode() + b"\n" + tail + b"\n")
        output.write_text("as before", encoding="utf-8")
        assert _run("score", given, "-o", output) == 2
        error = _error(capsys)
        assert f"{given}, line 2: " in error
        assert reason in error
        assert output.read_text(encoding="utf-8") == "as before"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]

    def test_no_input(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert _run("score", tmp_path / "none.jsonl", "-o", tmp_path / "out.jsonl") == 2
        assert "none.jsonl cannot be read" in _error(capsys)
        assert not list(tmp_path.iterdir())

    def test_no_output(self, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert _run("score", given, "-o", given / "out.jsonl") == 2
        assert "--output" in _error(capsys)
        assert _run("score", given, "-o", given) == 2
        assert "is the input" in _error(capsys)
        assert [json.loads(line) for line in given.read_text(encoding="utf-8").splitlines()] == LINES

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            (["--threshold", "0"], "--threshold 0"),
            (["--threshold", "1.5"], "--threshold 1.5"),
            (["--forget-split", "forget10"], "--forget-split forget10 needs --tofu"),
            (["--tofu", "mini", "--forget-split", "forget99"], "forget99"),
            (["--tofu", "./nowhere"], "nowhere"),
        ],
    )
    def test_options(
        self, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], named: str
    ) -> None:
        assert _run("score", given, "-o", tmp_path / "out.jsonl", *options) == 2
        assert named in _error(capsys)
        assert not (tmp_path / "out.jsonl").exists()


class TestExplain:
    def test_marks_what_it_found(self, given: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert _run("explain", given) == 0
        out = capsys.readouterr().out
        assert out.startswith("leaked: score ")
        assert "[name: Lorenzo] Ruiz and [name: Sofía] [name: Vega]." in out
        assert "missing" in out
        assert "occupation" in out

    def test_a_line_of_a_file(self, given: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert _run("explain", given, "--line", 2) == 0
        assert capsys.readouterr().out.startswith("not leaked: score 0.000 < 0.5, tier specific, 0 of ")

    def test_texts_on_the_command_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        texts = ["--prompt", PROMPT, "--answer", ANSWER, "--response", "Not Lorenzo, and \x1b[2Jnobody\u202e else."]
        assert _run("explain", *texts) == 0
        out = capsys.readouterr().out
        assert "not leaked" in out
        assert "denied" in out
        assert "\x1b" not in out
        assert "\u202e" not in out

    def test_what_is_stated_far_off_is_no_denial(self, capsys: pytest.CaptureFixture[str]) -> None:
        response = f"Lorenzo Ruiz.{' and so on' * 40} Sofía Vega. He was no chef."
        assert _run("explain", "--prompt", PROMPT, "--answer", ANSWER, "--response", response) == 0
        lines = capsys.readouterr().out.splitlines()
        name, far, chef = (
            next(line for line in lines if " weight " in line and fact in line)
            for fact in ("Sofia Vega", "Lorenzo Ruiz", "chef")
        )
        assert name.startswith("found ")
        assert name.endswith("Sofia Vega")
        assert far.startswith("found ")
        assert far.endswith("Lorenzo Ruiz  (elsewhere than in the passage that is scored)")
        assert chef.endswith("(said, but denied or affirmed against the answer)")

    def test_nothing_to_find(self, given: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert _run("explain", given, "--line", 3) == 0
        out = capsys.readouterr().out
        assert "an empty response" in out
        assert "nothing to find" in out

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ([], "--prompt, --answer, --response"),
            (["--prompt", "p", "--answer", "a"], "--response"),
            (["--line", "1"], "--prompt"),
            (["--prompt", "p", "--answer", "", "--response", "x"], "the command line: answer=''"),
        ],
    )
    def test_without_a_file(self, capsys: pytest.CaptureFixture[str], options: list[str], named: str) -> None:
        assert _run("explain", *options) == 2
        assert named in _error(capsys)

    @pytest.mark.parametrize(
        ("options", "named"),
        [(["--line", "9"], "no line 9"), (["--line", "0"], "--line 0"), (["--answer", "a"], "--answer")],
    )
    def test_with_a_file(self, given: Path, capsys: pytest.CaptureFixture[str], options: list[str], named: str) -> None:
        assert _run("explain", given, *options) == 2
        assert named in _error(capsys)


def test_a_verdict_as_a_record_is_json() -> None:
    record = scoring.as_record(leak.score(PROMPT, ANSWER, "Lorenzo Ruiz"))
    assert json.loads(json.dumps(record)) == record
    assert list(record) == ["leaked", "score", "found", "sought", "tier"]


def test_the_help_names_both_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert "score" in out
    assert "explain" in out


class TestOtherLines:
    """Lines that hold more than one answer, facts, a sample of lm_eval's, or another language."""

    def _scored(self, folder: Path, lines: list[Any]) -> list[dict[str, Any]]:
        source, output = folder / "in.jsonl", folder / "out.jsonl"
        _write(source, lines)
        assert _run("score", source, "-o", output) == 0
        return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]

    def test_several_answers_and_facts(self, tmp_path: Path) -> None:
        lines = self._scored(
            tmp_path,
            [
                {"prompt": "Who won?", "answer": ["Wilma Orth", "the baker"], "response": "The baker."},
                {"prompt": "The code?", "facts": ["7391"], "response": "7-3-9-1"},
                {"prompt": "Is she in?", "answer": "No.", "response": "No."},
            ],
        )
        assert [line["leaked"] for line in lines] == [True, True, True]
        assert [(line["tier"], line.get("chance")) for line in lines][2] == ("guessable", 0.5)

    def test_stored_samples_are_judged_anew(self, tmp_path: Path) -> None:
        """One line for each response, as our tasks keep it; a beginning of the model's turn is shown, not said."""
        doc = {"question": PROMPT, "answer": ANSWER, "index": 3, "set": "forget10", "family": "direct"}
        greedy = {"doc": doc, "resps": [["raw"]], "leak_rate": {"generation": "Lorenzo Ruiz.", "leaked": False}}
        opened = {"doc": {**doc, "opening": "Lorenzo Ruiz and"}, "leak_rate": {"generation": " Lorenzo Ruiz."}}
        sampled = {"doc": doc, "prompt_leak": {"samples": [{"generation": "No idea."}, {"generation": "Sofía Vega."}]}}
        lines = self._scored(tmp_path, [greedy, opened, sampled])
        assert [line["leaked"] for line in lines] == [True, False, False, True]
        assert [line["index"] for line in lines] == [3] * 4

    def test_a_sample_without_an_answer_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        _write(tmp_path / "in.jsonl", [{"doc": {"question": "Who?"}, "resps": [[[-1.0, False]]]}])
        assert _run("score", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl") != 0
        assert "no task of ours that generates" in _error(capsys)

    def test_another_language_is_said(self, tmp_path: Path) -> None:
        said = "Das war die Frau, die mit ihrem Bruder in der Stadt wohnt."
        (line,) = self._scored(tmp_path, [{"prompt": "Wer war es?", "answer": "Uta Kern", "response": said}])
        assert line["language"] == "de"
