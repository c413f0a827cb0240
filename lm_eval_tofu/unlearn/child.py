"""Run a command, or a function, in a subprocess, logging to a file.

    python -m lm_eval_tofu.unlearn.child MODULE ARGUMENT ...

runs a module as `python -m MODULE ARGUMENT ...` does, and ends with its process group when standard input closes.
"""

import logging
import os
import pickle
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, cast

from lm_eval_tofu.errors import OptionError, TofuError

log = logging.getLogger(__name__)


def call(function: Callable[..., object], *args: Any, record: Path, name: str) -> None:
    """Call a function of a module, with arguments that can be pickled; otherwise as `run`."""
    run([sys.executable, "-m", __name__], record, name, pickle.dumps((function, args)))


def run(command: Sequence[str], record: Path, name: str, given: bytes = b"") -> None:
    """Run a command to its end.

    Args:
        command: The command line.
        record: File that its output is appended to.
        name: What it does, for the message.
        given: What it reads first from its standard input.

    Raises:
        OptionError: It failed; the message has the last line of its output.
    """
    with record.open("ab") as out:
        # Its standard input closes when this process ends: see `end_with_parent`.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, bufsize=0)
        try:
            cast(IO[bytes], process.stdin).write(given)
            status = process.wait()
        finally:
            process.kill()
    if status != 0:
        reason = last_line(record) or f"exited with status {status} and no output"
        raise OptionError(f"{name}: {reason} (the whole log: {record})")


def last_line(path: Path) -> str:
    """The last line of a process's log that is not blank; empty where there is none."""
    # A progress bar goes on in its line, so what counts is behind its last carriage return.
    lines = path.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def end_with_parent() -> None:
    """In a process that `run` started: end when the parent does, since it would go on beside its successor."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end(group: bool = False) -> None:
    # Not through sys.stdin, whose lock a thread at the end of the process would hold.
    while os.read(0, 1):
        pass
    if group:
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def _run_module(module: str, *arguments: str) -> None:
    """Run a module in this process, which its parent made the leader of a process group."""
    # An engine that vLLM started would otherwise go on.
    threading.Thread(target=_wait_for_the_end, args=(True,), daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _main() -> None:
    """The process that `call` starts."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    function, args = pickle.load(sys.stdin.buffer)
    end_with_parent()
    status = 0
    try:
        function(*args)
    except TofuError as error:
        log.error("%s", error)
        status = 2
    sys.stdout.flush()
    sys.stderr.flush()
    # vLLM's threads now and then abort the interpreter's shutdown, which would look like a failure.
    os._exit(status)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _run_module(*sys.argv[1:])
    else:
        _main()
