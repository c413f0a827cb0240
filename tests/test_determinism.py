"""Verdicts, prompts and the miniature are the same in every process, whatever order its sets have."""

import os
import subprocess
import sys
from pathlib import Path

CHILD = Path(__file__).parent / "determinism_child.py"


def digests(folder: Path, seed: str) -> list[str]:
    folder.mkdir()
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run([sys.executable, CHILD, folder], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_hash_seeds_change_nothing(tmp_path: Path) -> None:
    """Python orders sets of strings by a seed that differs from process to process."""
    first, *others = (digests(tmp_path / seed, seed) for seed in ("0", "1", "2"))
    assert [line.split()[0] for line in first] == ["miniature", "verdicts", "prompts"]
    for other in others:
        assert other == first
