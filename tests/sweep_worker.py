"""A worker of a sweep as a process of its own, whose runs are those of `sweep_trial.py`: no model, real queue."""

import sys
from pathlib import Path

from lm_eval_tofu.unlearn import sweep, sweep_config

sweep._PAUSE = 0.2
sweep._TRIAL = (str(Path(__file__).with_name("sweep_trial.py")),)
sweep.check = lambda config: None

if __name__ == "__main__":
    states = sweep.sweep(sweep_config.read_config(sys.argv[1]), keep=sys.argv[2] if len(sys.argv) > 2 else "all")
    sys.exit(any(state.state != "complete" for state in states))
