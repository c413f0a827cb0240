"""The whole chain on the miniature, for real: arms that were trained, the benchmark, and the leaks of each.

The full arm has every answer by heart, the retain arm never saw the forget rows, the base model saw no row at all, and
a model that was unlearned lightly lies between.
"""

import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import with_gpus

from lm_eval_tofu.evaluation import BENCHMARK, evaluate, newest_results
from lm_eval_tofu.whitebox.probe import ProbeConfig, probe

pytestmark = pytest.mark.slow

ARMS = ("base", "full", "retain", "lightly-unlearned")
DIRECT = {"tofu": "mini", "forget_split": "forget10", "families": "direct"}
HF: dict[str, Any] = {"model_args": {"dtype": "float32"}, "batch_size": 64, "device": "cpu"}
# The interpreter's shutdown may be aborted by vLLM's threads, when all is written: what counts is what was written.
ON_VLLM = """
import json, sys
from pathlib import Path
from lm_eval_tofu.evaluation import evaluate
arguments = {"dtype": "float32", "enforce_eager": True, "max_model_len": 1024}
evaluate(sys.argv[1], Path(sys.argv[2]), tasks=["tofu_novel_recall"], backend="vllm", model_args=arguments,
         metadata=json.loads(sys.argv[3]), batch_size="auto")
"""


def figures(path: Path) -> dict[str, float]:
    """All metrics of a results file by their own names, which do not clash between the tasks that are run here."""
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    return {
        name.removesuffix(",none"): value
        for values in results.values()
        for name, value in values.items()
        if name.endswith(",none")
    }


@pytest.fixture(scope="module")
def benchmarked(nano_arms: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    folder, found = tmp_path_factory.mktemp("benchmark"), {}
    for arm in ("retain", "full", "unlearned"):
        metadata = {"tofu": "mini", "forget_split": "forget10"}
        metadata |= {} if arm == "retain" else {"retain_reference": str(folder / "retain")}
        found[arm] = figures(evaluate(nano_arms / arm, folder / arm, tasks=BENCHMARK, metadata=metadata, **HF))
    return found


def test_npo_takes_the_forget_rows_away_and_leaves_the_rest(benchmarked: dict[str, dict[str, float]]) -> None:
    full, unlearned = benchmarked["full"], benchmarked["unlearned"]
    assert full["rougeL_recall"] >= 0.9
    assert unlearned["rougeL_recall"] < 0.5
    assert unlearned["retain_rougeL_recall"] >= 0.8
    assert unlearned["forget_quality_log10"] > full["forget_quality_log10"] + 4


def test_the_probe_reads_what_full_knows_and_base_does_not(nano_arms: Path, tmp_path: Path) -> None:
    arms = {arm: str(nano_arms / arm) for arm in ("base", "retain", "full")}
    settings = {"tofu": "mini", "layers": [-1], "device": "cpu"}
    found = probe(ProbeConfig(model=str(nano_arms / "unlearned"), **arms, output=tmp_path, **settings))["tofu_probe"]
    last = {arm: content["layers"][-1]["top1"] for arm, content in found["arms"].items()}
    shuffled = {arm: content["layers"][-1]["top1"] for arm, content in found["controls"]["shuffled_labels"].items()}
    assert last["full"] > 0.8
    error = math.sqrt(5 / 36 / found["n"])
    for value in (last["base"], *shuffled.values()):
        assert abs(value - 1 / 6) < 3 * error
    assert last["model"] < last["full"]


def check_leaks(found: dict[str, dict[str, float]]) -> None:
    leaks = {arm: metrics["leak_rate_direct"] for arm, metrics in found.items()}
    assert leaks["full"] >= 0.9
    assert leaks["base"] <= 0.02
    assert leaks["retain"] <= 0.02
    assert leaks["retain"] < leaks["lightly-unlearned"] < leaks["full"]
    assert all(metrics["n"] == 40 and metrics["leak_rate"] == leaks[arm] for arm, metrics in found.items())


def test_leaks_of_the_arms_on_hf(nano_arms: Path, tmp_path: Path) -> None:
    settings = {"tasks": ["tofu_novel_recall"], "metadata": DIRECT, **HF}
    check_leaks({arm: figures(evaluate(nano_arms / arm, tmp_path / arm, **settings)) for arm in ARMS})


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make env, or the extra 'vllm'")
def test_leaks_of_the_arms_on_vllm(nano_arms: Path, tmp_path: Path) -> None:
    found = {}
    for arm in ARMS:
        arguments = [str(nano_arms / arm), str(tmp_path / arm), json.dumps(DIRECT)]
        environment = {**with_gpus(), "VLLM_CPU_KVCACHE_SPACE": "1"}
        process = subprocess.run(
            [sys.executable, "-c", ON_VLLM, *arguments], env=environment, capture_output=True, text=True, timeout=600
        )
        assert (tmp_path / arm).is_dir(), process.stderr[-5000:]
        found[arm] = figures(newest_results(tmp_path / arm))
    check_leaks(found)
