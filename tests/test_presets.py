"""The run configs load in lm_eval, and their model arguments are ones that the backends know."""

import ast
import inspect
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from lm_eval.config.evaluate_config import EvaluatorConfig

from lm_eval_tofu import cli
from lm_eval_tofu.tasks import TASKS_DIR

PRESETS_DIR = cli.PRESETS_DIR / "lm_eval"
NAMES = sorted(path.stem for path in PRESETS_DIR.glob("*.yaml"))
LLAMAS = [name for name in NAMES if name.startswith("llama")]


@pytest.fixture
def config(request: pytest.FixtureRequest) -> EvaluatorConfig:
    return EvaluatorConfig.from_config(PRESETS_DIR / f"{request.param}.yaml")


def _copy(name: str, backend: str, output: Path) -> EvaluatorConfig:
    assert cli.main(["presets", name, "--backend", backend, "--pretrained", "a/b", "--output", str(output)]) == 0
    return EvaluatorConfig.from_config(output)


def _vllm_arguments() -> set[str]:
    """What lm_eval's vLLM backend takes, and what vLLM's engine takes where it is installed; neither is imported."""
    names = _parameters("lm_eval.models.vllm_causallms", "VLLM") - {"self", "kwargs"}
    if find_spec("vllm") is None:
        return names | {"enable_prefix_caching", "enforce_eager", "gpu_memory_utilization", "kv_cache_memory_bytes"}
    return names | _fields("vllm.engine.arg_utils", "EngineArgs")


def _class(module: str, name: str) -> ast.ClassDef:
    root, _, rest = module.partition(".")
    spec = find_spec(root)
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / f"{rest.replace('.', '/')}.py").read_text(encoding="utf-8")
    return next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name)


def _parameters(module: str, name: str) -> set[str]:
    methods = (node for node in _class(module, name).body if isinstance(node, ast.FunctionDef))
    return {argument.arg for method in methods if method.name == "__init__" for argument in method.args.args}


def _fields(module: str, name: str) -> set[str]:
    body = _class(module, name).body
    return {node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}


def _check_model_args(config: EvaluatorConfig) -> None:
    known = _vllm_arguments() if config.model == "vllm" else _parameters("lm_eval.models.huggingface", "HFLM")
    assert set(config.model_args) <= known
    # lm_eval's vLLM backend takes either name of the context length, and refuses both at once.
    assert len({"max_length", "max_model_len"} & set(config.model_args)) == 1


def test_all_presets_are_there() -> None:
    llamas = {"llama-3.2-1b-instruct", "llama-3.2-3b-instruct", "llama-3.1-8b-instruct"}
    assert {"base", "cpu", "cpu-hf", *llamas} <= set(NAMES)


@pytest.mark.parametrize("config", NAMES, indirect=True)
def test_loads_in_lm_eval(config: EvaluatorConfig) -> None:
    assert config.model in ("hf", "vllm")
    assert config.tasks == ["tofu_forget_quality", "tofu_model_utility", "tofu_answer_logprob"]
    assert all((TASKS_DIR / f"{task}.yaml").is_file() for task in config.tasks)
    assert config.log_samples
    assert config.output_path
    assert config.seed == [0, 0, 0, 0]
    _check_model_args(config)


@pytest.mark.parametrize("config", LLAMAS, indirect=True)
def test_llamas_pin_prompt_and_date(config: EvaluatorConfig) -> None:
    assert config.model == "vllm"
    assert config.apply_chat_template is True
    assert config.system_instruction == "You are a helpful assistant."
    assert config.model_args["chat_template_args"] == {"date_string": "10 Apr 2025"}
    assert config.model_args["enable_prefix_caching"] is False


@pytest.mark.parametrize("name", LLAMAS)
def test_llamas_name_their_checkpoint(name: str) -> None:
    version, size = name.split("-")[1:3]
    config = yaml.safe_load((PRESETS_DIR / f"{name}.yaml").read_text())
    pretrained = f"open-unlearning/tofu_Llama-{version}-{size.upper()}-Instruct_full"
    assert config["model_args"]["pretrained"] == pretrained


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", ["hf", "vllm"])
def test_every_preset_fits_either_backend(name: str, backend: str, tmp_path: Path) -> None:
    config = _copy(name, backend, tmp_path / "copy.yaml")
    assert config.model == backend
    assert config.model_args["pretrained"] == "a/b"
    _check_model_args(config)


def test_a_change_of_backend_translates(tmp_path: Path) -> None:
    hf = _copy("llama-3.2-1b-instruct", "hf", tmp_path / "hf.yaml")
    assert hf.device == "cuda:0"
    assert hf.model_args == {
        "pretrained": "a/b",
        "dtype": "bfloat16",
        "max_length": 1024,
        "softmax_dtype": "float32",
        "chat_template_args": {"date_string": "10 Apr 2025"},
    }
    vllm = _copy("cpu-hf", "vllm", tmp_path / "vllm.yaml")
    assert vllm.batch_size == "auto"
    assert vllm.model_args == {
        "pretrained": "a/b",
        "dtype": "float32",
        "max_model_len": 512,
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "kv_cache_memory_bytes": 2 * 2**30,
    }


def test_lm_eval_replaces_model_args_as_a_whole(tmp_path: Path) -> None:
    """Why `presets --pretrained` writes a file: should lm_eval merge one day, the copies are no longer needed."""
    from argparse import Namespace

    preset = PRESETS_DIR / "cpu-hf.yaml"
    merged = EvaluatorConfig.from_cli(Namespace(config=str(preset), model_args={"pretrained": "a/b"}))
    assert merged.model_args == {"pretrained": "a/b"}


@pytest.mark.parametrize("name", NAMES)
def test_every_key_has_a_reason(name: str) -> None:
    lines = (PRESETS_DIR / f"{name}.yaml").read_text().splitlines()
    keys = [
        number
        for number, line in enumerate(lines)
        if line.strip() and not line.lstrip().startswith(("#", "- ")) and line != "model_args:"
    ]
    bare = [lines[number] for number in keys if not lines[number - 1].lstrip().startswith("#")]
    assert [line.strip() for line in bare if not line.startswith("    ")] == []


def test_hf_knows_the_arguments_by_name() -> None:
    """The ast reading above agrees with the class itself."""
    from lm_eval.models.huggingface import HFLM

    assert set(inspect.signature(HFLM.__init__).parameters) - {"kwargs"} == _parameters(
        "lm_eval.models.huggingface", "HFLM"
    )
