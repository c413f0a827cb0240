"""Time and peak memory of one NPO step: ours, the usual form, and the usual form with one of our measures.

    python benchmarks/npo_step.py [--models nano smollm2] [--smollm2 DIR] [--tofu mini] [--batch 8] [--steps 6]

The usual form keeps a deep copy of the model as reference and evaluates it at every step, projects every token onto the
vocabulary, and runs forget and retain rows through the model one after the other, then back through both. What can be
changed about it:

    cached       the reference's log-probabilities are computed once, before the first step
    unmasked     no attention mask: the padding stands on the right, where causal attention does not look
    answers      only positions that predict an answer token are projected onto the vocabulary
    joined       forget and retain rows go through the model in one batch

Ours takes the first three. In place of the fourth it goes forward and back with the forget rows, then with the retain
rows, so that only the activations of one kind are in memory; `ours, joined` (`joint_pass`) does not.

All forms see the same batches and the same optimizer, so their losses must be the same. Each runs in a process of its
own, one after the other. Memory is the process's peak resident set less its peak before the model was loaded, when a
toy model had already made every library load what it needs. Processor time is the steadier figure where other programs
run. Writes `benchmarks/npo_step.json` and the tables of docs/training.md.
"""

import argparse
import copy
import functools
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from parity import ROOT, show

from lm_eval_tofu import files

TIME_TARGET, MEMORY_TARGET, LOSS_TOLERANCE = 0.75, 0.7, 1e-4
ALPHA, BETA = 1.0, 0.1
LEARNING_RATES = {"nano": 1e-3, "smollm2": 1e-5}
MODELS = {"nano": "The nano model", "smollm2": "SmolLM2-135M-Instruct"}
JSON = ROOT / "benchmarks" / "npo_step.json"
WARM_UP = 1
"""Steps that do not count: the first allocates the optimizer's state."""


class Form(NamedTuple):
    """Which measures a form takes; see the module."""

    cached: bool
    unmasked: bool
    answers: bool
    joined: bool


FORMS = {
    "usual": Form(False, False, False, False),
    "usual + cached": Form(True, False, False, False),
    "usual + unmasked": Form(False, True, False, False),
    "usual + answers": Form(False, False, True, False),
    "usual + joined": Form(False, False, False, True),
    "ours, joined": Form(True, True, True, True),
    "ours": Form(True, True, True, False),
}
"""Ours are `UnlearningTrainer.training_step` itself, with `joint_pass` on and off; the others are written here."""


def usual_logprobs(model: Any, inputs: dict[str, Any], unmasked: bool = False) -> Any:
    """log pi(y|x) of each row from the logits of all its tokens."""
    import torch.nn.functional as F  # noqa: N812

    from lm_eval_tofu.unlearn.data import IGNORED

    mask = None if unmasked else inputs["attention_mask"]
    logits = model(input_ids=inputs["input_ids"], attention_mask=mask, use_cache=False).logits
    # As transformers' own loss does it: the labels are shifted, not the logits, which spares a copy of them.
    labels = F.pad(inputs["labels"], (0, 1), value=IGNORED)[:, 1:]
    each = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
    return -each.view_as(labels).sum(dim=1)


def answer_logprobs(model: Any, inputs: dict[str, Any]) -> Any:
    """The same from the logits of the answer's positions alone."""
    from lm_eval_tofu.unlearn import loss

    tokens = loss.answer_tokens(inputs["labels"])
    return loss.answer_logprobs(loss.answer_logits(model, model.get_output_embeddings(), inputs, tokens), tokens)


def part(inputs: dict[str, Any], rows: slice) -> dict[str, Any]:
    """Some rows of a batch, cut to their own longest, as a collator would have made them."""
    chosen = {name: tensor[rows] for name, tensor in inputs.items() if name != "index"}
    longest = int(chosen["attention_mask"].sum(dim=1).max())
    return {name: tensor[:, :longest] for name, tensor in chosen.items()}


def child(form: Form, ours: bool, name: str, model_path: str, tofu_name: str, batch: int, steps: int) -> dict[str, Any]:
    """Run one form in this process."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from lm_eval_tofu import tofu
    from lm_eval_tofu.chat import Prompting
    from lm_eval_tofu.unlearn import loss
    from lm_eval_tofu.unlearn.data import IGNORED, encode_rows
    from lm_eval_tofu.unlearn.models import pad_token_id
    from lm_eval_tofu.unlearn.trainer import PairCollator, PairedRows, UnlearningConfig, UnlearningTrainer

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    source = tofu.resolve_source(tofu_name)
    forget, retain = (
        encode_rows(tokenizer, tofu.load(split, source), Prompting(apply_chat_template=True))
        for split in ("forget10", "retain90")
    )
    generator = torch.Generator().manual_seed(0)
    order = torch.cat(
        [torch.randperm(len(forget), generator=generator) for _ in range(1 + steps * batch // len(forget))]
    )
    pairs = PairedRows(forget, retain, seed=0)
    collate = PairCollator(pad_token_id(tokenizer))
    batches = [collate([pairs[int(i)] for i in order[n * batch : (n + 1) * batch]]) for n in range(steps)]

    def trainer_of(model: Any, folder: str) -> UnlearningTrainer:
        config = UnlearningConfig(
            output_dir=folder,
            alpha=ALPHA,
            beta=BETA,
            per_device_train_batch_size=batch,
            joint_pass=form.joined,
            report_to="none",
            use_cpu=True,
        )
        return UnlearningTrainer(model, config, forget, retain, pad_token_id(tokenizer))

    with tempfile.TemporaryDirectory() as folder:
        toy = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=8,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=1,
                pad_token_id=None,
            )
        ).train()
        trainer = trainer_of(toy, folder)
        trainer.reference_logprobs = torch.zeros(len(forget))
        short = {name: tensor[:, :8] for name, tensor in collate([pairs[0]]).items() if name != "index"}
        short["labels"] = short["input_ids"]
        toy_optimizer = torch.optim.AdamW(toy.parameters())
        (usual_logprobs(toy, short).sum() + answer_logprobs(toy, short).sum()).backward()
        toy_optimizer.step()
        del toy, trainer, toy_optimizer, short
    gc.collect()
    baseline = peak()

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATES[name], weight_decay=0.01)
    if form.answers:
        logprobs: Any = answer_logprobs
        if not form.unmasked:
            loss._needed_mask = lambda mask: mask
    else:
        logprobs = functools.partial(usual_logprobs, unmasked=form.unmasked)
    once = time.perf_counter()
    trainer = reference_values = reference_model = None
    if ours:
        with tempfile.TemporaryDirectory() as folder:
            trainer = trainer_of(model, folder)
            trainer.reference_logprobs = trainer.compute_reference()
    elif form.cached:
        values = []
        for start in range(0, len(forget), batch):
            rows = [pairs[index] for index in range(start, min(start + batch, len(forget)))]
            with torch.no_grad():
                values.append(logprobs(model, part(collate(rows), slice(len(rows)))))
        reference_values = torch.cat(values)
    else:
        reference_model = copy.deepcopy(model).eval().requires_grad_(False)
    once = time.perf_counter() - once

    losses, seconds, processor = [], [], []
    for inputs in batches:
        start, used = time.perf_counter(), time.process_time()
        if trainer is not None:
            _, totals = trainer.get_batch_samples(iter([inputs]), 1, "cpu")
            value = trainer.training_step(model, inputs, totals)
        else:
            apart = part(inputs, slice(batch)), part(inputs, slice(batch, None))
            if form.joined:
                found = logprobs(model, inputs)
                forgotten, kept = found[:batch], found[batch:]
            else:
                forgotten, kept = (logprobs(model, rows) for rows in apart)
            if reference_values is not None:
                reference = reference_values[inputs["index"]]
            else:
                with torch.no_grad():
                    reference = logprobs(reference_model, apart[0])
            tokens = (inputs["labels"][batch:, 1:] != IGNORED).sum()
            value = loss.npo_loss(forgotten, reference, BETA).mean() + ALPHA * -kept.sum() / tokens
            value.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    answer = sum(int((b["labels"][:, 1:] != IGNORED).sum()) for b in batches)
    return {
        "seconds a step": statistics.median(seconds[WARM_UP:]),
        "processor seconds a step": statistics.median(processor[WARM_UP:]),
        "all seconds": seconds,
        "once, seconds": once,
        "peak memory, MiB": peak() - baseline,
        "losses": losses,
        "tokens a step": sum(int(b["attention_mask"].sum()) for b in batches) / steps,
        "answer tokens a step": answer / steps,
    }


def peak() -> float:
    """The process's peak resident set so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def judged(forms: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What each form costs relative to the usual one, and whether ours meets its targets."""
    usual, ours = forms["usual"], forms["ours"]
    relative = {
        name: {
            "time": form["seconds a step"] / usual["seconds a step"],
            "processor time": form["processor seconds a step"] / usual["processor seconds a step"],
            "memory": form["peak memory, MiB"] / usual["peak memory, MiB"],
            "largest difference in loss": max(abs(a - b) for a, b in zip(form["losses"], usual["losses"], strict=True)),
        }
        for name, form in forms.items()
    }
    return {
        "relative to usual": relative,
        "met": {
            f"time <= {TIME_TARGET}": ours["seconds a step"] <= TIME_TARGET * usual["seconds a step"],
            f"memory <= {MEMORY_TARGET}": ours["peak memory, MiB"] <= MEMORY_TARGET * usual["peak memory, MiB"],
            f"losses equal to {LOSS_TOLERANCE}": relative["ours"]["largest difference in loss"] <= LOSS_TOLERANCE,
        },
    }


def table(forms: dict[str, dict[str, Any]]) -> str:
    """A Markdown table of one model's forms."""
    lines = ["| | s a step | of usual | of its processor time | peak MiB | of usual | loss differs by |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, relative in judged(forms)["relative to usual"].items():
        form = forms[name]
        lines.append(
            f"| {name} | {form['seconds a step']:.3f} | {relative['time']:.2f} | "
            f"{relative['processor time']:.2f} | {form['peak memory, MiB']:.0f} | "
            f"{relative['memory']:.2f} | {relative['largest difference in loss']:.1e} |"
        )
    return "\n".join(lines)


def document_text(report: dict[str, Any]) -> str:
    """What docs/training.md shows of a report."""
    parts = [report["date and machine"]]
    for name, model in report["models"].items():
        parts.append(f"{MODELS[name]}:\n\n{table(model['forms'])}")
    return "\n\n".join(parts)


def prepared(name: str, smollm2: Path, folder: Path, tofu_name: str) -> Path:
    """The directory of a model, which is written first where it does not stand."""
    if name == "smollm2":
        from smollm2 import export

        return export(smollm2)
    from lm_eval_tofu import tofu
    from lm_eval_tofu.unlearn import nano

    path, sizes = folder / "nano", nano.preset()
    tokenizer = nano.build_tokenizer(nano.corpus(tofu.resolve_source(tofu_name)), sizes)
    tokenizer.save_pretrained(path)
    nano.build_model(tokenizer, sizes, seed=0).save_pretrained(path)
    return path


def main() -> None:
    """Run every form of every model in a child process and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=LEARNING_RATES, default=list(LEARNING_RATES))
    parser.add_argument("--smollm2", type=Path, default=ROOT / "runs" / "parity" / "smollm2", metavar="DIR")
    parser.add_argument("--tofu", default="mini")
    parser.add_argument("--batch", type=int, default=8, help="forget rows a step; as many retain rows go with them")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), help="`usual` must be one of them")
    parser.add_argument("--output", type=Path, default=JSON)
    parser.add_argument("--child", nargs=4, metavar=("FORM", "NAME", "MODEL", "OUTPUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        form, name, model, output = arguments.child
        report = child(
            FORMS[form], form.startswith("ours"), name, model, arguments.tofu, arguments.batch, arguments.steps
        )
        Path(output).write_text(json.dumps(report), encoding="utf-8")
        return
    reports: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            model = prepared(name, arguments.smollm2, Path(folder), arguments.tofu)
            forms = {}
            for form in arguments.forms:
                output = Path(folder) / "report.json"
                command = [sys.executable, __file__, "--child", form, name, str(model), str(output)]
                command += ["--tofu", arguments.tofu, "--batch", str(arguments.batch), "--steps", str(arguments.steps)]
                subprocess.run(command, check=True, env={"HF_HUB_OFFLINE": "1", **os.environ})
                forms[form] = json.loads(output.read_text(encoding="utf-8"))
                print(f"{name}, {form}: {forms[form]['seconds a step']:.3f} s a step", flush=True)
            reports[name] = {"forms": forms, **judged(forms)}
            print(f"\n{name}\n{table(forms)}\n")
    packages = ", ".join(f"{package} {version(package)}" for package in ("transformers", "torch"))
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    note = (
        f"{date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, {threads} threads, "
        f"Python {platform.python_version()}, {packages}, float32; batch {arguments.batch}, {arguments.steps} steps, "
        f"median after {WARM_UP}; data {arguments.tofu}, forget10."
    )
    report = {"date and machine": note, "models": reports}
    files.write_text(arguments.output, json.dumps(report, indent=2) + "\n")
    if arguments.output == JSON:
        show("npo-step", document_text(report))


if __name__ == "__main__":
    main()
