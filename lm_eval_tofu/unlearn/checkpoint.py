"""Writes checkpoints whole or not at all, and finds what an interrupted run left to resume from.

While a run lasts, everything lies in the sibling directory `<output>.partial/`: the trainer's own checkpoint of the
last epoch, and `options.json`, the run's options. The finished checkpoint is put together there too and then renamed,
so that a directory with the output's name is never half a model.
"""

import json
import logging
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from lm_eval_tofu import files
from lm_eval_tofu.errors import OptionError

log = logging.getLogger(__name__)

RECORD = "training.json"
"""The record of how a checkpoint was made, beside its weights."""

_OPTIONS, _LOCK = "options.json", ".lock"
_FINISHED = "finished"
_LIBRARIES = ("lm-eval-tofu", "torch", "transformers", "tokenizers", "accelerate", "safetensors", "peft")

Digests = dict[str, int]
"""CRC-32 of each parameter's bytes, by the parameter's name."""


def partial_folder(output: Path) -> Path:
    """Where a run that ends in `output` keeps what it needs to be resumed."""
    output = output.absolute()
    return output.with_name(output.name + ".partial")


def check_output(output: Path, overwrite: bool) -> None:
    """Refuse to train towards an output that could not be written at the end.

    Raises:
        OptionError: Something with that name exists and `overwrite` is off, or it is no directory.
    """
    if output.exists() and not output.is_dir():
        raise OptionError(f"--output {output} is a file: name a directory")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise OptionError(f"--output {output} exists already: name another directory, or give --overwrite")


@contextmanager
def begun(output: Path, options: Mapping[str, Any], arguments: Any) -> Iterator[Path | None]:
    """Open the partial folder of a run, lock it, and find what an earlier, interrupted run left there.

    Args:
        output: The directory of the finished checkpoint.
        options: Everything that determines the result, as JSON values.
        arguments: The run's `TrainingArguments`; of several processes, the first one makes and locks the folder.

    Yields:
        The trainer's last whole checkpoint, to resume from; None where the run starts at its beginning.

    Raises:
        OptionError: The folder is of a run with other options, of one that is still training, or of something else.
    """
    import filelock

    partial = partial_folder(output)
    with arguments.main_process_first(desc="partial folder"):
        if partial.exists():
            recorded = _read_options(partial)
        else:
            partial.mkdir(parents=True)
            recorded = {}
            files.write_json(partial / _OPTIONS, recorded)
        lock = filelock.FileLock(partial / _LOCK, timeout=0)
        if arguments.process_index == 0:
            # The system releases the lock of a process that dies.
            try:
                lock.acquire()
            except filelock.Timeout as error:
                raise OptionError(
                    f"--output {output} is what another process is training ({partial} is locked): name another "
                    "directory, or wait until it has finished"
                ) from error
        resumed = _resumed(partial, files.as_json_values(options), recorded)
    try:
        yield resumed
    finally:
        lock.release()


def _resumed(partial: Path, options: Mapping[str, Any], recorded: Mapping[str, Any]) -> Path | None:
    resumed = _last_whole(partial)
    if resumed is not None:
        _check_same(options, recorded, partial)
    elif recorded != options:
        # The earlier run did not finish its first epoch: there is nothing to resume, so its options do not matter.
        files.write_json(partial / _OPTIONS, options)
    return resumed


def finish(
    output: Path,
    *,
    save: Callable[[Path], Mapping[str, Any] | None],
    record: Mapping[str, Any],
    before: Digests,
    name: str = RECORD,
    main_process: bool = True,
    wait: Callable[[], object] = lambda: None,
) -> None:
    """Write the checkpoint beside the output, then move it into place and remove the partial folder.

    Args:
        output: Directory of the finished checkpoint; an existing one is replaced.
        save: Writes weights, tokenizer and generation config to a directory, and may return what is to be added to the
            record; called in every process.
        record: How the checkpoint was made; the weights' fingerprint, the libraries' versions and this package's git
            revision are added.
        before: `parameter_digests` of the model before training.
        name: The record's file name.
        main_process: Whether this process writes files (one does, of several).
        wait: Returns when all processes have come here.

    Raises:
        OptionError: The weights are what they were before training.
    """
    output = output.absolute()
    partial = partial_folder(output)
    finished = partial / _FINISHED
    if main_process:
        shutil.rmtree(finished, ignore_errors=True)
    wait()
    added = save(finished)
    wait()
    if not main_process:
        return
    after = saved_digests(finished)
    common = before.keys() & after.keys()
    if common and all(before[name] == after[name] for name in common):
        discard(output)
        raise OptionError(
            f"--output {output} is not written, because training changed no weight: raise --learning-rate, or lower "
            "--warmup (the learning rate of the first step of a warm-up is 0)"
        )
    known = {"weights": fingerprint(after), "weights_before": fingerprint(before), **(added or {})}
    files.write_json(finished / name, {**record, **known, "versions": _versions(), "git_revision": _git_revision()})
    _keep_logs(partial, finished)
    _replace(finished, output)
    shutil.rmtree(partial)


def write_old_names(folder: Path) -> None:
    """Let release 4 of transformers read a checkpoint too, which open-unlearning and older vLLM use.

    Release 5 has other names for a few settings, and reads the old ones as well. Release 4 refuses the new name of the
    tokenizer's class. Unknown names in `config.json` it passes over without a word, and so computes other rotary
    embeddings.

    Args:
        folder: A checkpoint, as release 5 has written it; its `config.json` and `tokenizer_config.json` are changed.
    """
    for name, convert in (("config.json", _with_old_names), ("tokenizer_config.json", _with_old_tokenizer_names)):
        path = folder / name
        if path.is_file():
            files.write_json(path, convert(json.loads(path.read_text(encoding="utf-8"))))


def _with_old_names(config: dict[str, Any]) -> dict[str, Any]:
    config = {name: _with_old_names(value) if isinstance(value, dict) else value for name, value in config.items()}
    if "dtype" in config:
        config["torch_dtype"] = config["dtype"]
    rope = config.get("rope_parameters")
    # Those by layer type have other old names in each architecture.
    if isinstance(rope, dict) and "rope_theta" in rope:
        config["rope_theta"] = rope["rope_theta"]
        if "partial_rotary_factor" in rope:
            config["partial_rotary_factor"] = rope["partial_rotary_factor"]
        if rope.get("rope_type", "default") != "default":
            config["rope_scaling"] = {key: rope[key] for key in rope if key != "rope_theta"}
    return config


def _with_old_tokenizer_names(config: dict[str, Any]) -> dict[str, Any]:
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    return config


def discard(output: Path) -> None:
    """Remove what a run that cannot be finished has left."""
    shutil.rmtree(partial_folder(output), ignore_errors=True)


def parameter_digests(model: Any) -> Digests:
    """Digest every parameter of a torch model, by the name that a checkpoint has it under; shared ones once."""
    from transformers import PreTrainedModel

    parameters = dict(model.named_parameters())
    if isinstance(model, PreTrainedModel):
        # Some architectures have other names in memory than on disk (Gemma 3 with its vision part).
        from transformers.core_model_loading import revert_weight_conversion

        parameters = revert_weight_conversion(model, parameters)
    return {name: _digest(parameter) for name, parameter in parameters.items()}


def saved_digests(folder: Path) -> Digests:
    """Digest every tensor of the safetensors files in `folder`."""
    from safetensors import safe_open

    digests: Digests = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            # The file's handle has `keys` but cannot be iterated over.
            for name in tensors.keys():  # noqa: SIM118
                digests[name] = _digest(tensors.get_tensor(name))
    return digests


def fingerprint(digests: Digests) -> str:
    """One name for all weights, 8 hexadecimal digits: results of two checkpoints with the same one are the same."""
    return f"{zlib.crc32(json.dumps(digests, sort_keys=True).encode()):08x}"


def _digest(tensor: Any) -> int:
    import torch

    # As bytes, because numpy has no bfloat16.
    return zlib.crc32(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _read_options(partial: Path) -> dict[str, Any]:
    try:
        return files.read_json(partial / _OPTIONS)
    except OptionError as error:
        raise OptionError(
            f"{partial} is in the way and is not the folder of an interrupted run: delete it or name another --output"
        ) from error


def _check_same(options: Mapping[str, Any], recorded: Mapping[str, Any], partial: Path) -> None:
    for name in sorted(recorded.keys() | options.keys()):
        old, new = recorded.get(name), options.get(name)
        if old != new:
            raise OptionError(
                f"--{name.replace('_', '-')} is {new!r}, but was {old!r} in the interrupted run in {partial}: "
                "resume it with the same, or delete that folder to start anew"
            )


def _last_whole(partial: Path) -> Path | None:
    """The newest of the trainer's checkpoints; half-written and damaged ones are removed."""
    whole = []
    for folder in partial.glob("checkpoint-*"):
        try:
            # The trainer writes this file last.
            state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
            _check_files(folder)
            whole.append((int(state["global_step"]), folder))
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            log.warning("%s is not whole (%s), so it is removed and not resumed from", folder, error)
            shutil.rmtree(folder)
    return max(whole)[1] if whole else None


def _check_files(folder: Path) -> None:
    """Raise ValueError or BadZipFile where weights or the optimizer's state are cut or damaged."""
    from safetensors import SafetensorError, safe_open

    for path in folder.rglob("*.safetensors"):
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{path.name}: {error}") from error
    for path in [*folder.rglob("*.pt"), *folder.rglob("*.pth")]:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{path.name}: {damaged} is damaged")


def _keep_logs(partial: Path, finished: Path) -> None:
    """TensorBoard's event files go where the hub looks for them."""
    if (partial / "runs").is_dir():
        (partial / "runs").rename(finished / "runs")


def _replace(finished: Path, output: Path) -> None:
    files.sync(finished)
    if not output.exists():
        finished.rename(output)
        return
    # A directory with files in it cannot be renamed over: it steps aside first, within the same parent.
    old = output.with_name(output.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    output.rename(old)
    finished.rename(output)
    shutil.rmtree(old)


def _versions() -> dict[str, str]:
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            # Run from a source tree that is not installed.
            versions[library] = "unknown"
    return versions


def _git_revision() -> str | None:
    """The commit of the source tree that this package runs from; None where it is installed from elsewhere."""
    folder = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
        # A package in the virtual environment of some other project's tree is no part of that tree.
        tracked = subprocess.run(
            ["git", "-C", str(folder), "ls-files", "--error-unmatch", Path(__file__).name],
            capture_output=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 and tracked.returncode == 0 else None
