"""What tests share: a tiny model of their own, and the places of optional reference data."""

import os
from pathlib import Path
from typing import Any

# Before anything imports a library that reads them.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
os.environ.pop("LM_EVAL_TOFU_DATA", None)

import pytest

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"


def needs(folder: str) -> Path:
    """The folder of optional reference data, or skip the test saying which one is missing."""
    path = SHARED / folder
    if not path.is_dir():
        pytest.skip(f"the reference data {folder!r} are not here (expected beside the checkout, in shared/{folder})")
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights (two layers, width 64) with a tokenizer and a chat template, saved to disk."""
    from lm_eval_tofu import tofu
    from lm_eval_tofu.unlearn import nano

    sizes = nano.NanoSizes(
        vocabulary=600,
        context=1024,
        hidden=64,
        feed_forward=128,
        layers=2,
        heads=2,
        key_value_heads=2,
        tied_embeddings=True,
        # Wide enough that the model has opinions: near-uniform logits would hide a wrong token.
        initial_deviation=0.2,
    )
    path = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = nano.build_tokenizer(nano.corpus(tofu.resolve_source("mini")), sizes)
    tokenizer.save_pretrained(path)
    nano.build_model(tokenizer, sizes, seed=1).save_pretrained(path)
    return path


@pytest.fixture
def evaluate(tiny_model: Path) -> Any:
    """`lm_eval.simple_evaluate` on the tiny model with our tasks alone, which spares the index of all others."""

    def run(tasks: list[str], metadata: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager

        from lm_eval_tofu.tasks import TASKS_DIR

        arguments = {"pretrained": str(tiny_model), "dtype": "float32", **kwargs.pop("model_args", {})}
        options = {"tofu": "mini", "forget_split": "forget01", **(metadata or {})}
        manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata={**arguments, **options})
        given = {"model": "hf", "device": "cpu", "batch_size": 16, "bootstrap_iters": 0, "apply_chat_template": True}
        given.update(kwargs)
        return simple_evaluate(model_args=arguments, tasks=tasks, task_manager=manager, **given)

    return run
