"""What lm-eval loads: the tasks' YAML files stand in this directory."""

from pathlib import Path

TASKS_DIR = Path(__file__).parent
"""The directory for `lm_eval --include_path`, where tasks are not found by themselves."""
