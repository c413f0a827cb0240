"""One run of a sweep, as a process of its own: train, then evaluate. `lm_eval_tofu.unlearn.sweep` starts it."""

import json
import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from lm_eval_tofu import cli, evaluation
from lm_eval_tofu.errors import TofuError
from lm_eval_tofu.unlearn import sweep


def main(argv: Sequence[str] | None = None) -> int:
    """Run one point: arguments are the sweep's configuration file and the run's directory."""
    config_file, name = sys.argv[1:] if argv is None else argv
    config, folder = sweep.load_config(Path(config_file)), Path(name)
    threading.Thread(target=die_with_the_parent, daemon=True).start()
    point = json.loads((folder / sweep.RUN_FILE).read_text(encoding="utf-8"))["point"]
    model = folder / "model"
    if not model.is_dir():
        status = cli.main(["unlearn", *sweep.unlearn_arguments(config, point, model)])
        if status != 0:
            return status
    settings = config.evaluation
    try:
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
        logging.getLogger(__name__).error("%s", error)
        return 2
    return 0


def die_with_the_parent() -> None:
    """End this process when the parent's end of standard input closes: alone it would train beside its successor."""
    # Not through sys.stdin, whose lock a thread at the end of the process would hold.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
