"""One run of a sweep, as a process of its own: train, then evaluate. `lm_eval_tofu.unlearn.sweep` starts it."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from lm_eval_tofu import evaluation, files
from lm_eval_tofu.errors import TofuError
from lm_eval_tofu.unlearn import child, sweep, sweep_config
from lm_eval_tofu.unlearn.unlearning import unlearn


def main(argv: Sequence[str] | None = None) -> None:
    """Carry out one run; the argument is its directory, `SWEEP/runs/NAME`."""
    [name] = sys.argv[1:] if argv is None else argv
    folder = Path(name)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    child.end_with_parent()
    config = sweep_config.load_config(folder.parent.parent)
    point, model = files.read_json(folder / sweep.RUN_FILE)["point"], folder / "model"
    try:
        if not model.is_dir():
            unlearn(sweep_config.run_config(config, point, model))
        settings = {each.name: getattr(config.evaluation, each.name) for each in fields(config.evaluation)}
        evaluation.evaluate(model, folder / "results", metadata=config.metadata, **settings)
    except TofuError as error:
        sys.exit(str(error))  # the last line of the log


if __name__ == "__main__":
    main()
