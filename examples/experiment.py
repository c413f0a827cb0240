"""Steps of a whole experiment: each is run once, several at a time where they are independent.

    python examples/experiment.py evaluate MODEL OUTPUT --tasks T ... [--backend vllm] [--metadata J] [--samples J]

evaluates one model in a process of its own, and its results appear when all of them are written.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from lm_eval_tofu import files

AUDITS = (
    "tofu_forget_quality",
    "tofu_model_utility",
    "tofu_answer_logprob",
    "tofu_novel_recall",
    "tofu_format_shift",
    "tofu_best_of_n",
    "tofu_chain_of_clues",
    "tofu_recognition",
)
CLI = [sys.executable, "-m", "lm_eval_tofu.cli"]


class Job(NamedTuple):
    """A process of a step.

    Attributes:
        done: What stands when it has ended well, a path whose name may be a pattern; it is not started if that stands
            already. None: it always is, and finds out itself what is left to do.
        command: The command line.
    """

    done: Path | None
    command: list[str]

    def stands(self) -> bool:
        """Whether there is nothing left to do."""
        return self.done is not None and any(self.done.parent.glob(self.done.name))


class Step(NamedTuple):
    """Jobs that may run side by side.

    Attributes:
        name: For the progress line.
        jobs: The jobs.
        at_once: How many of them at a time; None: as many as in the other steps.
    """

    name: str
    jobs: Sequence[Job]
    at_once: int | None = None


def run(steps: Iterable[Step], total: int, workers: int, record: Path) -> float:
    """Run the steps in order and say how far the whole is.

    Args:
        steps: They may be made one after the other, as what an earlier one wrote tells.
        total: How many there are.
        workers: Jobs at a time, where a step does not say.
        record: Keeps the seconds of every step, over all calls; what a killed call spent on its last step is lost.

    Returns:
        The minutes of all steps, over all calls.

    Raises:
        SystemExit: A job failed.
    """
    seconds: dict[str, float] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}

    def say(what: str) -> None:
        print(f"\n== {what}, after {sum(seconds.values()) / 60:.0f} min", flush=True)

    for number, step in enumerate(steps, start=1):
        say(f"step {number} of {total}: {step.name}")
        waiting = [job for job in step.jobs if not job.stands()]
        if not waiting:
            print("is there already", flush=True)
            continue
        started = time.monotonic()
        try:
            side_by_side(waiting, step.at_once or workers)
        finally:
            seconds[step.name] = seconds.get(step.name, 0) + time.monotonic() - started
            files.write_json(record, seconds)
    say(f"all {total} steps are done")
    return sum(seconds.values()) / 60


def side_by_side(jobs: Sequence[Job], workers: int) -> None:
    """Run jobs, some at a time, with a core each where there are several; the others go on when one fails.

    Raises:
        SystemExit: A job failed.
    """
    places: SimpleQueue[int] = SimpleQueue()
    for place in range(workers):
        places.put(place)

    def done(job: Job) -> bool:
        place = places.get()
        print(shlex.join(job.command), flush=True)
        environment = {"VLLM_CPU_KVCACHE_SPACE": "2", **os.environ, "TQDM_POSITION": str(place)}
        if workers > 1:
            # The models are too small for several threads, and vLLM would bind every engine to all cores.
            environment |= {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": str(place)}
        status = subprocess.run(job.command, env=environment, check=False).returncode
        places.put(place)
        # vLLM's threads may abort the interpreter's shutdown when all is written: what stands, counts.
        return status == 0 if job.done is None else job.stands()

    with ThreadPoolExecutor(workers) as pool:
        failed = [job for job, well in zip(jobs, pool.map(done, jobs), strict=True) if not well]
    if failed:
        sys.exit("failed, the reason stands above:\n" + "\n".join(shlex.join(job.command) for job in failed))


def finetune(output: Path, *arguments: object) -> Job:
    """A job that fine-tunes a model."""
    return Job(output, [*CLI, "finetune", "--output", str(output), *map(str, arguments)])


def evaluation(
    model: Path,
    output: Path,
    tasks: Sequence[str],
    backend: str,
    metadata: Mapping[str, Any],
    samples: Mapping[str, Sequence[int]] | None = None,
) -> Job:
    """A job that evaluates a model with some of the tasks, or with some documents of a task."""
    command = [sys.executable, __file__, "evaluate", str(model), str(output), "--backend", backend]
    command += ["--metadata", json.dumps(metadata), "--tasks", *tasks]
    return Job(output, [*command, *(["--samples", json.dumps(samples)] if samples else [])])


def has_gpu() -> bool:
    """Whether models run on a GPU here."""
    import torch

    return bool(torch.cuda.is_available())


def evaluate(args: argparse.Namespace) -> None:
    """Evaluate one model in this process."""
    from transformers import AutoConfig

    from lm_eval_tofu.evaluation import evaluate as run_evaluation

    length = min(2048, getattr(AutoConfig.from_pretrained(args.model), "max_position_embeddings", 2048))
    if args.backend == "vllm":
        arguments: dict[str, Any] = {"max_model_len": length, "enable_prefix_caching": False}
        arguments |= {} if has_gpu() else {"dtype": "float32", "enforce_eager": True}
        settings: dict[str, Any] = {"batch_size": "auto"}
    else:
        arguments = {"max_length": length, "dtype": "float32"}
        settings = {"batch_size": 64}
    run_evaluation(
        args.model,
        args.output,
        tasks=args.tasks,
        backend=args.backend,
        model_args=arguments,
        metadata=json.loads(args.metadata),
        samples=json.loads(args.samples),
        **settings,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("evaluate")
    command.add_argument("model")
    command.add_argument("output", type=Path)
    command.add_argument("--tasks", nargs="+", default=list(AUDITS))
    command.add_argument("--backend", choices=("hf", "vllm"), default="vllm")
    command.add_argument("--metadata", default="{}")
    command.add_argument("--samples", default="null")
    command.set_defaults(run=evaluate)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
