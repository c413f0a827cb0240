"""One run of a sweep, as a process of its own: train, then evaluate. `lm_eval_tofu.unlearn.sweep` starts it."""

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from lm_eval_tofu import evaluation
from lm_eval_tofu.errors import TofuError
from lm_eval_tofu.unlearn import child, sweep
from lm_eval_tofu.unlearn.unlearning import unlearn


def main(argv: Sequence[str] | None = None) -> None:
    """Run one point: arguments are the sweep's configuration file and the run's directory."""
    config_file, folder = map(Path, sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    child.end_with_parent()
    config = sweep.load_config(config_file)
    point = json.loads((folder / sweep.RUN_FILE).read_text(encoding="utf-8"))["point"]
    model, settings = folder / "model", config.evaluation
    try:
        if not model.is_dir():
            unlearn(sweep.run_config(config, point, model))
        evaluation.evaluate(
            model,
            folder / "results",
            backend=settings.backend,
            model_args=settings.model_args,
            metadata=sweep.metadata_of(config),
            apply_chat_template=settings.apply_chat_template,
            system_instruction=settings.system_instruction,
            batch_size=settings.batch_size,
            device=settings.device,
            samples=settings.samples,
        )
    except TofuError as error:
        sys.exit(str(error))  # the last line of the log


if __name__ == "__main__":
    main()
