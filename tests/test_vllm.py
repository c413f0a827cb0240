"""The tasks on vLLM, for real, on whatever device this machine has."""

import json
import math
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import with_gpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make env, or the extra 'vllm'"),
]


@pytest.fixture(scope="module")
def vllm(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("vllm") / "output.json"
    child = Path(__file__).parent / "vllm_child.py"
    process = subprocess.run(
        [sys.executable, str(child), str(tiny_model), str(output)],
        env={**with_gpus(), "VLLM_CPU_KVCACHE_SPACE": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert process.returncode == 0, process.stderr[-5000:]
    return json.loads(output.read_text(encoding="utf-8"))


def test_the_order_of_requests_does_not_change_a_score(vllm: Any) -> None:
    assert vllm["forwards"] == pytest.approx(vllm["backwards"], abs=1e-4)
    assert len(set(vllm["forwards"])) > 20


def test_losses_equal_those_of_the_hf_backend(vllm: Any, evaluate: Any) -> None:
    hf = evaluate(["tofu"], {"forget_split": "forget10", "best_of_n": 8}, gen_kwargs={"max_gen_toks": 12})
    keys = {"tofu_forget_quality": "forget_quality", "tofu_model_utility": "model_utility"}
    for task, key in {**keys, "tofu_answer_logprob": "answer_logprob"}.items():
        ours = [sample[key] for sample in hf["samples"][task]]
        assert len(ours) == len(vllm["samples"][task]) > 0
        for mine, other in zip(ours, vllm["samples"][task], strict=True):
            assert (mine["set"], mine["index"]) == (other["set"], other["index"])
            for column, loss in mine["losses"].items():
                assert other["losses"][column] == pytest.approx(loss, abs=1e-4)
    for task in keys:
        pairs = [
            (ours[keys[task]]["generation"], theirs["generation"])
            for ours, theirs in zip(hf["samples"][task], vllm["samples"][task], strict=True)
        ]
        # A random model writes half characters, which the two decoders replace differently, and special tokens, which
        # one of them prints: compared is what stands before the first of either.
        starts = [[re.split("\ufffd|<[|]", text)[0].strip() for text in pair] for pair in pairs]
        same = [ours.startswith(theirs) or theirs.startswith(ours) for ours, theirs in starts]
        # Greedy ties may fall the other way in the last digit.
        assert sum(same) >= 0.9 * len(same)
        assert sum(map(len, map(min, starts))) > len(starts)


def test_the_recorded_settings_are_the_engines(vllm: Any, evaluate: Any) -> None:
    """The same weights and token ids as on hf, decoding that is pinned, and dtypes from the engine itself."""
    hf = evaluate(["tofu"], {"forget_split": "forget10", "best_of_n": 8}, gen_kwargs={"max_gen_toks": 12}, limit=2)
    whole = evaluate(["tofu_answer_logprob"], {"forget_split": "forget10"})["configs"]["tofu_answer_logprob"]["arm"]
    ours = vllm["arms"]["tofu_answer_logprob"]
    assert (ours["backend"], ours["weights_dtype"], ours["softmax_dtype"]) == ("vllm", "float32", "float32")
    assert "vllm" in ours["versions"]
    for name in ("weights", "tokens", "scored_tokens", "data_fingerprint", "chat_template"):
        assert ours[name] == whole[name], name
        assert ours[name], name
    for task, recorded in vllm["arms"].items():
        assert recorded["generation"] == hf["configs"][task]["arm"]["generation"], task
        assert recorded["pinned"], task


def test_samples_of_a_row_differ(vllm: Any) -> None:
    """A random model draws from hundreds of tokens: two equal samples of twelve would be one draw, shown twice."""
    results = vllm["results"]["tofu_best_of_n"]
    assert results["samples,none"] == 8
    assert results["unique_samples,none"] == 1


def test_samples_repeat_where_the_engine_takes_seeds(vllm: Any) -> None:
    """With a seed each, neither the engine's state nor the order of requests decides; the CPU build takes none."""
    first, again, backwards = vllm["drawn"]
    assert len(set(first)) == len(first) == 16
    assert vllm["seeded"] is not vllm["cpu"]
    assert (first == again == backwards) is vllm["seeded"]


UNKNOWN = {
    *("forget_quality", "forget_quality_log10", "ks_statistic"),  # no retain reference
    *("answer_logprob_shift", "answer_logprob_novel_shift"),  # no full reference
    *("leak_rate_low", "leak_rate_high", "prompt_leak_low", "prompt_leak_high"),  # fewer than five authors
    *("recognition_low", "recognition_high"),
}
"""Metrics that have no value in this run."""


def test_every_metric_is_a_number(vllm: Any) -> None:
    seen = set()
    for task, values in vllm["results"].items():
        for key, value in values.items():
            name = key.removesuffix(",none")
            if name == key or "_stderr" in name:
                continue
            seen.add(name)
            if name in UNKNOWN:
                assert value is None, (task, name)
            else:
                assert isinstance(value, float), (task, name)
                assert math.isfinite(value), (task, name, value)
    assert seen > UNKNOWN
