"""Audit machine unlearning with lm-evaluation-harness: the TOFU benchmark and what it misses.

Importing this package costs next to nothing: every Python start of an environment that has it installed does so
(see `lm_eval_tofu.autoload`), so nothing third-party may be imported here.
"""

__version__ = "0.1.0"
