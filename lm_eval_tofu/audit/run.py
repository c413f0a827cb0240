"""Runs an audit's steps, each in a process of its own, and writes the report.

Nothing is computed here: every step is a public command, which is logged, stored in `commands.sh` and run. A step that
is finished, with the same settings and weights, is not run again.
"""

import contextlib
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval_tofu import files
from lm_eval_tofu.audit.options import NEEDED, AuditOptions, parse_models
from lm_eval_tofu.audit.plan import Plan
from lm_eval_tofu.audit.steps import STEP_FILE, Step, counted, estimate, is_finished, numbered, record_in
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.report import render
from lm_eval_tofu.report.verdicts import Verdict
from lm_eval_tofu.unlearn import child

log = logging.getLogger(__name__)

MODULES = {"lm_eval": "lm_eval", "lm-eval-tofu": "lm_eval_tofu.cli"}
"""The commands that are run, and the modules that `python -m` runs in their place."""
COMMANDS_FILE = "commands.sh"
_SPACE_OF_AN_EVALUATION = 64 << 20
"""Bytes; all tasks on forget10 took 56 MiB an arm."""
_SPACE_OF_RELEARNING = 4
"""Weights, gradients' moments and a second checkpoint, in sizes of the model."""


def audit(given: Sequence[str], options: AuditOptions) -> list[str]:
    """Run every step that is not finished, and write the report.

    Args:
        given: The models, each as `arm=model`.
        options: What to do.

    Returns:
        The verdict on each audited arm, in a line a question and one of doubts, and the report's path.

    Raises:
        OptionError: Something cannot be used, before anything is run; or a step failed, and those before it are kept.
    """
    import filelock

    plan = Plan(parse_models(given), options)
    for line in plan.missing():
        log.warning("%s", line)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        # The system frees the lock of a process that dies, however it dies.
        with filelock.FileLock(options.output / ".lock", timeout=0):
            return _run(plan)
    except filelock.Timeout as error:
        raise OptionError(f"--output {options.output} is in use by another process: name another directory") from error
    except OSError as error:
        raise OptionError(
            f"--output {options.output} cannot be written ({error}): make room or name another directory; what is "
            "finished is kept"
        ) from error


def _run(plan: Plan) -> list[str]:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    output, steps = plan.options.output, plan.steps()
    waiting = [step for step in steps if not is_finished(step)]
    _check_space(plan, waiting)
    _set_aside(plan, steps)
    _write_commands(plan, steps, waiting)
    log.info("%s, %d finished; level %s", counted(len(steps)), len(steps) - len(waiting), plan.options.level)
    # On a screen only: elsewhere the log says which step is run.
    bar = tqdm(total=len(steps) + 1, initial=len(steps) - len(waiting), unit="step", disable=None)
    with logging_redirect_tqdm(), bar:
        for number, step in enumerate(waiting):
            if time_left := estimate(waiting[number:], steps):
                log.info("to do: %s: %s", counted(len(waiting) - number), time_left)
            _run_step(step, output / "logs", bar)
            bar.update()
        bar.set_description_str("report")
        command = plan.report_command()
        log.info("report\n  %s", shlex.join(command))
        written = render.write(command[2:-2], Path(command[-1]))
        bar.update()
    return [*verdict_lines(written.verdicts), f"report: {written.html}"]


def _check_space(plan: Plan, waiting: Sequence[Step]) -> None:
    """Refuse a disk that cannot hold what is known to be written."""
    needed = sum(_SPACE_OF_AN_EVALUATION for step in waiting if step.name == "evaluation")
    if any(step.name == "relearn" for step in waiting):
        folders = [Path(model).expanduser() for model in plan.models.values()]
        sizes = [sum(file.stat().st_size for file in folder.glob("*.safetensors")) for folder in folders]
        needed += _SPACE_OF_RELEARNING * max(sizes)
    free = shutil.disk_usage(plan.options.output).free
    if free < needed:
        raise OptionError(
            f"--output {plan.options.output} has {free / 1e6:,.0f} MB free, and at least {needed / 1e6:,.0f} MB are "
            "needed: make room, or name a directory on another disk"
        )


def _write_commands(plan: Plan, steps: Sequence[Step], waiting: Sequence[Step]) -> None:
    """Write all commands in their order, for a shell."""
    lines = [
        "#!/bin/sh",
        "# The commands of an audit; `lm-eval-tofu audit` runs those that are not finished.",
        "set -e",
    ]
    for step in steps:
        lines += ["", f"# {step.title}{'' if step in waiting else ' (finished)'}", shlex.join(step.command)]
    lines += ["", "# report", shlex.join(plan.report_command())]
    files.write_text(plan.options.output / COMMANDS_FILE, "\n".join(lines) + "\n")


def _run_step(step: Step, logs: Path, bar: Any) -> None:
    record = logs / f"{step.arm}-{step.name}.log"
    logs.mkdir(exist_ok=True)
    bar.set_description_str(step.title)
    log.info("%s, log in %s\n  %s", step.title, record, shlex.join(step.command))
    files.write_json(step.folder / STEP_FILE, step.record())
    started = time.monotonic()
    status = _run_command(step.command, record, bar)
    # vLLM's threads may abort the interpreter's shutdown when everything is written: the results decide.
    if not is_finished(step):
        reason = child.last_line(record).removeprefix("lm_eval_tofu.errors.")
        if status == 0:
            reason = "its results are not complete, is the disk full?"
        raise OptionError(
            f"{step.title} failed with status {status}: {reason[:300]} (the whole log: {record}); what is finished is "
            "kept: the same command resumes"
        )
    files.write_json(step.folder / STEP_FILE, step.record(time.monotonic() - started))


def _run_command(command: Sequence[str], record: Path, bar: Any) -> int:
    """Run a command in a process group that ends with this process; its exit status."""
    with record.open("ab") as out:
        out.write(f"$ {shlex.join(command)}\n".encode())
        out.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", child.__name__, MODULES[command[0]], *command[1:]],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            while True:
                try:
                    return process.wait(timeout=1)
                except subprocess.TimeoutExpired:
                    bar.set_postfix_str(_tail(record))
        finally:
            # An engine may be left after a crash.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _tail(record: Path, longest: int = 50) -> str:
    """The end of what a running step logged last, for the bar."""
    with record.open("rb") as file:
        file.seek(max(0, record.stat().st_size - 2048))
        text = file.read().decode("utf-8", "replace")
    shown = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
    return shown[-1][-longest:] if shown else ""


def verdict_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """A line for each question and one of doubts, arm by arm."""
    lines = []
    for verdict in verdicts:
        lines += [f"{verdict.arm}: {question} {label}. {words}" for _, question, _, label, words in verdict.answers]
        lines.append(f"{verdict.arm}: Doubts: {' '.join(verdict.alarms) or 'none'}")
    return lines


def _set_aside(plan: Plan, steps: Sequence[Step]) -> None:
    """Move results of other settings out of the report's way, and delete what a killed lm_eval left."""
    begun = {step.folder: step for step in [*steps, *plan.tools(NEEDED)]}
    for arm in plan.models:
        evaluations = numbered(plan.results(arm) / "lm_eval")
        for folder in [*evaluations, *(plan.results(arm) / tool for tool in NEEDED)]:
            record, step = record_in(folder), begun.get(folder)
            if record is None or (step is not None and is_finished(step)):
                continue
            is_same = folder in evaluations and record["settings"] == plan.settings(arm)
            if is_same or (folder in evaluations and not files.results_files(folder)):
                shutil.rmtree(folder)  # lm_eval begins anew, while the white-box audits resume
            elif folder in evaluations or (
                step is not None and (record["settings"], record["tasks"]) != (step.settings, step.tasks)
            ):
                aside = plan.options.output / "superseded" / f"{arm}-{folder.name}-{time.strftime('%Y-%m-%dT%H-%M-%S')}"
                aside.parent.mkdir(exist_ok=True)
                folder.rename(aside)
                log.warning("%s was made with other settings, weights or references: moved to %s", folder, aside)
