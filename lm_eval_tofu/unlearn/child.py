"""Work in a process of its own, whose memory ends with it and whose log tells what went wrong."""

import subprocess
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
        raise OptionError(f"{name}: {last_line(record)} (the whole log: {record})")


def last_line(path: Path) -> str:
    """The last line of a process's log that says something."""
    # A progress bar goes on in its line, so what counts is behind its last carriage return.
    lines = path.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it ended without a word")
