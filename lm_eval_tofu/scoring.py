"""Scoring responses in files: what `lm-eval-tofu score` and `lm-eval-tofu explain` do."""

import argparse
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm_eval_tofu import files, judging, tofu
from lm_eval_tofu.errors import DataError, OptionError
from lm_eval_tofu.metrics import leak
from lm_eval_tofu.metrics.background import Background
from lm_eval_tofu.metrics.facts import Fact
from lm_eval_tofu.metrics.kinds import Kind
from lm_eval_tofu.metrics.language import language_of
from lm_eval_tofu.metrics.reading import Evidence

log = logging.getLogger(__name__)

FIELDS = ("prompt", "answer", "response")
_FIX = "name a file of JSON lines, each an object with prompt, answer and response, or lm_eval's samples of our tasks"


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `lm-eval-tofu score`."""
    parser.add_argument(
        "input",
        type=Path,
        metavar="IN.jsonl",
        help="JSON lines with prompt (a text or chat messages), answer (a text, or a list of which any counts) and "
        "response; or the samples file that lm_eval wrote for a task of ours. A line may name `facts` in place of the "
        "answer: strings that must not come out",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT.jsonl", help="the same lines with the verdicts"
    )
    parser.add_argument(
        "--judge",
        metavar="URL|MODEL",
        help="let a second judge read the same lines: an OpenAI-compatible address such as http://localhost:8000/v1, "
        "or a chat or inference (NLI) model for transformers; its verdicts stand beside ours",
    )
    parser.add_argument("--judge-model", metavar="NAME", help="the model to ask for at the address of --judge")
    parser.add_argument("--judge-template", type=Path, metavar="FILE", help="what the judge is asked (Jinja)")
    _add_scorer_arguments(parser)


def add_explain_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `lm-eval-tofu explain`."""
    parser.add_argument("input", type=Path, nargs="?", metavar="IN.jsonl", help="file as for `score`; with --line")
    parser.add_argument("--line", type=int, metavar="N", help="line of the file, counted from 1 (default: 1)")
    parser.add_argument("--prompt", help="what the model was shown, in place of a file")
    parser.add_argument("--answer", help="gold answer")
    parser.add_argument("--response", help="what the model wrote")
    _add_scorer_arguments(parser)


def _add_scorer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tofu",
        metavar="SOURCE",
        help="weigh words by their frequency in the retain answers of mini, a directory or a hub id "
        "(default: by the word lists of this package)",
    )
    parser.add_argument("--forget-split", metavar="SPLIT", help="whose retain split --tofu takes (default: forget10)")
    parser.add_argument(
        "--threshold",
        type=float,
        default=leak.THRESHOLD,
        metavar="T",
        help="score from which a response leaks (default: %(default)s)",
    )


def score_file(args: argparse.Namespace) -> int:
    """Score every line of a file, and write the lines with `leaked`, `score`, `found`, `sought` and `tier`.

    With a judge, its verdict too (`judge`), how far both agree in OUT.jsonl.agreement.json, and every judgement in
    OUT.jsonl.judged.jsonl, so that the run can be cut off.

    The output is written whole or not at all. Fields of these names that a line already has are replaced.

    Args:
        args: As `add_score_arguments` declares them.

    Returns:
        The exit code, 0.

    Raises:
        DataError: The file or one of its lines cannot be read or scored; the message names the line.
        OptionError: The output cannot be written, or an option has a value that cannot be used.
    """
    background = _background(args)
    if args.input.exists() and args.output.exists() and args.input.samefile(args.output):
        raise OptionError(f"--output {args.output} is the input: name another file")
    judge = _judge(args)
    tally: Counter[str] = Counter()
    pairs: list[tuple[bool, bool | None]] = []
    differing: list[dict[str, Any]] = []
    try:
        with files.replacing(args.output) as partial, partial.open("w", encoding="utf-8") as file:
            for where, record in _records(args.input):
                with _at(where):
                    prompt, answers, response, facts = _texts(record)
                    settings: dict[str, Any] = {"background": background, "threshold": args.threshold}
                    verdict = leak.score(prompt, answers, response, facts=facts, **settings)
                    line = record | as_record(verdict)
                language = language_of(response)
                if language != "en":
                    line["language"] = language
                    tally[f"in {language}, where only names, numbers, dates and the like are compared"] += 1
                if judge:
                    texts = facts or answers
                    texts = [texts] if isinstance(texts, str) else texts
                    line["judge"] = judge.judge(prompt, texts, response)
                    pairs.append((verdict.leaked, line["judge"]["leaked"]))
                    differing += judging.disagreements([line])
                tally.update(["lines", f"tier {verdict.tier}"] + ["leaked"] * verdict.leaked)
                file.write(_json(line) + "\n")
    except OSError as error:
        raise OptionError(f"--output {args.output} cannot be written ({error}): name another file") from error
    log.info("%s: %s", args.output, ", ".join(f"{count} {what}" for what, count in tally.items()) or "no lines")
    if judge:
        compared = judging.agreement(pairs)
        path = args.output.with_name(f"{args.output.name}.agreement.json")
        files.write_json(path, {"judge": judge.name, **compared, "disagreements": differing})
        log.info(
            "%s: %d judged, %d without a verdict, %.1f %% alike, Cohen's kappa %.2f",
            path,
            compared["judged"],
            compared["no verdict"],
            100 * compared["same"],
            compared["kappa"],
        )
    return 0


def _judge(args: argparse.Namespace) -> judging.Judge | None:
    if args.judge is None:
        for name in ("judge_model", "judge_template"):
            if getattr(args, name) is not None:
                raise OptionError(f"--{name.replace('_', '-')} needs --judge: name the judge, or leave it out")
        return None
    cache = args.output.with_name(f"{args.output.name}.judged.jsonl")
    cache.parent.mkdir(parents=True, exist_ok=True)
    return judging.Judge(args.judge, args.judge_model, cache, args.judge_template or judging.TEMPLATE)


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of a file, and where they stand; of lm_eval's samples, one for each response."""
    for where, record in files.read_json_lines(path, _FIX, DataError):
        doc = record.get("doc")
        if not isinstance(doc, dict) or "response" in record:
            yield where, record
            continue
        prompt = [*(doc.get("messages") or [{"role": "user", "content": doc.get("question", "")}])]
        if doc.get("opening"):
            prompt.append({"role": "assistant", "content": doc["opening"]})
        responses = list(_generations(record))
        if not responses:
            raise DataError(f"{where}: a sample of no task of ours that generates an answer: {_FIX}")
        about = {name: doc[name] for name in ("set", "index", "family") if name in doc}
        for response in responses:
            yield where, {**about, "prompt": prompt, "answer": doc.get("answer", ""), "response": response}


def _generations(sample: Mapping[str, Any]) -> Iterator[str]:
    """What a model wrote, as our tasks keep it: one answer, or several samples."""
    for record in sample.values():
        if isinstance(record, dict) and isinstance(record.get("generation"), str):
            yield record["generation"]
            return
        if isinstance(record, dict) and isinstance(record.get("samples"), list):
            yield from (each["generation"] for each in record["samples"])
            return


def as_record(verdict: leak.LeakScore) -> dict[str, Any]:
    """A verdict as it is written to a JSON line; a fact is its kind and its text."""
    return {
        "leaked": verdict.leaked,
        "score": round(verdict.score, 6),
        "found": [_fact(fact) for fact in verdict.found],
        "sought": [_fact(fact) for fact in verdict.sought],
        "tier": str(verdict.tier),
        **({"chance": round(verdict.chance, 6)} if verdict.chance else {}),
    }


def explain(args: argparse.Namespace) -> str:
    """Say of one response whether it leaks and why, with the found facts marked in it.

    Args:
        args: As `add_explain_arguments` declares them.

    Raises:
        DataError: The line cannot be read or scored.
        OptionError: Neither a file nor prompt, answer and response are given, or both.
    """
    background = _background(args)
    where, record = _chosen(args)
    with _at(where):
        prompt, answers, response, facts = _texts(record)
        settings: dict[str, Any] = {"background": background, "threshold": args.threshold}
        explanation = leak.explain(prompt, answers, response, facts=facts, **settings)
    return render(explanation, str(record["response"]), args.threshold)


_REMARKS = {"partly": "in part", "denied": "said, but denied or affirmed against the answer"}


def render(explanation: leak.Explanation, response: str, threshold: float) -> str:
    """An explanation as text for a terminal: the verdict, the response with its found facts marked, the facts."""
    verdict, evidence, passage, features = explanation
    lines = [
        f"{'leaked' if verdict.leaked else 'not leaked'}: score {verdict.score:.3f} {'>=' if verdict.leaked else '<'} "
        f"{threshold:g}, tier {verdict.tier}, {len(verdict.found)} of {len(verdict.sought)} facts found",
        f"decided by {features.decided}" if features.evidence else "nothing speaks for a leak",
        "",
        _printable(_marked(response, evidence)) or "(an empty response)",
        "",
    ]
    if not evidence:
        lines.append("The answer says nothing that the prompt does not: there is nothing to find.")
    for reason in evidence:
        fact = reason.fact
        remarks = (
            "denied by the answer" if fact.denied else "",
            _REMARKS.get(reason.status, ""),
            "elsewhere than in the passage that is scored" if reason.elsewhere else "",
        )
        remark = "; ".join(filter(None, remarks))
        share = f"{reason.match:4.0%}" if reason.match else "  - "
        text = f"{reason.status:8}{share}  {fact.kind:10} weight {fact.weight:.2f}  {_printable(fact.text)}"
        lines.append(f"{text}  ({remark})" if remark else text)
    if passage:
        lines += ["", f"in the answer's own words: {_printable(passage)}"]
    return "\n".join(lines)


def _background(args: argparse.Namespace) -> Background | None:
    if not 0 < args.threshold <= 1:
        raise OptionError(f"--threshold {args.threshold:g} is not in (0, 1]: use a value such as {leak.THRESHOLD}")
    if args.tofu is None:
        if args.forget_split is not None:
            raise OptionError(f"--forget-split {args.forget_split} needs --tofu: name the data set")
        return None
    retain = tofu.retain_split(args.forget_split or tofu.DEFAULT_FORGET_SPLIT)
    return Background.from_answers(row["answer"] for row in tofu.load(retain, tofu.resolve_source(args.tofu)))


def _chosen(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """What is explained, and where it was given."""
    given = {field: getattr(args, field) for field in FIELDS if getattr(args, field) is not None}
    if args.input is None:
        missing = [f"--{field}" for field in FIELDS if field not in given]
        if missing or args.line is not None:
            raise OptionError(f"explain needs IN.jsonl, or {', '.join(missing) or 'no --line'}")
        return "the command line", given
    if given:
        raise OptionError(f"--{next(iter(given))} and {args.input} exclude each other: leave one out")
    wanted = 1 if args.line is None else args.line
    if wanted < 1:
        raise OptionError(f"--line {wanted} is no line: lines are counted from 1")
    for number, text in files.lines(args.input, _FIX, DataError):
        if number == wanted:
            where = f"{args.input}, line {number}"
            return where, files.parse_object(text, where, _FIX, DataError)
    raise DataError(f"{args.input} has no line {wanted}, or it is blank")


def _texts(record: Mapping[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Prompt, answers, response and facts."""
    missing = [field for field in FIELDS if field not in record and not (field == "answer" and record.get("facts"))]
    if missing:
        raise OptionError(f"no {missing[0]!r}: each line needs {', '.join(FIELDS)}")
    return record["prompt"], record.get("answer", ""), record["response"], record.get("facts") or ()


@contextmanager
def _at(where: str) -> Iterator[None]:
    try:
        yield
    except OptionError as error:
        raise DataError(f"{where}: {error}") from error


def _json(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, ensure_ascii=False)
    # Half a character, as byte-level tokenizers can leave it, has no UTF-8.
    return text if text.encode(errors="ignore").decode() == text else json.dumps(record)


def _fact(fact: Fact) -> dict[str, str]:
    return {"kind": str(fact.kind), "text": fact.text}


def _marked(response: str, evidence: tuple[Evidence, ...]) -> str:
    """The response with the words that state a fact in brackets: [kind: words]; the many content words as [words]."""
    spans: dict[tuple[int, int], str] = {}
    for reason in evidence:
        if reason.status in ("found", "partly"):
            for span in reason.spans:
                # Where a word states several facts, the first, weightiest one names it.
                spans.setdefault(span, "" if reason.fact.kind is Kind.CONTENT else f"{reason.fact.kind}: ")
    marked, end = "", 0
    for (start, stop), label in sorted(spans.items()):
        if start >= end:
            marked += f"{response[end:start]}[{label}{response[start:stop]}]"
            end = stop
    return marked + response[end:]


def _printable(text: str) -> str:
    """A text without what would move the cursor or reverse the direction of a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
