"""The whole chain on the miniature, for real: arms that were trained, the benchmark, and the leaks of each.

The full arm has every answer by heart, the retain arm never saw the forget rows, the base model saw no row at all, and
a model that was unlearned lightly lies between. What a trained model scores differs from machine to machine, so levels
are held against chance or against another arm by tests that err once in ten thousand runs at most.
"""

import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import by_chance, with_gpus
from scipy.stats import fisher_exact, wilcoxon

from lm_eval_tofu.evaluation import BENCHMARK, evaluate
from lm_eval_tofu.files import newest_results, read_json
from lm_eval_tofu.whitebox.probe import ProbeConfig, probe

pytestmark = pytest.mark.slow

ERROR = 1e-4
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


class Benchmarked(NamedTuple):
    """Of each arm its metrics, and the ROUGE-L recall of each forget row."""

    metrics: dict[str, dict[str, float]]
    recalls: dict[str, list[float]]


@pytest.fixture(scope="module")
def benchmarked(nano_arms: Path, tmp_path_factory: pytest.TempPathFactory) -> Benchmarked:
    folder = tmp_path_factory.mktemp("benchmark")
    found: dict[str, dict[str, float]] = {}
    recalls: dict[str, list[float]] = {}
    for arm in ("retain", "full", "unlearned"):
        metadata = {"tofu": "mini", "forget_split": "forget10"}
        metadata |= {} if arm == "retain" else {"retain_reference": str(folder / "retain")}
        found[arm] = figures(evaluate(nano_arms / arm, folder / arm, tasks=BENCHMARK, metadata=metadata, **HF))
        (samples,) = folder.glob(f"{arm}/**/samples_tofu_forget_quality_*.jsonl")
        recalls[arm] = [json.loads(line)["rougeL_recall"] for line in samples.read_text(encoding="utf-8").splitlines()]
    return Benchmarked(found, recalls)


def test_npo_takes_the_forget_rows_away_and_leaves_the_rest(benchmarked: Benchmarked) -> None:
    """Row by row: the unlearned arm's answers to forget rows are farther from gold than full's, and like retain's."""
    full, unlearned = (benchmarked.metrics[arm] for arm in ("full", "unlearned"))
    recalls = benchmarked.recalls
    assert [len(recalls[arm]) for arm in recalls] == [40, 40, 40]
    assert wilcoxon(recalls["full"], recalls["unlearned"], alternative="greater").pvalue < ERROR
    assert wilcoxon(recalls["full"], recalls["retain"], alternative="greater").pvalue < ERROR
    # What is lost of the retain rows is little beside what is lost of the forget rows.
    lost = {name: full[name] - unlearned[name] for name in ("rougeL_recall", "retain_rougeL_recall")}
    assert lost["retain_rougeL_recall"] < lost["rougeL_recall"] / 2
    assert full["forget_quality_log10"] < math.log10(ERROR)
    assert full["forget_quality_log10"] < unlearned["forget_quality_log10"]


def test_the_probe_reads_what_full_knows_and_base_does_not(nano_arms: Path, tmp_path: Path) -> None:
    arms = {arm: str(nano_arms / arm) for arm in ("base", "retain", "full")}
    settings = {"tofu": "mini", "layers": [-1], "device": "cpu"}
    path = probe(ProbeConfig(model=str(nano_arms / "unlearned"), **arms, output=tmp_path, **settings))
    found = read_json(path)["tofu_probe"]
    last = {arm: content["layers"][-1]["top1"] for arm, content in found["arms"].items()}
    shuffled = {arm: content["layers"][-1]["top1"] for arm, content in found["controls"]["shuffled_labels"].items()}
    low, high = by_chance(found["n"], 1 / 6, ERROR)
    assert last["full"] > high
    for value in (last["base"], *shuffled.values()):
        assert low <= value <= high
    assert last["full"] > max(last["model"], last["base"], last["retain"])


def leaked_rows(path: Path) -> dict[int, bool]:
    """Whether each row leaked; rows without a specific fact are not counted."""
    (samples,) = path.parent.glob("samples_tofu_novel_recall_*.jsonl")
    records = [json.loads(line)["leak_rate"] for line in samples.read_text(encoding="utf-8").splitlines()]
    return {record["index"]: record["leaked"] for record in records if record["tier"] == "specific"}


@pytest.fixture(scope="module")
def leaks(nano_arms: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, bool]]:
    """Of each arm, with the hf backend."""
    folder, found = tmp_path_factory.mktemp("leaks"), {}
    for arm in ARMS:
        path = evaluate(nano_arms / arm, folder / arm, tasks=["tofu_novel_recall"], metadata=DIRECT, **HF)
        found[arm], metrics = leaked_rows(path), figures(path)
        assert metrics["n"] == 40
        assert metrics["leak_rate"] == metrics["leak_rate_direct"] == sum(found[arm].values()) / len(found[arm])
    return found


def test_leaks_of_the_arms(leaks: dict[str, dict[int, bool]]) -> None:
    """Full more than lightly unlearned, that one more than retain and base, and these no more than true guesses."""
    counts = {arm: (sum(rows.values()), len(rows) - sum(rows.values())) for arm, rows in leaks.items()}
    assert len(leaks["full"]) >= 30
    for arm in ("base", "retain"):
        # Retain models of TOFU's own logs are judged to leak 4 % of the rows, which is the scorer's rate of guesses.
        assert counts[arm][0] / len(leaks[arm]) <= by_chance(len(leaks[arm]), 0.04, ERROR)[1]
    for more, less in (("full", "lightly-unlearned"), ("lightly-unlearned", "retain"), ("lightly-unlearned", "base")):
        assert fisher_exact([counts[more], counts[less]], alternative="greater").pvalue < 0.01, (more, less, counts)


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make env, or the extra 'vllm'")
def test_leaks_on_vllm_are_those_on_hf(nano_arms: Path, leaks: dict[str, dict[int, bool]], tmp_path: Path) -> None:
    """Row by row, of the arm of which some rows leak and some do not; sums in another order may turn a near tie."""
    arguments = [str(nano_arms / "lightly-unlearned"), str(tmp_path / "results"), json.dumps(DIRECT)]
    environment = {**with_gpus(), "VLLM_CPU_KVCACHE_SPACE": "1"}
    process = subprocess.run(
        [sys.executable, "-c", ON_VLLM, *arguments], env=environment, capture_output=True, text=True
    )
    assert list(tmp_path.rglob("results_*.json")), process.stderr[-5000:]
    ours, hf = leaked_rows(newest_results(tmp_path / "results")), leaks["lightly-unlearned"]
    assert ours.keys() == hf.keys()
    assert sum(ours[index] == hf[index] for index in hf) >= 0.9 * len(hf)
