"""One step of relearning: fine-tune a model on some authors, then score it on others. Run here or as a process.

`lm_eval_tofu.whitebox.relearn` plans the steps. With vLLM each half of a step is a process of its own, since an engine
that shares a GPU with what training left there runs out of memory.
"""

import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_tofu import evaluation, files, tofu
from lm_eval_tofu.arm import ArmSettings
from lm_eval_tofu.errors import OptionError, TofuError
from lm_eval_tofu.tasks import families
from lm_eval_tofu.unlearn import alike, child
from lm_eval_tofu.unlearn.finetune import FinetuneConfig, finetune

log = logging.getLogger(__name__)

TASK = "tofu_novel_recall"
BACKENDS = ("hf", "vllm")
CONFIG_FILE, ANSWERS_FILE, LOG_FILE = "relearn.json", "answers.json", "log.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelearnConfig:
    """Everything that `lm-eval-tofu relearn` is told; its options have the same names.

    Attributes:
        model: Directory or hub name of the model to audit.
        retain: The retain arm.
        output: Directory of the results, and of what is resumed from.
        tofu: Data source, as `lm_eval_tofu.tofu.resolve_source`.
        revision: The data's revision on the hub.
        forget_split: forget01, forget05 or forget10.
        folds: Parts that the split's authors are divided into; each is held out once.
        families: Prompt families that the held-out rows are asked in.
        lrs: Peak learning rates to choose from.
        epochs: Passes over the training authors to choose from.
        train_batch_size: Rows at a time.
        gradient_accumulation: Batches a step.
        warmup: Length of the linear warm-up, in epochs; at most half of a run's epochs.
        seed: Of the folds, the rows' order and dropout.
        dtype: As in `lm_eval_tofu.unlearn.options.TrainingConfig`.
        training: Further fields of transformers' `TrainingArguments`, by their own names.
        apply_chat_template: Whether questions are rendered with the chat template, in training and scoring.
        system_prompt: The system turn; None leaves it to the template.
        template_args: Further variables for the chat template.
        backend: `hf` or `vllm`, for scoring.
        model_args: Further model arguments of that backend.
        batch_size: As lm_eval's option; None: `auto` with vllm, 16 with hf.
        device: As lm_eval's option; None: lm_eval's default.
        keep_checkpoints: Keep the models that were fine-tuned; by default each is deleted once it is scored.
    """

    model: str
    retain: str
    output: Path
    tofu: str | None = None
    revision: str | None = None
    forget_split: str = "forget10"
    folds: int = 5
    families: tuple[str, ...] = ("direct",)
    lrs: tuple[float, ...] = (1e-5, 5e-5)
    epochs: tuple[int, ...] = (2, 5)
    train_batch_size: int = 8
    gradient_accumulation: int = 4
    warmup: float = 1.0
    seed: int = 0
    dtype: str = "auto"
    training: Mapping[str, Any] = field(default_factory=dict)
    apply_chat_template: bool = True
    system_prompt: str | None = None
    template_args: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "hf"
    model_args: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | str | None = None
    device: str | None = None
    keep_checkpoints: bool = False

    @property
    def settings(self) -> list["Setting"]:
        """What is chosen from, the gentlest first."""
        return [Setting(lr, epochs) for epochs in sorted(self.epochs) for lr in sorted(self.lrs)]

    @property
    def metadata(self) -> dict[str, Any]:
        """The tasks' options."""
        given = {"tofu": self.tofu, "tofu_revision": self.revision, "forget_split": self.forget_split}
        return {name: value for name, value in given.items() if value is not None} | {"families": list(self.families)}

    def determining(self) -> dict[str, Any]:
        """The options that determine the figures, as JSON has them."""
        without = ("output", "batch_size", "device", "keep_checkpoints")
        given: dict[str, Any] = json.loads(json.dumps({k: v for k, v in asdict(self).items() if k not in without}))
        return given

    def finetuning(self, job: "Job") -> FinetuneConfig:
        """How a job's model is fine-tuned."""
        return FinetuneConfig(
            model=job.model,
            split=self.forget_split,
            rows=tuple(job.train),
            output=job.checkpoint,
            tofu=self.tofu,
            revision=self.revision,
            epochs=job.epochs,
            learning_rate=job.lr,
            batch_size=self.train_batch_size,
            gradient_accumulation=self.gradient_accumulation,
            # A short run would otherwise never come near the rate that it is to try.
            warmup=min(self.warmup, job.epochs / 2),
            seed=self.seed,
            apply_chat_template=self.apply_chat_template,
            system_prompt=self.system_prompt,
            template_args=self.template_args,
            dtype=self.dtype,
            training=self.training,
        )

    def check(self) -> None:
        """Check what can be checked without reading data or model.

        Raises:
            OptionError: A value cannot be used.
        """
        tofu.retain_split(self.forget_split)
        families.chosen("--families", self.families, families.NOVEL_RECALL)
        if self.folds < 2:
            raise OptionError(f"--folds {self.folds} holds nobody out: give 2 or more")
        for option, values in (("--lrs", self.lrs), ("--epochs", self.epochs)):
            if not values or len(set(values)) < len(values):
                raise OptionError(f"{option} {_joined(values)} names {'a value twice' if values else 'nothing'}")
        for lr in self.lrs:
            if not (math.isfinite(lr) and lr > 0):
                raise OptionError(f"--lrs {_joined(self.lrs)}: {lr} is not above 0: give for example 1e-5,5e-5")
        for number in self.epochs:
            if number < 1:
                raise OptionError(f"--epochs {_joined(self.epochs)}: {number} is less than 1: give for example 2,5")
        if self.train_batch_size < 1:
            raise OptionError(f"--train-batch-size {self.train_batch_size} is less than 1: give 1 or more")
        if not (math.isfinite(self.warmup) and self.warmup >= 0):
            raise OptionError(f"--warmup {self.warmup} is below 0: it counts epochs; give 0 or more")
        if self.backend not in BACKENDS:
            raise OptionError(f"--backend {self.backend!r} is unknown: use {' or '.join(BACKENDS)}")
        for name in ("pretrained", "tokenizer"):
            if name in self.model_args:
                raise OptionError(
                    f"--model_args {name}={self.model_args[name]} has no use here: give --model, --retain"
                )
        if self.model == self.retain:
            raise OptionError(f"--retain {self.retain} is --model too: name the model that never saw the forget rows")
        first = self.settings[0]
        self.finetuning(Job(self.model, Path(), [], [0], first.lr, first.epochs)).check()


class Setting(NamedTuple):
    """A learning rate and a number of epochs."""

    lr: float
    epochs: int


@dataclass(frozen=True, slots=True)
class Job:
    """One step.

    Attributes:
        model: What it starts from.
        folder: Where it puts what it makes.
        scored: Rows to ask for.
        train: Rows to fine-tune on; none: the model is asked as it is.
        lr: Peak learning rate.
        epochs: Passes over `train`.
    """

    model: str
    folder: Path
    scored: Sequence[int]
    train: Sequence[int] = ()
    lr: float = 0.0
    epochs: int = 0

    @property
    def checkpoint(self) -> Path:
        """The fine-tuned model."""
        return self.folder / "checkpoint"


class Answer(NamedTuple):
    """What a model said to one prompt.

    Attributes:
        row: Index of the row.
        family: Of the prompt.
        prompt: lm-eval's hash of the rendered prompt.
        specific: Whether the row has a specific fact.
        leaked: The scorer's verdict.
        rouge: ROUGE-L recall of the gold answer.
        generation: The answer.
    """

    row: int
    family: str
    prompt: str
    specific: bool
    leaked: bool
    rouge: float
    generation: str


def answers(config: RelearnConfig, job: Job) -> list[Answer]:
    """Do a job, or what of it is left to do.

    Returns:
        An answer for each row in each family that has something to say of it, by row and family.

    Raises:
        TofuError: Training or scoring cannot be done.
    """
    file = job.folder / ANSWERS_FILE
    if not file.is_file():
        job.folder.mkdir(parents=True, exist_ok=True)
        if job.train and not job.checkpoint.is_dir():
            _carry_out("train", config, job)
        if not _results(job).is_dir():
            _carry_out("score", config, job)
        found = _read_samples(_results(job))
        _check_rows(found, job)
        settings = alike.settings_below(_results(job), TASK)
        record = None if settings is None else settings.to_record()
        files.write_json(file, {"answers": [answer._asdict() for answer in found], "settings": record})
    # Left over where an earlier run was killed in between.
    shutil.rmtree(_results(job), ignore_errors=True)
    if not config.keep_checkpoints:
        shutil.rmtree(job.checkpoint, ignore_errors=True)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return [Answer(**answer) for answer in content["answers"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OptionError(f"{file} cannot be read ({error}): delete it, and this step is done again") from error


def recorded_settings(output: Path) -> dict[str, ArmSettings | None]:
    """How each model was asked, by the directory of its step, the audited model as it was first; None: not recorded."""
    found = {}
    for file in sorted(output.rglob(ANSWERS_FILE)):
        content = json.loads(file.read_text(encoding="utf-8"))
        found[str(file.parent.relative_to(output))] = ArmSettings.from_record(content.get("settings"))
    return found


def _results(job: Job) -> Path:
    return job.folder / "results"


def _carry_out(half: str, config: RelearnConfig, job: Job) -> None:
    if config.backend != "vllm":
        _HALVES[half](config, job)
        return
    # As lists: a range would become its name.
    rows = {"scored": list(job.scored), "train": list(job.train)}
    told = json.dumps({**asdict(job), **rows, "folder": str(job.folder)})
    command = [sys.executable, "-m", __name__, half, str(config.output / CONFIG_FILE), told]
    child.run(command, job.folder / LOG_FILE, str(job.folder))


def train(config: RelearnConfig, job: Job) -> None:
    """Fine-tune the job's model on its rows; an interrupted training goes on."""
    finetune(config.finetuning(job))
    _free_memory()


def score(config: RelearnConfig, job: Job) -> None:
    """Ask the job's model, as it is or fine-tuned, for its rows, through lm-eval."""
    arguments = dict(config.model_args)
    if config.template_args:
        arguments["chat_template_args"] = dict(config.template_args)
    batch_size = config.batch_size
    if batch_size is None:
        batch_size = "auto" if config.backend == "vllm" else 16
    evaluation.evaluate(
        job.checkpoint if job.train else job.model,
        _results(job),
        tasks=(TASK,),
        backend=config.backend,
        model_args=arguments,
        metadata={**config.metadata, "forget_rows": list(job.scored)},
        apply_chat_template=config.apply_chat_template,
        system_instruction=config.system_prompt,
        batch_size=batch_size,
        device=config.device,
    )
    _free_memory()


_HALVES = {"train": train, "score": score}


def _free_memory() -> None:
    """Give back what the last model held: the trainer's objects refer to each other, so none goes by itself."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _read_samples(results: Path) -> list[Answer]:
    from lm_eval_tofu.metrics.facts import Tier
    from lm_eval_tofu.metrics.text import rouge_l_recall

    [file] = results.rglob(f"samples_{TASK}_*.jsonl")
    found = []
    # Not splitlines: a model may have written one of the other characters that it takes for the end of a line.
    for line in file.read_text(encoding="utf-8").rstrip("\n").split("\n"):
        sample = json.loads(line)
        record = sample["leak_rate"]
        found.append(
            Answer(
                row=record["index"],
                family=record["family"],
                prompt=sample["prompt_hash"],
                specific=record["tier"] == Tier.SPECIFIC,
                leaked=bool(record["leaked"]),
                rouge=rouge_l_recall(sample["doc"]["answer"], record["generation"]),
                generation=record["generation"],
            )
        )
    return sorted(found)


def _check_rows(found: Sequence[Answer], job: Job) -> None:
    """No row that was not asked for; a family may have nothing to say of a row, so some may be missing."""
    strange = {answer.row for answer in found} - set(job.scored)
    if strange or not found:
        raise OptionError(
            f"{_results(job)} holds other rows than were asked for: delete it, and this step is done again"
        )


def _joined(values: Sequence[Any]) -> str:
    return ",".join(map(str, values))


def load_config(path: Path) -> RelearnConfig:
    """Read the options that `relearn` wrote down for its processes."""
    content = json.loads(path.read_text(encoding="utf-8"))["options"]
    sequences = {name: tuple(content[name]) for name in ("families", "lrs", "epochs")}
    names = {each.name for each in fields(RelearnConfig)}
    known = {name: value for name, value in content.items() if name in names}
    return RelearnConfig(**{**known, **sequences, "output": path.parent})


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one half of a step: arguments are `train` or `score`, the options' file, and the job as JSON."""
    half, config_file, told = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    child.end_with_parent()
    content = json.loads(told)
    job = Job(**{**content, "folder": Path(content["folder"])})
    try:
        _HALVES[half](load_config(Path(config_file)), job)
    except TofuError as error:
        log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # vLLM's threads now and then abort the interpreter's shutdown, which would look like a failed step.
    os._exit(code)
