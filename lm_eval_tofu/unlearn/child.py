"""Run a command in a subprocess, logging to a file."""

import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from lm_eval_tofu.errors import OptionError


def run(command: Sequence[str], record: Path, name: str) -> None:
    """Run a command to its end.

    Args:
        command: The command line.
        record: File that what it says is added to.
        name: What it does, for the message.

    Raises:
        OptionError: It failed; the message holds the last line that it said.
    """
    with record.open("ab") as out:
        # Its standard input closes with this process, which is how it learns that it must not go on alone.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT)
        try:
            status = process.wait()
        finally:
            process.kill()
    if status != 0:
        said = last_line(record) or f"exited with status {status} and no output"
        raise OptionError(f"{name}: {said} (the whole log: {record})")


def last_line(path: Path) -> str:
    """The last line of a process's log that is not blank; empty where there is none."""
    # A progress bar goes on in its line, so what counts is behind its last carriage return.
    lines = path.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def end_with_parent() -> None:
    """In a process that `run` started: end when the parent does, since it would go on beside its successor."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    # Not through sys.stdin, whose lock a thread at the end of the process would hold.
    while os.read(0, 1):
        pass
    os._exit(1)
