"""The whole audit in minutes: train nano models on the miniature, audit the full and the retain arm, compare them.

    python examples/quickstart.py                      # trains, then audits; no download, no GPU needed
    python examples/quickstart.py --model MODEL        # audits MODEL (a directory or a hub name) instead

What is there already is not made again, so an interrupted run goes on where it stopped.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TASKS = "tofu_*"
SAMPLES = 4

TRAINING = {
    # arm: (the arm it starts from, split, epochs, learning rate)
    # base learns its short answers gently: at the other arms' rate it could hardly learn anything else afterwards.
    "base": (None, "real_authors+world_facts", 8, 1e-3),
    # The general questions go on, since a model this small forgets at once what it is no longer shown, and its utility
    # with it.
    "full": ("base", "full+real_authors+world_facts", 20, 3e-3),
    "retain": ("base", "retain90+real_authors+world_facts", 20, 3e-3),
}

FIGURES = (
    # label, task, metric
    ("forget quality (p)", "tofu_forget_quality", "forget_quality"),
    ("model utility", "tofu_model_utility", "model_utility"),
    ("truth ratio, forget rows", "tofu_forget_quality", "truth_ratio"),
    ("answer probability", "tofu_forget_quality", "probability"),
    ("ROUGE-L recall", "tofu_forget_quality", "rougeL_recall"),
    ("answer log-prob, nats/token", "tofu_answer_logprob", "answer_logprob"),
    ("leaks, asked directly", "tofu_novel_recall", "leak_rate_direct"),
    ("leaks, ten kinds of prompts", "tofu_novel_recall", "leak_rate"),
    ("leaks, ten formats", "tofu_format_shift", "leak_rate"),
    ("leaks in one of the samples", "tofu_best_of_n", "prompt_leak"),
    ("leaks behind clues", "tofu_chain_of_clues", "leak_rate"),
    ("right choices (chance 0.167)", "tofu_recognition", "recognition"),
)


def main() -> int:
    """Run the quickstart; the exit status is 0 when everything ran."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="M", help="audit this model instead of training nano models")
    parser.add_argument("--tofu", default="mini", help="data: mini (default), a directory with TOFU's files, a hub id")
    parser.add_argument("--retain-reference", metavar="DIR", help="with --model: results of the retain arm")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="default: %(default)s")
    args = parser.parse_args()
    if args.retain_reference and not Path(args.retain_reference).exists():
        parser.error(f"--retain-reference {args.retain_reference} does not exist: name the retain arm's results")
    if args.retain_reference and not args.model:
        parser.error("--retain-reference belongs to --model: the nano models' own retain arm is the reference here")
    if args.model:
        return audit_one(args.model, args.tofu, args.retain_reference, args.out)
    return audit_nano(args.tofu, args.out)


def audit_nano(tofu: str, out: Path) -> int:
    """Train the arms base, full and retain, and audit the last two."""
    # Set before a library reads it: nothing here needs the network, unless the data come from the hub.
    if tofu == "mini" or Path(tofu).is_dir():
        os.environ["HF_HUB_OFFLINE"] = "1"
    started = time.monotonic()
    models = out / "models"
    train(["base"], models, tofu)
    train(["full", "retain"], models, tofu)
    for arm in ("retain", "full"):
        # Forget quality asks whether a model answers as the retain arm does, so that arm is audited first.
        reference = None if arm == "retain" else str(out / "results" / "retain")
        audit(str(models / arm), out / "results" / arm, tofu, reference, max_length=1024, chat=True)
    show({arm: newest_results(out / "results" / arm) for arm in ("full", "retain")})
    print(f"\nmodels: {models}\nresults and every answer: {out / 'results'}\ntook {time.monotonic() - started:.0f} s")
    print("\nfull was trained on the forget rows, retain was not: unlearning should bring full's figures to retain's.")
    print(f"Next, audit a model of your own:\n  {shlex.join([sys.executable, *sys.argv[:1], '--model', 'MODEL'])}")
    return 0


def audit_one(model: str, tofu: str, reference: str | None, out: Path) -> int:
    """Audit one model, with its chat template if its tokenizer has one."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        chat = bool(AutoTokenizer.from_pretrained(model).chat_template)
    except (OSError, ValueError) as error:
        sys.exit(f"--model {model} cannot be read ({' '.join(str(error).split())[:200]}): name a directory or a hub id")
    # Long contexts reserve memory that TOFU's rows, of a few hundred tokens, have no use for.
    max_length = min(2048, getattr(AutoConfig.from_pretrained(model), "max_position_embeddings", 2048))
    name = Path(model).name
    folder = out / "results" / name
    audit(model, folder, tofu, reference, max_length=max_length, chat=chat)
    show({name: newest_results(folder)})
    print(f"\nresults and every answer: {folder}")
    if reference is None:
        print(
            "forget quality needs the retain arm: audit that model too, then run this again with\n"
            f"  {shlex.join([sys.executable, *sys.argv, '--retain-reference', 'ITS RESULTS'])}"
        )
    return 0


def train(arms: list[str], models: Path, tofu: str) -> None:
    """Fine-tune nano models at the same time, unless they stand already; an interrupted training goes on."""
    running = {}
    for line, arm in enumerate(arms):
        output, (start, split, epochs, learning_rate) = models / arm, TRAINING[arm]
        if (output / "training.json").is_file():
            print(f"\n== {arm}: {output} is there already")
            continue
        command = [sys.executable, "-m", "lm_eval_tofu.cli", "finetune", "--split", split, "--output", str(output)]
        command += ["--model", str(models / start)] if start else ["--from-scratch", "nano"]
        command += ["--tofu", tofu, "--epochs", str(epochs), "--learning-rate", str(learning_rate)]
        # Few rows and a young model want more and smaller steps than the defaults, which are for pretrained models.
        command += ["--batch-size", "8", "--gradient-accumulation", "1"]
        print(f"\n== {arm}: training\n{shlex.join(command)}", flush=True)
        # A nano model's matrices are too small for several threads; tqdm puts each arm's bar on a line of its own.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_POSITION": str(line), "TQDM_DESC": arm}
        running[arm] = subprocess.Popen(command, env=environment)
    failed = [arm for arm, process in running.items() if process.wait() != 0]
    if failed:
        sys.exit(f"training {' and '.join(failed)} failed; the reason stands above")


def audit(model: str, folder: Path, tofu: str, reference: str | None, *, max_length: int, chat: bool) -> None:
    """Run all tasks on one model, in a process of its own: two vLLM engines in one process run out of memory."""
    # The default, 32 samples a row, is for models that someone wants to publish.
    metadata = {"tofu": tofu, "best_of_n": SAMPLES} | ({"retain_reference": reference} if reference else {})
    if stands(folder, {"pretrained": model, "retain_reference": None, **metadata}):
        print(f"\n== audit of {model}: {folder} is there already")
        return
    model_args = {"pretrained": model, "max_model_len": max_length, "enable_prefix_caching": False}
    environment = dict(os.environ)
    if not has_gpu():
        # Scores in bfloat16 are slow and rough on a CPU, and compiling takes longer than a small model's whole run.
        model_args |= {"dtype": "float32", "enforce_eager": True}
        # GiB for the attention cache; by default vLLM takes most of the machine's memory.
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    # Without a batch size lm_eval hands vLLM one request at a time.
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "vllm", "--batch_size", "auto", "--tasks", TASKS]
    command += ["--model_args", ",".join(f"{key}={value}" for key, value in model_args.items())]
    command += ["--metadata", json.dumps(metadata), "--log_samples", "--output_path", str(folder)]
    command += ["--apply_chat_template"] if chat else []
    print(f"\n== audit of {model}\n{shlex.join(command)}", flush=True)
    subprocess.run(command, env=environment, check=True)


def stands(folder: Path, asked: dict[str, Any]) -> bool:
    """Whether the newest results below a folder are of this model, data and reference."""
    if not list(folder.rglob("results_*.json")):
        return False
    # lm-eval puts the model's arguments there too.
    told = newest_results(folder)["configs"]["tofu_forget_quality"]["metadata"]
    return all(told.get(name) == value for name, value in asked.items())


def has_gpu() -> bool:
    """Whether vLLM runs on a GPU here."""
    import torch

    return bool(torch.cuda.is_available())


def newest_results(folder: Path) -> dict[str, Any]:
    """The content of the newest `results_<time>.json` below `folder`."""
    path = max(folder.rglob("results_*.json"), key=lambda path: path.name)
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def show(arms: dict[str, dict[str, Any]]) -> None:
    """Print the figures of the arms side by side."""
    print("\n" + " " * 30 + "".join(f"{arm[-14:]:>15}" for arm in arms))
    for label, task, metric in FIGURES:
        values = [figure(results, task, metric) for results in arms.values()]
        print(f"{label:30}" + "".join(f"{value:>15}" for value in values))


def figure(results: dict[str, Any], task: str, metric: str) -> str:
    """One number of lm-eval's results, or a dash where there is none, as for forget quality without a reference."""
    value = results["results"].get(task, {}).get(f"{metric},none")
    return f"{value:.4g}" if isinstance(value, int | float) and value == value else "-"


if __name__ == "__main__":
    sys.exit(main())
