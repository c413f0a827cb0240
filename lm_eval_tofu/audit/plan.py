"""Plans an audit: checks everything that can be checked before a model is loaded, and makes the steps' commands."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lm_eval_tofu import files, presets, tofu
from lm_eval_tofu.audit.options import LEVELS, NEEDED, WITHOUT, AuditOptions
from lm_eval_tofu.audit.steps import Step, is_complete, numbered, record_in
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.evaluation import check_machine, check_results_name
from lm_eval_tofu.fingerprints import weights_fingerprint
from lm_eval_tofu.report.arms import CONTROLS
from lm_eval_tofu.report.load import task_versions
from lm_eval_tofu.tasks.options import is_followed
from lm_eval_tofu.unlearn.models import check_model, load_tokenizer
from lm_eval_tofu.unlearn.options import flag
from lm_eval_tofu.whitebox import VERSIONS

_LONGEST = 1024
"""Tokens of a prompt with its answer."""


@dataclass(frozen=True)
class Machine:
    """How all arms are run and asked."""

    backend: str
    model_args: Mapping[str, Any]  # without the model
    batch_size: str | None
    device: str | None
    chat: bool  # whether a chat template is applied, where the tokenizer has one
    system_prompt: str | None
    template_args: Mapping[str, Any]


def _machine(options: AuditOptions, context: int | None) -> Machine:
    """The preset's settings, with the user's own in their place."""
    config = presets.read(options.preset or ("base" if _has_gpu() else "cpu-hf"))
    default = config["model"] if options.preset or find_spec("vllm") is None else "vllm"
    backend = options.backend or default
    if backend not in ("hf", "vllm"):
        raise OptionError(f"--backend {backend} cannot be used here: use hf or vllm")
    if backend != config["model"]:
        presets.change_backend(config, backend)
    arguments = {**config["model_args"], **options.model_args}
    arguments.pop("pretrained", None)
    length = "max_length" if backend == "hf" else "max_model_len"
    if length not in options.model_args:
        # The longest prompts of all audits with their answers; more would reserve memory for nothing.
        arguments[length] = min(_LONGEST, context or _LONGEST)
    template_args = {**arguments.pop("chat_template_args", {}), **options.template_args}
    chat = options.apply_chat_template
    if chat is None:
        chat = config["apply_chat_template"] if options.preset else True
    return Machine(
        backend=backend,
        model_args=arguments,
        batch_size=options.batch_size or str(config["batch_size"]),
        device=options.device or config.get("device"),
        chat=chat,
        system_prompt=config.get("system_instruction") if options.system_prompt is None else options.system_prompt,
        template_args=template_args,
    )


def _has_gpu() -> bool:
    import torch

    return bool(torch.accelerator.is_available())


class Plan:
    """The steps of an audit, in order, and where everything lies."""

    def __init__(self, models: Mapping[str, str], options: AuditOptions) -> None:
        """Check everything that can be checked before a model is loaded.

        Raises:
            TofuError: An option, a model or the data cannot be used.
        """
        from lm_eval_tofu.tasks.task import preflight

        options.check()
        self.models, self.options = models, options
        self.audited = [arm for arm in models if arm not in CONTROLS]
        self.level = LEVELS[options.level]
        tokenizers, contexts = {}, []
        for arm, model in models.items():
            check_model(model, f"{arm}:")
            check_results_name(f"{arm}={model}", Path(model))
            tokenizers[arm], context = load_tokenizer(model, bool(options.apply_chat_template), f"{arm}:")
            contexts += [] if context is None else [context]
            _check_split(arm, model, options.forget_split)
        self.machine = machine = _machine(options, min(contexts, default=None))
        check_machine(machine.backend, machine.model_args, machine.batch_size, machine.device)
        # A base model often has no template, whatever the preset of the others says.
        self.chat = {
            arm: machine.chat and (options.apply_chat_template is not None or bool(tokenizer.chat_template))
            for arm, tokenizer in tokenizers.items()
        }
        arguments = {"pretrained": next(iter(models.values())), **machine.model_args}
        preflight(self.level.tasks, {**arguments, **options.task_options})
        source = tofu.resolve_source(options.tofu, options.revision)
        split = options.forget_split
        used = (split, f"{split}_perturbed", tofu.retain_split(split))
        self.data = {name: tofu.fingerprint(source, name) for name in used}
        # A model on the hub is identified by its name alone.
        self.weights = {arm: weights_fingerprint(Path(model).expanduser()) for arm, model in models.items()}

    def results(self, arm: str) -> Path:
        """The directory of an arm's results, which the report reads."""
        return self.options.output / "results" / arm

    def steps(self) -> list[Step]:
        """All steps, finished or not, in an order in which references are made before they are needed."""
        return [*(step for arm in self.models for step in self._evaluations(arm)), *self.tools(self.level.tools)]

    def tools(self, names: Iterable[str]) -> Iterator[Step]:
        """Some white-box audits, as far as the arms that they need are there."""
        for tool in names:
            if all(arm in self.models for arm in NEEDED[tool]):
                for arm in self.models if tool == "memorization" else self.audited:
                    yield self._tool(tool, arm)

    def missing(self) -> Iterator[str]:
        """What cannot be said with these arms."""
        if not self.audited:
            yield "there is no arm to audit beside the controls: name one, such as unlearned=MODEL"
        for arm, what in WITHOUT.items():
            if arm not in self.models:
                yield f"without {arm}=MODEL it cannot be said: {what}"
        for tool in self.level.tools:
            lacking = [name for name in NEEDED[tool] if name not in self.models]
            if lacking:
                yield f"{tool} is left out: it needs {' and '.join(f'{name}=MODEL' for name in lacking)}"

    # Evaluation by lm_eval.

    def settings(self, arm: str) -> dict[str, Any]:
        """What determines the results of lm_eval on an arm, but for references."""
        machine = self.machine
        settings = {
            "model": self.models[arm],
            "weights": self.weights[arm],
            "data": self.data,
            "options": self.options.task_options,
            "chat": self.chat[arm],
            **{name: getattr(machine, name) for name in ("backend", "model_args", "batch_size", "device")},
            **{name: getattr(machine, name) for name in ("system_prompt", "template_args")},
        }
        return dict(files.as_json_values(settings))

    def _references(self, arm: str) -> dict[str, str]:
        """The arms that an arm's evaluation refers to, by option."""
        order = list(self.models)
        earlier = order[: order.index(arm)]
        return {f"{name}_reference": name for name in ("retain", "full") if name in earlier}

    def _of_task(self, arm: str, task: str) -> dict[str, Any]:
        """What determines the results of one task besides."""
        return {
            "version": task_versions()[task],
            **{
                name: _digest(self.settings(other))
                for name, other in self._references(arm).items()
                if is_followed(name, task)
            },
        }

    def _evaluations(self, arm: str) -> Iterator[Step]:
        """The finished evaluations of an arm, and one of the tasks that are left."""
        settings, left = self.settings(arm), {task: self._of_task(arm, task) for task in self.level.tasks}
        folder, taken = self.results(arm) / "lm_eval", set()
        for done in numbered(folder):
            record = record_in(done)
            if record is None or record["settings"] != settings or not is_complete(done, record["tasks"]):
                continue
            taken.add(int(done.name))
            left = {task: value for task, value in left.items() if record["tasks"].get(task) != value}
            yield Step(arm, "evaluation", done, record["command"], settings, record["tasks"])
        if left:
            output = folder / str(next(number for number in range(1, len(taken) + 2) if number not in taken))
            yield Step(arm, "evaluation", output, self._lm_eval(arm, list(left), output), settings, left)

    def _lm_eval(self, arm: str, tasks: Sequence[str], output: Path) -> list[str]:
        machine = self.machine
        references = {name: str(self.results(other) / "lm_eval") for name, other in self._references(arm).items()}
        arguments = {"pretrained": self.models[arm], **machine.model_args}
        if self.chat[arm] and machine.template_args:
            arguments["chat_template_args"] = machine.template_args
        metadata = {**self.options.task_options, **references}
        command = ["lm_eval", "run", "--model", machine.backend, "--model_args", json.dumps(arguments)]
        command += ["--tasks", ",".join(tasks), "--metadata", json.dumps(metadata), "--log_samples"]
        command += ["--output_path", str(output)]
        for name, value in (("batch_size", machine.batch_size), ("device", machine.device)):
            command += [] if value is None else [f"--{name}", value]
        command += ["--apply_chat_template"] if self.chat[arm] else []
        command += [] if machine.system_prompt is None else ["--system_instruction", machine.system_prompt]
        return command

    # The white-box audits.

    def _tool(self, tool: str, arm: str) -> Step:
        machine, options, task = self.machine, self.options, f"tofu_{tool}"
        folder = self.results(arm) / tool
        command = ["lm-eval-tofu", tool, "--model", self.models[arm], "--forget-split", options.forget_split]
        arms = [arm, *NEEDED[tool]] + (["full"] if tool == "probe" and "full" in self.models else [])
        for other in arms[1:]:
            command += [f"--{other}", self.models[other]]
        given = {"tofu": options.tofu, "revision": options.revision, "system_prompt": machine.system_prompt}
        if self.chat[arm] and machine.template_args:
            given["template_args"] = json.dumps(machine.template_args)
        if tool == "relearn":
            given |= {"backend": machine.backend, "batch_size": machine.batch_size}
            given["model_args"] = ",".join(f"{name}={value}" for name, value in machine.model_args.items())
        for name, value in {**given, "device": machine.device}.items():
            command += [] if value is None else [flag(name), value]
        command += ["--apply-chat-template" if self.chat[arm] else "--no-chat-template"]
        settings = {
            "options": command,
            "weights": {other: self.weights[other] for other in arms},
            "data": self.data,
        }
        command = [*command, "--output", str(folder)]
        of_task: dict[str, Any] = {"version": VERSIONS[task]}
        if tool == "memorization" and arm != "retain" and "retain" in self.models:
            command += ["--retain-reference", str(self.results("retain") / tool)]
            of_task["retain_reference"] = self.weights["retain"]
        return Step(arm, tool, folder, command, files.as_json_values(settings), {task: of_task})

    # The report.

    def report_command(self) -> list[str]:
        """The command that writes the report."""
        arms = [f"{arm}={self.results(arm)}" for arm in self.models]
        return ["lm-eval-tofu", "report", *arms, "--output", str(self.options.output / "report")]


def _check_split(arm: str, model: str, forget_split: str) -> None:
    """Refuse a model whose own record of its training names another split."""
    wanted = {forget_split, tofu.retain_split(forget_split)}
    others = {each for split in tofu.FORGET_SPLITS for each in (split, tofu.retain_split(split))} - wanted
    for name in ("unlearning.json", "training.json"):
        file = Path(model).expanduser() / name
        if not file.is_file():
            continue
        options = files.read_json(file).get("options", {})
        trained = {options.get("forget_split"), *str(options.get("split")).split("+")} & others
        if trained:
            raise OptionError(
                f"{arm}={model} was trained for {min(trained)}, as its {name} says, and the audit is of "
                f"{forget_split}: name the model of {' and '.join(sorted(wanted))}, or give another --forget-split"
            )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
