"""What unlearning minimises: the methods by name, and the options of their losses. No torch, so that it loads fast."""

import math
from dataclasses import dataclass, field

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.unlearn.options import option

METHODS = {
    "npo": "negative preference optimisation, arXiv 2404.05868",
    "simnpo": "NPO without a reference, length-normalised, arXiv 2410.07163",
    "grad_ascent": "gradient ascent on the forget rows alone, arXiv 2401.06121",
    "grad_diff": "gradient ascent on the forget rows, descent on the retain rows, arXiv 2401.06121",
}
FORGET_ONLY = ("grad_ascent",)
"""Methods without retain term."""

RETAIN_LOSSES = ("nll", "kl")


@dataclass(kw_only=True)
class Objective:
    """The loss of a step: `gamma` x the mean over its forget rows of the method's loss + `alpha` x the mean over its
    retain rows' answer tokens of the retain loss; see `lm_eval_tofu.unlearn.loss` for both.
    """

    method: str = field(default="npo", metadata=option(f"how to forget: {', '.join(METHODS)}"))
    alpha: float = field(default=1.0, metadata=option("weight of the retain term; grad_ascent has none"))
    beta: float = field(
        default=0.1,
        metadata=option("NPO and SimNPO: how sharply a forgotten answer stops to count; towards 0: gradient ascent"),
    )
    gamma: float = field(default=1.0, metadata=option("weight of the forget term"))
    margin: float = field(default=0.0, metadata=option("SimNPO: the paper's gamma"))
    retain_loss: str = field(
        default="nll",
        metadata=option(
            "nll: likelihood of the retain rows' answers; kl: divergence from the reference on them, for which a "
            "frozen copy of the model stays in memory (none with LoRA, whose adapters are switched off instead)"
        ),
    )
    precompute_reference: bool = field(
        default=True,
        metadata=option(
            "compute the reference's log-probabilities once before training; off: at every step, with a frozen copy of "
            "the model in memory (with LoRA: the adapters switched off)"
        ),
    )
    joint_pass: bool | None = field(
        default=None,
        metadata=option(
            "run forget and retain rows through the model together, or one after the other, each with its own "
            "backward pass, which halves the activations in memory and changes nothing else (default: together only "
            "with FSDP and DeepSpeed, where one after the other is not possible)"
        ),
    )
    reference_cache: str | None = field(
        default=None,
        metadata=option("directory that keeps reference log-probabilities, for other runs too (default: the run's)"),
    )

    @property
    def has_retain_rows(self) -> bool:
        """Whether a step uses retain rows."""
        return self.method not in FORGET_ONLY and self.alpha > 0

    @property
    def needs_reference_model(self) -> bool:
        """Whether the reference itself must be at hand at every step."""
        return not self.precompute_reference or (self.has_retain_rows and self.retain_loss == "kl")

    def check(self) -> None:
        """Refuse a method or weight that cannot be used."""
        if self.method not in METHODS:
            raise OptionError(f"--method {self.method!r} is unknown: use one of {', '.join(METHODS)}")
        if self.retain_loss not in RETAIN_LOSSES:
            raise OptionError(f"--retain_loss {self.retain_loss!r} is unknown: use one of {', '.join(RETAIN_LOSSES)}")
        for name, example in (("beta", 0.1), ("gamma", 1.0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise OptionError(f"--{name} {value} is not above 0: give for example {example}")
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise OptionError(f"--alpha {self.alpha} is below 0: give 0 or more, for example 1")
        if not math.isfinite(self.margin):
            raise OptionError(f"--margin {self.margin} is not a number: give for example 0")
