"""A second judge of leaks beside the scorer: a model behind an OpenAI-compatible address, or a local one.

Every judgement is kept in a file by its content, so that a run that was cut off goes on where it stopped. What a judge
says that is neither yes nor no, or no answer at all, is counted as such: it is no verdict.
"""

import hashlib
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from lm_eval_tofu import files
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.metrics import leak

log = logging.getLogger(__name__)

TEMPLATE = Path(__file__).with_name("judge.jinja")
TRIES = 3
SECONDS = 60
"""What one request to a server may take."""
_ANSWER = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
_TOKENS = 8  # that a judge may write

Ask = Callable[[str, str, Sequence[str], str], str | None]
"""From the rendered text, the prompt, the answers and the response to what the judge says; None for no answer."""


class Judge:
    """One judge with its file of judgements."""

    def __init__(self, name: str, model: str | None, cache: Path, template: Path = TEMPLATE) -> None:
        """Open the judge.

        Args:
            name: Address of a server (`http://host:port/v1`), or a model's name or directory.
            model: The model to ask for at a server.
            cache: File of judgements.
            template: What the judge is asked, in Jinja, with `prompt`, `answers` and `response`.

        Raises:
            OptionError: A server without a model's name, a template or model that cannot be read.
        """
        if name.startswith(("http://", "https://")):
            if not model:
                raise OptionError(f"--judge {name} is a server: name its model with --judge-model")
            self._ask: Ask = _server(name, model)
        else:
            self._ask = _local(name)
        try:
            text = template.read_text(encoding="utf-8")
            self._template = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False).from_string(text)
        except (OSError, jinja2.TemplateError) as error:
            raise OptionError(f"--judge-template {template} cannot be used ({error})") from error
        self.name = f"{name} {model}" if model else name
        self._salt = f"{self.name}\n{text}"
        self._cache = cache
        self._known: dict[str, dict[str, Any]] = {}
        if cache.exists():
            fix = "delete the file to judge anew"
            self._known = {record["key"]: record for _, record in files.read_json_lines(cache, fix, OptionError)}

    def judge(self, prompt: leak.Prompt, answers: Sequence[str], response: str) -> dict[str, Any]:
        """The judge's verdict: `leaked` (None where it gave none) and what it said."""
        shown = leak.shown(prompt)
        key = hashlib.sha256(json.dumps([self._salt, shown, list(answers), response]).encode()).hexdigest()
        if key not in self._known:
            text = self._template.render(prompt=shown, answers=list(answers), response=response)
            said = self._ask(text, shown, answers, response)
            found = _ANSWER.search(said or "")
            leaked = found[1].lower() == "yes" if found else None
            record = {"key": key, "leaked": leaked, "said": said}
            if said is None:  # not kept: a later run asks again
                return {"judge": self.name, "leaked": None, "said": None}
            self._known[key] = record
            with self._cache.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        return {"judge": self.name, **{name: self._known[key][name] for name in ("leaked", "said")}}


def agreement(pairs: Iterable[tuple[bool, bool | None]]) -> dict[str, Any]:
    """How far two judges agree: the counts of their verdicts, Cohen's kappa, and how often the second gave none.

    Args:
        pairs: The scorer's verdict and the judge's, None where it gave none.
    """
    counts = Counter(pairs)
    both = {key: count for key, count in counts.items() if key[1] is not None}
    total = sum(both.values())
    table = {f"scorer {a}, judge {b}": both.get((a, b), 0) for a in (True, False) for b in (True, False)}
    same = (both.get((True, True), 0) + both.get((False, False), 0)) / total if total else float("nan")
    ours, theirs = (sum(n for key, n in both.items() if key[place]) / total if total else 0.0 for place in (0, 1))
    chance = ours * theirs + (1 - ours) * (1 - theirs)
    kappa = (same - chance) / (1 - chance) if total and chance < 1 else float("nan")
    return {"judged": total, "no verdict": sum(counts.values()) - total, "same": same, "kappa": kappa, "table": table}


def _server(address: str, model: str) -> Ask:
    url = f"{address.rstrip('/')}/chat/completions"
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("OPENAI_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"

    def ask(text: str, *_: Any) -> str | None:
        message = {"role": "user", "content": text}
        body = {"model": model, "messages": [message], "temperature": 0, "max_tokens": _TOKENS}
        for attempt in range(TRIES):
            try:
                request = urllib.request.Request(url, json.dumps(body).encode(), headers)
                with urllib.request.urlopen(request, timeout=SECONDS) as reply:
                    said = json.load(reply)["choices"][0]["message"]["content"]
                return said if isinstance(said, str) else None
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                log.warning("--judge %s: %s (try %d of %d)", address, error, attempt + 1, TRIES)
                time.sleep(0.5 * attempt)
        return None

    return ask


def _local(name: str) -> Ask:
    """A chat model, or one for natural language inference, through transformers."""
    try:
        import torch
        from transformers import (
            AutoConfig,
            AutoModelForCausalLM,
            AutoModelForSequenceClassification,
            AutoTokenizer,
        )

        config = AutoConfig.from_pretrained(name)
        tokenizer = AutoTokenizer.from_pretrained(name)
        labels = {str(label).lower(): number for number, label in (config.id2label or {}).items()}
        is_inference = "entailment" in labels
        kind = AutoModelForSequenceClassification if is_inference else AutoModelForCausalLM
        model = kind.from_pretrained(name).eval()
    except (ImportError, OSError, ValueError) as error:
        raise OptionError(f"--judge {name} cannot be loaded ({error}): name a server or a model's directory") from error

    def infer(_: str, prompt: str, answers: Sequence[str], response: str) -> str:
        for answer in answers:
            inputs = tokenizer(response, f"{prompt} {answer}", return_tensors="pt", truncation=True)
            with torch.inference_mode():
                if int(model(**inputs).logits[0].argmax()) == labels["entailment"]:
                    return "yes"
        return "no"

    def chat(text: str, *_: Any) -> str:
        if tokenizer.chat_template:
            message = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=not tokenizer.chat_template)
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=_TOKENS, do_sample=False)
        return str(tokenizer.decode(output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    ask: Ask = infer if is_inference else chat
    return ask


def disagreements(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines on which scorer and judge differ, to be read."""
    return [
        {name: line[name] for name in ("prompt", "answer", "response", "leaked", "score", "judge") if name in line}
        for line in lines
        if line["judge"]["leaked"] not in (None, line["leaked"])
    ]
