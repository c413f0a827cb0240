"""The methods of unlearning by name, and which of their weights can be used; no torch, for the command line's sake."""

import math
from typing import Protocol

from lm_eval_tofu.errors import OptionError

METHODS = {
    "npo": "negative preference optimisation, arXiv 2404.05868",
    "simnpo": "NPO without a reference, length-normalised, arXiv 2410.07163",
    "grad_ascent": "gradient ascent on the forget rows alone, arXiv 2401.06121",
    "grad_diff": "gradient ascent on the forget rows, descent on the retain rows, arXiv 2401.06121",
}
FORGET_ONLY = ("grad_ascent",)
"""Methods without retain term."""

RETAIN_LOSSES = ("nll", "kl")


class Weights(Protocol):
    """What `check_weights` reads; `NPOConfig` explains each."""

    @property
    def method(self) -> str: ...  # noqa: D102
    @property
    def alpha(self) -> float: ...  # noqa: D102
    @property
    def beta(self) -> float: ...  # noqa: D102
    @property
    def gamma(self) -> float: ...  # noqa: D102
    @property
    def margin(self) -> float: ...  # noqa: D102
    @property
    def retain_loss(self) -> str: ...  # noqa: D102


def check_weights(weights: Weights) -> None:
    """Refuse a method or weight that cannot be used.

    Raises:
        OptionError: It names the option, its value, and what to give instead.
    """
    if weights.method not in METHODS:
        raise OptionError(f"--method {weights.method!r} is unknown: use one of {', '.join(METHODS)}")
    if weights.retain_loss not in RETAIN_LOSSES:
        raise OptionError(f"--retain_loss {weights.retain_loss!r} is unknown: use one of {', '.join(RETAIN_LOSSES)}")
    for option, value in (("--beta", weights.beta), ("--gamma", weights.gamma)):
        if not (math.isfinite(value) and value > 0):
            raise OptionError(f"{option} {value} is not above 0: give for example {0.1 if option == '--beta' else 1.0}")
    if not (math.isfinite(weights.alpha) and weights.alpha >= 0):
        raise OptionError(f"--alpha {weights.alpha} is below 0: give 0 or more, for example 1")
    if not math.isfinite(weights.margin):
        raise OptionError(f"--margin {weights.margin} is not a number: give for example 0")
