"""What tests share: tiny models of their own, trained or not, and the places of optional reference data."""

import functools
import os
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

# Before anything imports a library that reads them.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
# The models are too small for several threads, and a second process of tests has the other cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Kept for `tofu_data` alone: what a test does without naming data must not depend on the user's environment. Under a
# name of its own, so that the processes that run tests side by side find it too.
os.environ.setdefault("TESTS_TOFU_DATA", os.environ.pop("LM_EVAL_TOFU_DATA", ""))
# On the CPU also where there is a GPU, whose sums are not the same bit for bit. vLLM made for a GPU needs it, so its
# processes see it; the name is kept for the processes that run tests side by side, which find it hidden already.
os.environ.setdefault("TESTS_GPUS", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import pytest
from scipy.stats import binom

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
pytest_plugins = ("chromium",)

LONGEST = ("test_nano_arms.py", "test_install.py", "test_vllm.py", "test_relearn.py")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: whoever tests files side by side would else wait for one of them at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def by_chance(count: int, probability: float, error: float = 1e-4) -> tuple[float, float]:
    """The shares of `count` independent trials that chance alone leaves but once in 1/`error` times: exact binomial.

    A level of a trained model differs from machine to machine, because sums of floats do: tests hold it against this
    interval rather than against the value that it had on one of them.
    """
    low, high = binom.ppf([error / 2, 1 - error / 2], count, probability)
    return float(low) / count, float(high) / count


AGREEMENTS = pytest.StashKey[list[str]]()


@pytest.fixture
def agree(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Checks our values against reference figures and notes how closely they agree, for the summary of the run."""

    def check(what: str, ours: Any, theirs: Any, rel: float = 1e-6) -> None:
        """Shapes must be equal; `rel` is the largest relative difference allowed."""
        found, expected = np.atleast_1d(np.asarray(ours, float)), np.atleast_1d(np.asarray(theirs, float))
        assert found.shape == expected.shape, what
        differences = np.abs(found - expected) / np.where(expected == 0, 1, np.abs(expected))
        worst = float(differences.max())
        noted = request.config.stash.setdefault(AGREEMENTS, [])
        noted.append(f"{what}: {found.size} values, worst relative difference {worst:.1e} (allowed: {rel:.0e})")
        assert worst <= rel, noted[-1]  # false for NaN

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What was held against reference figures and how closely, where these tests were asked for."""
    if config.getoption("markexpr") == "parity":
        terminalreporter.section("compared with open-unlearning's figures")
        for line in config.stash.get(AGREEMENTS, ["nothing"]):
            terminalreporter.write_line(line)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """lm_eval describes its environment after each run, for which torch starts pip: once a process is enough."""
    if "lm_eval" in sys.modules:
        from torch.utils import collect_env

        if not hasattr(collect_env.get_pretty_env_info, "cache_info"):
            collect_env.get_pretty_env_info = functools.cache(collect_env.get_pretty_env_info)


def with_gpus() -> dict[str, str]:
    """The environment for a process that uses a GPU where there is one."""
    environment = dict(os.environ)
    visible = environment.pop("TESTS_GPUS")
    del environment["CUDA_VISIBLE_DEVICES"]
    return environment if visible == "all" else {**environment, "CUDA_VISIBLE_DEVICES": visible}


def tofu_data() -> str:
    """The real TOFU as the option `tofu` takes it, or skip the test saying how to provide it.

    The directory that LM_EVAL_TOFU_DATA names, else the one beside the checkout, else the hub where HF_HUB_OFFLINE=0
    allows the network.
    """
    named = os.environ["TESTS_TOFU_DATA"]
    if named and named != "mini":
        return str(Path(named).resolve()) if Path(named).is_dir() else named
    if (SHARED / "tofu").is_dir():
        return str(SHARED / "tofu")
    if os.environ["HF_HUB_OFFLINE"] in ("0", ""):
        return "locuslab/TOFU"
    pytest.skip("TOFU is not here: name a copy of locuslab/TOFU in LM_EVAL_TOFU_DATA, or set HF_HUB_OFFLINE=0")


def needs(folder: str) -> Path:
    """A folder of texts that are not part of the repository, or skip the test saying which one is missing."""
    path = SHARED / folder
    if not path.is_dir():
        pytest.skip(f"the texts of {folder!r} are not part of the repository (expected in ../shared/{folder})")
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


NANO_NPO = {
    "unlearned": {"epochs": 10, "learning_rate": 2e-3, "alpha": 5.0, "beta": 0.03},
    "lightly-unlearned": {"epochs": 4, "learning_rate": 3.8e-4, "alpha": 2.0, "beta": 0.1},
}
"""What suits 0.7 million parameters and 40 rows; the second keeps about half of the answers."""


@pytest.fixture(scope="session")
def nano_arms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of nano models of the miniature: base, full and retain as in the quickstart, and two by NPO.

    It takes minutes, so that all processes of a test run share one: what asks for it is marked `slow`.
    """
    import torch
    from filelock import FileLock

    from lm_eval_tofu.unlearn.finetune import FinetuneConfig, finetune
    from lm_eval_tofu.unlearn.unlearning import UnlearnConfig, unlearn

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # each worker's own directory lies in the run's
    arms = folder / "nano-arms"
    training = runpy.run_path(str(ROOT / "examples" / "quickstart.py"))["TRAINING"]
    common = {"tofu": "mini", "gradient_accumulation": 1}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # nano matrices are too small for more
    try:
        with FileLock(folder / "nano-arms.lock"):
            for arm, (start, split, epochs, learning_rate) in training.items():
                if (arms / arm).exists():
                    continue
                source = {"model": str(arms / start)} if start else {"model": None, "from_scratch": "nano"}
                settings = {"split": split, "epochs": epochs, "learning_rate": learning_rate}
                finetune(FinetuneConfig(**source, **settings, output=arms / arm, **common))
            for arm, settings in NANO_NPO.items():
                if (arms / arm).exists():
                    continue
                config = UnlearnConfig(model=str(arms / "full"), output=arms / arm, forget_split="forget10", **common)
                unlearn(replace(config, **settings))
    finally:
        torch.set_num_threads(threads)
    return arms


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
