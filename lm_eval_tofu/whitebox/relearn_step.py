"""One step of relearning: fine-tune a model on some rows, then score its answers about others.

`lm_eval_tofu.whitebox.relearn` plans the steps. With vLLM each half of a step is a process of its own, since an engine
that shares a GPU with what training left there runs out of memory.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_tofu import evaluation, files, tofu
from lm_eval_tofu.arm import ArmSettings
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.tasks import families
from lm_eval_tofu.unlearn import alike, child
from lm_eval_tofu.unlearn.finetune import FinetuneConfig, finetune
from lm_eval_tofu.unlearn.options import DTYPES, DataOptions, PromptOptions, json_object, option, parsed_training

TASK = "tofu_novel_recall"
BACKENDS = ("hf", "vllm")
ANSWERS_FILE, LOG_FILE = "answers.json", "log.txt"


def _training(text: str) -> dict[str, Any]:
    return parsed_training("--training", json_object("--training", text))


def _model_args(text: str) -> dict[str, Any]:
    from lm_eval.utils import simple_parse_args_string

    return dict(simple_parse_args_string(text))


_OF_THE_TRAINING = (
    *("tofu", "revision", "apply_chat_template", "system_prompt", "template_args"),
    *("gradient_accumulation", "seed", "dtype", "training"),
)
"""Options that a fine-tuning takes over as they are."""


class Setting(NamedTuple):
    """A learning rate and a number of epochs."""

    lr: float
    epochs: int


@dataclass(kw_only=True)
class RelearnConfig(PromptOptions, DataOptions):
    """The options of `lm-eval-tofu relearn`; those of data and prompts hold for training and asking alike."""

    model: str = field(metadata=option("the model to audit: directory or hub name", metavar="M"))
    retain: str = field(metadata=option("the retain arm, which never saw the forget rows", metavar="M"))
    output: Path = field(metadata=option("directory of the results, and of what is resumed from", metavar="DIR"))
    forget_split: str = field(default="forget10", metadata=option(f"one of {', '.join(tofu.FORGET_SPLITS)}"))
    folds: int = field(default=5, metadata=option("parts of the authors, each held out once"))
    families: tuple[str, ...] = field(
        default=("direct",),
        metadata=option(f"prompt families to ask in, joined by commas, out of {', '.join(families.NOVEL_RECALL)}"),
    )
    lrs: tuple[float, ...] = field(
        default=(1e-5, 5e-5), metadata=option("peak learning rates to choose from, joined by commas")
    )
    epochs: tuple[int, ...] = field(
        default=(2, 5), metadata=option("numbers of epochs to choose from, joined by commas")
    )
    train_batch_size: int = field(default=8, metadata=option("rows at a time in training"))
    gradient_accumulation: int = field(default=4, metadata=option("batches per step"))
    warmup: float = field(default=1.0, metadata=option("linear warm-up, in epochs, at most half of a run's"))
    seed: int = field(default=0, metadata=option("of the folds and the training"))
    dtype: str = field(default="auto", metadata=option(f"of the training: one of {', '.join(DTYPES)}"))
    training: Mapping[str, Any] = field(
        default_factory=dict,
        metadata=option("further options of the trainer (TrainingArguments)", metavar="JSON", parse=_training),
    )
    backend: str = field(default="hf", metadata=option("for the answers: hf or vllm"))
    model_args: Mapping[str, Any] = field(
        default_factory=dict,
        metadata=option("further model arguments of the backend", metavar="K=V,...", parse=_model_args),
    )
    batch_size: int | str | None = field(
        default=None, metadata=option("of the answers, as lm_eval's --batch_size (default: 16; vllm: auto)")
    )
    device: str | None = field(default=None, metadata=option("of the answers, as lm_eval's --device"))
    keep_checkpoints: bool = field(default=False, metadata=option("keep the fine-tuned models once they are scored"))

    @property
    def settings(self) -> list[Setting]:
        """What is chosen from, the gentlest first."""
        return [Setting(lr, epochs) for epochs in sorted(self.epochs) for lr in sorted(self.lrs)]

    @property
    def metadata(self) -> dict[str, Any]:
        """The task's options."""
        given = {"tofu": self.tofu, "tofu_revision": self.revision, "forget_split": self.forget_split}
        return {name: value for name, value in given.items() if value is not None} | {"families": list(self.families)}

    def reproducibility_fields(self) -> dict[str, Any]:
        """The options that determine the figures, as JSON has them."""
        without = ("output", "batch_size", "device", "keep_checkpoints")
        return dict(files.as_json_values({k: v for k, v in asdict(self).items() if k not in without}))

    def finetuning(self, job: "Job") -> FinetuneConfig:
        """How a job's model is fine-tuned."""
        return FinetuneConfig(
            model=job.model,
            split=self.forget_split,
            rows=tuple(job.train),
            output=job.checkpoint,
            epochs=job.setting.epochs,
            learning_rate=job.setting.lr,
            batch_size=self.train_batch_size,
            # A short run would otherwise never come near the rate that it is to try.
            warmup=min(self.warmup, job.setting.epochs / 2),
            **{name: getattr(self, name) for name in _OF_THE_TRAINING},
        )

    def check(self) -> None:
        """Check what can be checked without reading data or model.

        Raises:
            OptionError: A value cannot be used.
        """
        tofu.retain_split(self.forget_split)
        families.chosen("--families", self.families, families.NOVEL_RECALL)
        if self.folds < 2:
            raise OptionError(f"--folds {self.folds} holds no author out: give 2 or more")
        lrs, epochs = (",".join(map(str, values)) for values in (self.lrs, self.epochs))
        for name, shown, values in (("--lrs", lrs, self.lrs), ("--epochs", epochs, self.epochs)):
            if not values or len(set(values)) < len(values):
                raise OptionError(f"{name} {shown} names {'a value twice' if values else 'nothing'}")
        for lr in self.lrs:
            if not (math.isfinite(lr) and lr > 0):
                raise OptionError(f"--lrs {lrs}: {lr} is not above 0: give for example 1e-5,5e-5")
        for number in self.epochs:
            if number < 1:
                raise OptionError(f"--epochs {epochs}: {number} is less than 1: give for example 2,5")
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
        self.finetuning(Job(self.model, Path(), [], [0], self.settings[0])).check()


class Job(NamedTuple):
    """One step."""

    model: str  # what it starts from
    folder: Path  # directory of its files
    scored: Sequence[int]  # rows to ask for
    train: Sequence[int] = ()  # rows to fine-tune on; none: the model is asked as it is
    setting: Setting = Setting(0.0, 0)

    @property
    def checkpoint(self) -> Path:
        """Directory of the fine-tuned model."""
        return self.folder / "checkpoint"

    @property
    def results(self) -> Path:
        """Directory of lm-eval's results."""
        return self.folder / "results"


class Answer(NamedTuple):
    """A model's answer to one prompt."""

    row: int
    family: str
    prompt: str  # lm-eval's hash of the rendered prompt
    specific: bool  # whether the row has a specific fact
    leaked: bool  # the scorer's verdict
    rouge: float  # ROUGE-L recall of the gold answer
    generation: str  # the answer


def answers(config: RelearnConfig, job: Job) -> list[Answer]:
    """Do a job, or what of it is left to do.

    Returns:
        An answer for each row in each family that has a prompt for it, by row and family.

    Raises:
        TofuError: Training or scoring cannot be done.
    """
    file = job.folder / ANSWERS_FILE
    if not file.is_file():
        job.folder.mkdir(parents=True, exist_ok=True)
        if job.train and not job.checkpoint.is_dir():
            _carry_out(train, config, job)
        if not job.results.is_dir():
            _carry_out(score, config, job)
        settings = alike.settings_below(job.results, TASK)
        record = None if settings is None else settings.to_record()
        files.write_json(file, {"answers": [each._asdict() for each in _read_samples(job)], "settings": record})
    # Left over where an earlier run was killed in between.
    shutil.rmtree(job.results, ignore_errors=True)
    if not config.keep_checkpoints:
        shutil.rmtree(job.checkpoint, ignore_errors=True)
    fix = "delete it, and this step is done again"
    try:
        return [Answer(**answer) for answer in files.read_json(file, fix)["answers"]]
    except (TypeError, KeyError) as error:
        raise OptionError(f"{file} cannot be read ({error}): {fix}") from error


def recorded_settings(output: Path) -> dict[str, ArmSettings | None]:
    """How each model was asked, by the directory of its step, the audited model as it was first; None: not recorded."""
    return {
        str(file.parent.relative_to(output)): ArmSettings.from_record(files.read_json(file).get("settings"))
        for file in sorted(output.rglob(ANSWERS_FILE))
    }


def _carry_out(half: Callable[[RelearnConfig, Job], None], config: RelearnConfig, job: Job) -> None:
    if config.backend == "vllm":
        child.call(half, config, job, record=job.folder / LOG_FILE, name=str(job.folder))
    else:
        half(config, job)


def train(config: RelearnConfig, job: Job) -> None:
    """Fine-tune the job's model on its rows; an interrupted training resumes."""
    finetune(config.finetuning(job))
    _free_memory()


def score(config: RelearnConfig, job: Job) -> None:
    """Ask the job's model, as it is or fine-tuned, for its rows, through lm-eval."""
    template_args = {"chat_template_args": dict(config.template_args)} if config.template_args else {}
    default = "auto" if config.backend == "vllm" else 16
    evaluation.evaluate(
        job.checkpoint if job.train else job.model,
        job.results,
        tasks=(TASK,),
        backend=config.backend,
        model_args={**config.model_args, **template_args},
        metadata={**config.metadata, "forget_rows": list(job.scored)},
        apply_chat_template=config.apply_chat_template,
        system_instruction=config.system_prompt,
        batch_size=default if config.batch_size is None else config.batch_size,
        device=config.device,
    )
    _free_memory()


def _free_memory() -> None:
    """Free what the last model held: the trainer's objects refer to each other, so none is freed by itself."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _read_samples(job: Job) -> list[Answer]:
    """The answers in lm-eval's samples; a family may have no prompt for a row, so some rows may be missing."""
    from lm_eval_tofu.metrics.kinds import Tier
    from lm_eval_tofu.metrics.text import rouge_l_recall

    [file] = files.samples_files(job.results, TASK)
    found = []
    for _, sample in files.read_json_lines(file):
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
    if not found or not {answer.row for answer in found} <= set(job.scored):
        raise OptionError(f"{job.results} holds other rows than were asked for: delete it, and this step is done again")
    return sorted(found)
