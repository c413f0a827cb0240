"""Prints digests of what must not depend on the process; `test_determinism.py` runs it with several hash seeds."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from lm_eval_tofu import tofu
from lm_eval_tofu.metrics import leak
from lm_eval_tofu.metrics.background import Background
from lm_eval_tofu.tasks import rows as task_rows
from lm_eval_tofu.tasks.options import Options

sys.path.append(str(Path(__file__).parents[1] / "tools" / "mini"))
import generate


def digest(values: Any) -> str:
    """Of the exact numbers: repr tells every float from its neighbours."""
    return hashlib.sha256(repr(values).encode()).hexdigest()


def verdicts() -> list[Any]:
    """The miniature's answers, paraphrases and wrong answers, alone and in a row, as responses."""
    source = tofu.resolve_source("mini")
    background = Background.from_answers([row["answer"] for row in tofu.load("retain90", source)])
    found = []
    for row in tofu.load("forget10_perturbed", source):
        said = [row["answer"], row["paraphrased_answer"], *row["perturbed_answer"]]
        for response in [*said, " ".join(said), row["answer"].lower().replace(",", " and")]:
            found.append(leak.score(row["question"], row["answer"], response, background=background))
            found.append(leak.score(row["question"], row["answer"], response))
    return found


def rows() -> list[str]:
    """Every prompt of every audit."""
    options = Options(tofu="mini", forget_split="forget05")
    makers = (task_rows.novel_recall, task_rows.format_shift, task_rows.chain_of_clues, task_rows.recognition_options)
    return [json.dumps(row, default=str) for make in makers for row in make(options)]


def main() -> None:
    """Write the miniature to the directory that is named and print one digest a line."""
    folder = Path(sys.argv[1])
    generate.main(["--output", str(folder)])
    print("miniature", digest([path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())]))
    print("verdicts", digest(verdicts()))
    print("prompts", digest(rows()))


if __name__ == "__main__":
    main()
