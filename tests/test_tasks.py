"""The tasks under lm-eval's own evaluator, with a real (tiny) model on the hf backend."""

import copy
import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from lm_eval.tasks import TaskManager

from lm_eval_tofu import tofu
from lm_eval_tofu.errors import DataError, OptionError, PromptError, ReferenceRunError, TofuError
from lm_eval_tofu.metrics import benchmark
from lm_eval_tofu.tasks import TASKS_DIR, checks
from lm_eval_tofu.tasks.reference import Reference, ReferenceRow
from lm_eval_tofu.tasks.task import Requested, preflight

ALL = ["tofu_forget_quality", "tofu_model_utility", "tofu_answer_logprob", "tofu_membership"]
AUDITS = ["tofu_novel_recall", "tofu_format_shift", "tofu_best_of_n", "tofu_chain_of_clues", "tofu_recognition"]


def manager(**metadata: Any) -> TaskManager:
    return TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata=metadata)


def write_samples(results: Any, folder: Path, task: str) -> Path:
    """The samples file as lm-eval's tracker writes it; the tracker changes what it is given."""
    from lm_eval.loggers import EvaluationTracker

    results = copy.deepcopy(results)
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.model_name_sanitized = "model"
    tracker.save_results_aggregated(results=results, samples=results["samples"])
    tracker.save_results_samples(task_name=task, samples=results["samples"][task])
    return folder


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest, tiny_model: Path) -> Any:
    """One run of the benchmark's tasks on the four rows of the miniature's forget01, and its utility sets."""
    from lm_eval import simple_evaluate

    arguments = {"pretrained": str(tiny_model), "dtype": "float32"}
    return simple_evaluate(
        model="hf",
        model_args=arguments,
        device="cpu",
        batch_size=32,
        tasks=ALL,
        task_manager=manager(**arguments, tofu="mini", forget_split="forget01"),
        apply_chat_template=True,
        gen_kwargs={"max_gen_toks": 12},
        bootstrap_iters=0,
    )


def test_every_task_reports_each_of_its_metrics_as_a_number(run: Any) -> None:
    for task in ALL:
        metrics = {
            key.removesuffix(",none"): value
            for key, value in run["results"][task].items()
            if key.endswith(",none") and "_stderr" not in key
        }
        unknown = {"forget_quality", "forget_quality_log10", "ks_statistic"}
        unknown |= {"answer_logprob_shift", "answer_logprob_novel_shift"}
        missing = {key for key, value in metrics.items() if value is None}
        assert missing == unknown & metrics.keys(), metrics
        assert all(isinstance(value, float) for key, value in metrics.items() if key not in missing), metrics
    assert run["results"]["tofu_forget_quality"]["n,none"] == 4
    assert run["results"]["tofu_model_utility"]["n,none"] == 120


def test_losses_are_those_of_a_plain_forward_pass(run: Any, tiny_model: Path) -> None:
    """Each loss again, from transformers alone: the template's text, one row at a time, no padding."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for sample in run["samples"]["tofu_forget_quality"]:
        doc, record = sample["doc"], sample["forget_quality"]
        columns = {"answer": [doc["answer"]], "paraphrased_answer": [doc["paraphrased_answer"]]}
        for column, answers in {**columns, "perturbed_answer": doc["perturbed_answer"]}.items():
            stated = record["losses"][column]
            for answer, loss in zip(answers, stated if isinstance(stated, list) else [stated], strict=True):
                turns = [{"role": "user", "content": doc["question"]}, {"role": "assistant", "content": answer}]
                prompt = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, return_dict=True)
                whole = tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]
                start = len(prompt["input_ids"])
                assert whole[-1] == tokenizer.eos_token_id
                with torch.no_grad():
                    logprobs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
                expected = -logprobs[range(start - 1, len(whole) - 1), whole[start:]].mean()
                assert loss == pytest.approx(expected.item(), abs=1e-4)


def test_the_novel_part_is_scored_after_the_words_before_it(run: Any, tiny_model: Path) -> None:
    """The loss from the first novel fact on, from transformers alone: the token losses without the first ones."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lm_eval_tofu.tasks import families

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    background = families.background_of(tofu.resolve_source("mini"), "retain99")
    seen = 0
    for sample in run["samples"]["tofu_answer_logprob"]:
        doc, losses = sample["doc"], sample["answer_logprob"]["losses"]
        begun = families.beginning(doc["question"], doc["answer"], background)
        if "novel" not in losses or not begun:
            continue
        seen += 1
        turns = [{"role": "user", "content": doc["question"]}]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template(
            [*turns, {"role": "assistant", "content": doc["answer"]}], return_dict=True
        )["input_ids"]
        start = len(tokenizer(prompt + begun, add_special_tokens=False)["input_ids"])
        assert tokenizer.decode(whole[:start]).endswith(begun)
        with torch.no_grad():
            logprobs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        expected = -logprobs[range(start - 1, len(whole) - 1), whole[start:]].mean()
        assert losses["novel"] == pytest.approx(expected.item(), abs=1e-4)
        assert losses["novel"] != pytest.approx(losses["answer"], abs=1e-3)
    assert seen >= 2
    results = run["results"]["tofu_answer_logprob"]
    novel = [s["answer_logprob"]["losses"].get("novel") for s in run["samples"]["tofu_answer_logprob"]]
    known = [-loss for loss in novel if loss is not None]
    assert results["n_novel,none"] == len(known)
    assert results["answer_logprob_novel,none"] == pytest.approx(sum(known) / len(known))


def test_metrics_follow_from_the_records(run: Any) -> None:
    records = [sample["forget_quality"] for sample in run["samples"]["tofu_forget_quality"]]
    ratios = [
        benchmark.truth_ratio(r["losses"]["paraphrased_answer"], r["losses"]["perturbed_answer"]) for r in records
    ]
    results = run["results"]["tofu_forget_quality"]
    assert results["truth_ratio,none"] == pytest.approx(benchmark.forget_truth_ratio(ratios))
    probabilities = [math.exp(-r["losses"]["answer"]) for r in records]
    assert results["probability,none"] == pytest.approx(sum(probabilities) / 4)
    logprob = run["results"]["tofu_answer_logprob"]["answer_logprob,none"]
    assert logprob == pytest.approx(-sum(r["losses"]["answer"] for r in records) / 4)
    utility = run["results"]["tofu_model_utility"]
    sets = ("retain", "real_authors", "world_facts")
    nine = [utility[f"{name}_{part},none"] for name in sets for part in ("probability", "rougeL_recall", "truth_ratio")]
    assert utility["model_utility,none"] == pytest.approx(benchmark.model_utility(nine))


def test_samples_let_a_person_read_what_happened(run: Any) -> None:
    for task, key in (("tofu_forget_quality", "forget_quality"), ("tofu_model_utility", "model_utility")):
        for sample in run["samples"][task]:
            record = sample[key]
            assert sample["doc"]["question"] in sample["arguments"][0][0]
            assert sample["doc"]["answer"] == sample["target"]
            assert len(record["losses"]["perturbed_answer"]) == len(sample["doc"]["perturbed_answer"])
            assert isinstance(record["generation"], str)
            assert record["index"] == sample["doc"]["index"]


def test_identical_candidates_are_scored_once(run: Any) -> None:
    """Real authors have no paraphrase: the gold answer stands in for it, and is asked for once."""
    samples = [s for s in run["samples"]["tofu_model_utility"] if s["doc"]["set"] == "real_authors"]
    assert all(len(sample["arguments"]) == 1 + 3 + 1 for sample in samples)
    assert all(
        s["model_utility"]["losses"]["paraphrased_answer"] == s["model_utility"]["losses"]["answer"] for s in samples
    )


def test_generation_ends_at_the_end_of_turn_only(run: Any) -> None:
    for sample in run["samples"]["tofu_forget_quality"]:
        settings = sample["arguments"][-1][1]
        assert settings["until"] == ["<|im_end|>"]
        assert settings["do_sample"] is False


def test_a_run_is_its_own_reference(run: Any, evaluate: Any, tmp_path: Path) -> None:
    """Against itself a model's truth ratios are the same sample: p = 1, D = 0; and the log-probability shift is 0."""
    for task in ("tofu_forget_quality", "tofu_answer_logprob"):
        write_samples(run, tmp_path / task, task)
    metadata = {
        "retain_reference": str(tmp_path / "tofu_forget_quality"),
        "full_reference": str(tmp_path / "tofu_answer_logprob"),
    }
    again = evaluate(["tofu_forget_quality", "tofu_answer_logprob"], metadata, gen_kwargs={"max_gen_toks": 12})[
        "results"
    ]
    quality = again["tofu_forget_quality"]
    assert (quality["forget_quality,none"], quality["ks_statistic,none"]) == (1, 0)
    assert quality["forget_quality_log10,none"] == 0
    for metric in ("answer_logprob_shift", "answer_logprob_novel_shift"):
        assert again["tofu_answer_logprob"][f"{metric},none"] == pytest.approx(0, abs=1e-6)


def test_without_a_reference_the_fix_is_named(evaluate: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        results = evaluate(["tofu_forget_quality"], gen_kwargs={"max_gen_toks": 2})["results"]
    assert results["tofu_forget_quality"]["forget_quality,none"] is None
    assert "retain_reference" in caplog.text


def test_order_and_batch_of_requests_do_not_change_a_score(evaluate: Any, run: Any) -> None:
    alone = evaluate(["tofu_answer_logprob"], batch_size=1)["samples"]["tofu_answer_logprob"]
    together = run["samples"]["tofu_answer_logprob"]
    for one, other in zip(alone, together, strict=True):
        assert one["answer_logprob"]["losses"]["answer"] == pytest.approx(
            other["answer_logprob"]["losses"]["answer"], abs=1e-5
        )


def test_plain_prompts(evaluate: Any, caplog: pytest.LogCaptureFixture) -> None:
    checks.warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        result = evaluate(["tofu_answer_logprob"], apply_chat_template=False, system_instruction="Be brief.")
    sample = result["samples"]["tofu_answer_logprob"][0]
    context, continuation = sample["arguments"][0]
    assert context == f"Be brief.\n\nQuestion: {sample['doc']['question']}\nAnswer:"
    assert continuation == f" {sample['doc']['answer']}<|im_end|>"
    assert caplog.text.count("--apply_chat_template is not given") == 1


def test_system_prompt_reaches_the_model(evaluate: Any) -> None:
    result = evaluate(["tofu_answer_logprob"], system_instruction="Be brief.")
    assert result["samples"]["tofu_answer_logprob"][0]["arguments"][0][0].startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
    )


def test_the_groups_and_the_glob_name_each_task_once() -> None:
    tasks = manager()
    assert tasks.match_tasks(["tofu_*"]) == sorted(ALL + AUDITS)
    assert tasks.all_groups == ["tofu"]
    assert sorted(manager(tofu="mini").load(["tofu"])["tasks"]) == sorted(ALL + AUDITS)


def test_few_shot_is_refused() -> None:
    task = manager(tofu="mini").load(["tofu_answer_logprob"])["tasks"]["tofu_answer_logprob"]
    with pytest.raises(OptionError, match="zero-shot"):
        task.fewshot_context({"question": "?", "answer": "!", "index": 0, "set": "forget"}, num_fewshot=1)


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        ({"forget_split": "forget20"}, OptionError, r"forget_split='forget20' is unknown: use one of forget01"),
        ({"forget_spilt": "forget10"}, OptionError, r"'forget_spilt' is unknown: did you mean 'forget_split'"),
        ({"tofu_cache": 1}, OptionError, r"'tofu_cache' is unknown"),
        ({"truth_ratio_eps": -1}, OptionError, r"truth_ratio_eps=-1"),
        ({"tofu": "/nowhere/at/all"}, DataError, r"tofu='/nowhere/at/all' is no directory"),
        (
            {"retain_reference": "/nowhere"},
            ReferenceRunError,
            r"retain_reference='/nowhere' does not exist: run lm_eval",
        ),
        ({"full_reference": "/nowhere"}, ReferenceRunError, r"full_reference='/nowhere' does not exist: run lm_eval"),
        ({"pretrained": "long/" * 50}, OptionError, r"makes a name of 300 bytes.*may have 255 bytes.*symbolic link"),
        ({"pretrained": "short", "peft": "\u00e9" * 200}, OptionError, r"makes a name of 400 bytes"),
    ],
)
def test_bad_options_are_found_before_a_model_is_loaded(metadata: Any, error: type[TofuError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        preflight([*ALL, "mmlu"], {"tofu": "mini", **metadata})
    assert "\n" not in str(caught.value)


def test_a_name_of_results_that_just_fits() -> None:
    """lm-eval writes two characters for a slash, so that 153 are 255 of a name."""
    preflight(["tofu_answer_logprob"], {"tofu": "mini", "pretrained": "a/" * 51 + "b" * 102})
    with pytest.raises(OptionError, match="makes a name of 256 bytes"):
        preflight(["tofu_answer_logprob"], {"tofu": "mini", "pretrained": "a/" * 51 + "b" * 103})


def test_options_that_leave_no_prompt() -> None:
    preflight(["tofu_novel_recall"], {"tofu": "mini", "families": "cloze", "forget_rows": "4-6"})
    with pytest.raises(OptionError, match=r"tofu_novel_recall has no prompts left: .*families.*forget_rows"):
        preflight(["tofu_novel_recall"], {"tofu": "mini", "families": "cloze", "forget_rows": 5})


def test_the_early_check_and_the_evaluation_share_the_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval_tofu.tasks import rows

    built = []
    build = rows._in_prompts
    monkeypatch.setattr(rows, "_in_prompts", lambda *given: built.append(given[0]) or build(*given))
    metadata = {"tofu": "mini", "forget_rows": "0-1", "families": "direct,cloze"}
    preflight(["tofu_novel_recall"], metadata)
    task = manager(**metadata).load(["tofu_novel_recall"])["tasks"]["tofu_novel_recall"]
    assert built == ["novel_recall"]
    assert {row["index"] for row in task.rows} == {0, 1}
    preflight(["tofu_novel_recall"], {**metadata, "families": "direct"})
    assert built == ["novel_recall"] * 2


def test_the_data_that_a_variable_names_are_not_taken_for_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(Path(tofu.__file__).parent / "mini", tmp_path / "TOFU")
    monkeypatch.setenv("LM_EVAL_TOFU_DATA", "mini")
    preflight(["tofu_answer_logprob"], {"pretrained": "m"})
    monkeypatch.setenv("LM_EVAL_TOFU_DATA", str(tmp_path / "TOFU"))
    with pytest.raises(DataError, match="has 40 rows instead of 400"):
        preflight(["tofu_answer_logprob"], {"pretrained": "m"})


def test_the_log_names_data_and_options(evaluate: Any, caplog: pytest.LogCaptureFixture) -> None:
    """--metadata replaces a config file's as a whole: which split was asked must be seen."""
    with caplog.at_level(logging.INFO, logger="lm_eval"):
        evaluate(["tofu_answer_logprob"], {"best_of_n": 2}, limit=1)
        evaluate(["tofu_answer_logprob"], {"forget_split": None}, limit=1)
    assert "tofu_answer_logprob: TOFU source mini, split forget01, best_of_n=2" in caplog.messages
    assert "tofu_answer_logprob: TOFU source mini, split forget10 (default), no other option" in caplog.messages


@pytest.mark.parametrize("given", [{"limit": 2}, {"samples": {"tofu_forget_quality": [1, 3]}}])
def test_forget_quality_of_a_part_is_named(
    evaluate: Any, run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, given: dict[str, Any]
) -> None:
    folder = write_samples(run, tmp_path, "tofu_forget_quality")
    options = {"retain_reference": str(folder)}
    evaluate(["tofu_forget_quality"], options, gen_kwargs={"max_gen_toks": 12}, **given)
    assert "forget_quality was computed on 2 of 4 rows (--limit, --samples)" in caplog.text
    caplog.clear()
    evaluate(["tofu_answer_logprob"], limit=2)
    assert "of 4 rows" not in caplog.text


def test_preflight_passes_over_other_tasks() -> None:
    preflight(["mmlu", "tofu_other_peoples_task"], {"tofu": "mini"})


class TestReferences:
    """References that do not fit, each with its own message."""

    @pytest.fixture
    def folder(self, run: Any, tmp_path: Path) -> Path:
        return write_samples(run, tmp_path / "reference", "tofu_forget_quality")

    def edit(self, folder: Path, change: Any) -> None:
        [file] = folder.rglob("samples_*.jsonl")
        samples = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
        for sample in samples:
            change(sample)
        file.write_text("".join(json.dumps(sample) + "\n" for sample in samples), encoding="utf-8")

    def check(self, folder: Path, message: str, **metadata: Any) -> None:
        options = {"tofu": "mini", "forget_split": "forget01", "retain_reference": str(folder), **metadata}
        with pytest.raises(ReferenceRunError, match=message) as caught:
            preflight(["tofu_forget_quality"], options)
        assert "\n" not in str(caught.value)

    def test_fits(self, folder: Path) -> None:
        preflight(
            ["tofu_forget_quality"], {"tofu": "mini", "forget_split": "forget01", "retain_reference": str(folder)}
        )

    def test_other_split(self, folder: Path) -> None:
        self.check(folder, "is a run on forget01, this one is on forget10: run the reference", forget_split="forget10")

    def test_other_version(self, folder: Path) -> None:
        self.edit(folder, lambda sample: sample["forget_quality"].update(version=99))
        self.check(folder, "version 99, this is version 1: evaluate that arm again")

    def test_other_data(self, folder: Path) -> None:
        self.edit(folder, lambda sample: sample["doc"].update(question="Who?"))
        self.check(folder, "its row 0 is another one than this run's: run the reference on the same data")

    def test_other_task(self, run: Any, tmp_path: Path) -> None:
        write_samples(run, tmp_path, "tofu_answer_logprob")
        [file] = tmp_path.rglob("samples_*.jsonl")
        self.check(file, "no record of tofu_forget_quality .it is of another task")
        self.check(tmp_path, "holds no samples of tofu_forget_quality: run lm_eval")

    def test_cut_file(self, folder: Path) -> None:
        [file] = folder.rglob("samples_*.jsonl")
        file.write_text(file.read_text(encoding="utf-8")[:-500], encoding="utf-8")
        self.check(folder, r"retain_reference: .* line \d+: not JSON .*it is cut or damaged; run the reference again")

    def test_several_models(self, folder: Path) -> None:
        [file] = folder.rglob("samples_*.jsonl")
        other = folder / "other"
        other.mkdir()
        (other / file.name).write_bytes(file.read_bytes())
        self.check(folder, r"holds the results of several models \(model, other\): name one of them")

    def test_other_prompt(self, folder: Path, evaluate: Any) -> None:
        with pytest.raises(ReferenceRunError, match="asked row 0 with another prompt: run both arms with the same"):
            evaluate(["tofu_forget_quality"], {"retain_reference": str(folder)}, system_instruction="Be brief.")

    def test_nobodys_home(self) -> None:
        self.check(Path("~nobody-of-that-name/run"), "does not exist: run lm_eval")

    @pytest.mark.parametrize("value", [math.nan, math.inf, None])
    def test_a_loss_that_is_no_finite_number(self, folder: Path, value: float | None) -> None:
        self.edit(folder, lambda sample: sample["forget_quality"]["losses"]["perturbed_answer"].__setitem__(2, value))
        self.check(folder, rf"row 0 has {value} for perturbed_answer, which is not a finite number: run the reference")

    def test_missing_rows(self, folder: Path, evaluate: Any) -> None:
        [file] = folder.rglob("samples_*.jsonl")
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(lines[:2]), encoding="utf-8")
        with pytest.raises(ReferenceRunError, match="has 2 rows and lacks row 2: it is cut"):
            evaluate(["tofu_forget_quality"], {"retain_reference": str(folder)})


class TestOpenUnlearningLogs:
    """open-unlearning's TOFU_EVAL.json as a reference."""

    @pytest.fixture
    def log(self, tmp_path: Path) -> Path:
        """Four rows of a real log in its own form; the texts and the other sets are left out."""
        figures = json.loads((ROOT / "tests" / "reference" / "open_unlearning.json").read_text(encoding="utf-8"))
        content = {
            metric: {
                "agg_value": values["agg_value"],
                "value_by_index": {str(index): {column: values[column][index]} for index in range(4)},
            }
            for metric, values in figures["fixed"].items()
            if metric.startswith("forget_")
            for column in values.keys() & {"avg_loss", "score"}
        }
        path = tmp_path / "TOFU_EVAL.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    def test_fits_and_is_used(self, log: Path) -> None:
        metadata = {"tofu": "mini", "forget_split": "forget01", "retain_reference": str(log)}
        tasks = manager(**metadata, full_reference=str(log.parent)).load(ALL)["tasks"]
        rows, stated = tasks["tofu_forget_quality"].reference.rows, json.loads(log.read_text(encoding="utf-8"))
        assert len(rows) == 4
        for index, score in stated["forget_truth_ratio"]["value_by_index"].items():
            losses = rows[int(index)].losses
            ratio = benchmark.truth_ratio(losses["paraphrased_answer"], losses["perturbed_answer"])
            assert ratio == pytest.approx(score["score"], rel=1e-6)
        assert tasks["tofu_answer_logprob"].reference.rows[0].losses["answer"] == pytest.approx(1.28733981)

    def test_other_split(self, log: Path) -> None:
        metadata = {"tofu": "mini", "forget_split": "forget05", "retain_reference": str(log)}
        with pytest.raises(ReferenceRunError, match="has 4 rows, forget05 has 20: name a log of the same split"):
            preflight(["tofu_forget_quality"], metadata)

    def test_truth_ratios_alone_are_enough(self, evaluate: Any, tmp_path: Path) -> None:
        """An older log states the scores only: D against scores of 0, 0, 0, 0 is 1."""
        rows = {str(index): {"score": 0.0} for index in range(4)}
        path = tmp_path / "TOFU_EVAL.json"
        path.write_text(json.dumps({"forget_truth_ratio": {"agg_value": 0.0, "value_by_index": rows}}))
        results = evaluate(["tofu_forget_quality"], {"retain_reference": str(tmp_path)}, gen_kwargs={"max_gen_toks": 2})
        assert results["results"]["tofu_forget_quality"]["ks_statistic,none"] == 1

    @pytest.mark.parametrize("content", ['{"score": NaN}', '{"avg_loss": Infinity}'])
    def test_a_number_that_is_not_finite(self, content: str, tmp_path: Path) -> None:
        metric = "forget_truth_ratio" if "score" in content else "forget_Q_A_Prob"
        rows = ", ".join(f'"{index}": {content}' for index in range(4))
        path = tmp_path / "TOFU_EVAL.json"
        path.write_text(f'{{"{metric}": {{"value_by_index": {{{rows}}}}}}}')
        with pytest.raises(
            ReferenceRunError, match=r"row 0 has (nan|inf) for (truth ratio|answer), which is not a fin"
        ):
            preflight(
                ["tofu_forget_quality"], {"tofu": "mini", "forget_split": "forget01", "retain_reference": str(path)}
            )

    @pytest.mark.parametrize("content", ["[1, 2]", "{}", '{"forget_truth_ratio": {"agg_value": 1}}', "{not json"])
    def test_other_files(self, content: str, tmp_path: Path) -> None:
        path = tmp_path / "TOFU_EVAL.json"
        path.write_text(content)
        with pytest.raises(ReferenceRunError, match=r"has neither|not JSON|instead of a JSON object"):
            preflight(["tofu_forget_quality"], {"tofu": "mini", "retain_reference": str(path)})


def test_model_object_without_metadata(tiny_model: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=str(tiny_model), device="cpu", dtype="float32", batch_size=4)
    common = {"tasks": ["tofu_answer_logprob"], "bootstrap_iters": 0, "apply_chat_template": True}
    with pytest.raises(PromptError, match=r'the tokenizer is unknown: pass metadata=\{"tokenizer": NAME\}'):
        simple_evaluate(model=lm, task_manager=manager(tofu="mini", forget_split="forget01"), **common)
    known = manager(tofu="mini", forget_split="forget01", tokenizer=str(tiny_model))
    result = simple_evaluate(model=lm, task_manager=known, **common)
    assert math.isfinite(result["results"]["tofu_answer_logprob"]["answer_logprob,none"])


def test_tokenizer_without_template(evaluate: Any, tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    from transformers import AutoTokenizer

    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare)
    (bare / "chat_template.jinja").unlink()
    assert AutoTokenizer.from_pretrained(bare).chat_template is None
    with pytest.raises(PromptError, match=r"--apply_chat_template is given, but the tokenizer .* has no chat template"):
        evaluate(["tofu_answer_logprob"], model_args={"pretrained": str(bare)})


def test_context_too_small(evaluate: Any) -> None:
    with pytest.raises(
        PromptError, match=r"row 0 needs .* tokens with its answer, the context is 32: raise max_model_len"
    ):
        evaluate(["tofu_answer_logprob"], model_args={"max_length": 32})


@pytest.fixture(scope="module")
def short_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a context of 48 tokens, which its config alone states."""
    import shutil

    path = tmp_path_factory.mktemp("models") / "short"
    shutil.copytree(tiny_model, path)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    (path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 48}), encoding="utf-8")
    return path


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("task", ["tofu_answer_logprob", "tofu_novel_recall"])
def test_a_context_that_the_config_states(evaluate: Any, short_model: Path, task: str, chat: bool) -> None:
    """With and without a chat template, for scored answers and for generated ones."""
    with pytest.raises(PromptError, match=r"row 0 needs .* tokens with its answer, the context is 48: raise max_model"):
        evaluate(
            [task],
            {"families": "in_context"},
            model_args={"pretrained": str(short_model)},
            apply_chat_template=chat,
            gen_kwargs={"max_gen_toks": 8},
        )


def test_a_context_that_a_loaded_models_config_states(short_model: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(short_model)
    lm = HFLM(pretrained=model, tokenizer=str(short_model), device="cpu", batch_size=4)
    known = manager(tofu="mini", forget_split="forget01", pretrained=model, tokenizer=str(short_model))
    with pytest.raises(PromptError, match="the context is 48"):
        simple_evaluate(model=lm, task_manager=known, tasks=["tofu_answer_logprob"], bootstrap_iters=0)


def test_a_context_that_nothing_states(tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model object without a chat template stays out of sight: what to give is named."""
    checks.warn_once.cache_clear()
    task = manager(tofu="mini", forget_split="forget01", tokenizer=str(tiny_model)).load(["tofu_answer_logprob"])
    with caplog.at_level(logging.WARNING):
        task["tasks"]["tofu_answer_logprob"].build_all_requests()
    assert "context length is unknown" in caplog.text
    assert "give max_length in --metadata" in caplog.text


class TestGenerationSettings:
    """What `--gen_kwargs` may say, and what would spoil answers in silence."""

    @pytest.mark.parametrize("until", ["the end", ["the end"]])
    def test_a_string_that_ends_an_answer(self, evaluate: Any, until: Any) -> None:
        results = evaluate(
            ["tofu_novel_recall"], {"families": "direct"}, gen_kwargs={"until": until, "max_gen_toks": 2}
        )
        settings = results["samples"]["tofu_novel_recall"][0]["arguments"][0][1]
        assert settings["until"] == ["the end", "<|im_end|>"]

    def test_the_end_of_turn_alone(self, evaluate: Any) -> None:
        results = evaluate(["tofu_novel_recall"], {"families": "direct"}, gen_kwargs={"max_gen_toks": 2})
        assert results["samples"]["tofu_novel_recall"][0]["arguments"][0][1]["until"] == ["<|im_end|>"]

    @pytest.mark.parametrize(
        ("task", "given", "message"),
        [
            ("tofu_novel_recall", {"until": ""}, "until='' names no string that ends an answer"),
            ("tofu_novel_recall", {"until": [3]}, r"until=\[3\] names no string"),
            ("tofu_novel_recall", {"max_gen_toks": "4"}, "max_gen_toks='4' is no whole number from 1 up"),
            ("tofu_novel_recall", {"max_gen_toks": 0}, "max_gen_toks=0 is no whole number"),
            ("tofu_novel_recall", {"max_new_tokens": 4}, "max_new_tokens=4 .*give max_gen_toks"),
            ("tofu_novel_recall", {"max_tokens": 4}, "max_tokens=4 .*give max_gen_toks"),
            ("tofu_forget_quality", {"max_length": 4}, "max_length=4 .*give max_gen_toks"),
            ("tofu_best_of_n", {"do_sample": False}, "do_sample=False does not fit tofu_best_of_n"),
        ],
    )
    def test_settings_that_cannot_be_used(self, evaluate: Any, task: str, given: dict[str, Any], message: str) -> None:
        with pytest.raises(OptionError, match=f"--gen_kwargs {message}") as caught:
            evaluate([task], gen_kwargs=given)
        assert "\n" not in str(caught.value)


def test_other_template_arguments_in_backend_and_metadata(evaluate: Any, tiny_model: Path, tmp_path: Path) -> None:
    """A tokenizer named in the metadata whose template is not the backend's."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = "Hello. " + tokenizer.chat_template
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(PromptError, match="renders another prompt"):
        evaluate(["tofu_answer_logprob"], {"tokenizer": str(tmp_path)})


def test_a_log_likelihood_that_is_nan(
    evaluate: Any, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """NaN weights: the documents are named, the metrics have no value, and no document is left out."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    with caplog.at_level(logging.ERROR):
        results = evaluate(["tofu_answer_logprob"], model_args={"pretrained": str(tmp_path)})["results"]
    assert results["tofu_answer_logprob"]["answer_logprob,none"] is None
    assert results["tofu_answer_logprob"]["answer_logprob_novel,none"] is None
    assert results["tofu_answer_logprob"]["n,none"] == 4
    assert all(f"row {index} (" in caplog.text for index in range(4))
    assert "dtype=float32" in caplog.text


@pytest.fixture
def logprob_task(evaluate: Any) -> Any:
    """`tofu_answer_logprob` after a run, so that it knows its spans; scored again with numbers made by hand."""
    task = manager(tofu="mini", forget_split="forget01").load(["tofu_answer_logprob"])["tasks"]["tofu_answer_logprob"]
    task.requested = {(doc["set"], doc["index"], None): Requested([4]) for doc in task.eval_docs}
    return task


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_log_likelihood_that_is_infinite_is_nan(logprob_task: Any, value: float) -> None:
    """exp(-inf) is 0, a number that looks right: minus infinity may not become one."""
    metrics = logprob_task.process_results(logprob_task.eval_docs[0], [(value, False)])
    assert metrics["answer_logprob"]["answer_logprob"] is None
    assert metrics["answer_logprob"]["losses"] == {"answer": None}


def test_answer_logprob_shift_is_ours_less_the_full_arms(logprob_task: Any) -> None:
    """Four tokens, log-likelihoods -8, -6, -4, -2: log-probabilities -2, -1.5, -1, -0.5 nats/token, mean -1.25.

    The full arm's losses are 0.5, 0.5, 0.25, 0.25: its mean is -0.375, so the shift is -1.25 + 0.375 = -0.875.
    """
    losses = (0.5, 0.5, 0.25, 0.25)
    rows = {index: ReferenceRow({"answer": loss}) for index, loss in enumerate(losses)}
    logprob_task.reference = Reference("full_reference", Path("full"), rows)
    documents = [
        logprob_task.process_results(doc, [(value, False)])
        for doc, value in zip(logprob_task.eval_docs, (-8.0, -6.0, -4.0, -2.0), strict=True)
    ]
    aggregations = logprob_task.aggregation()
    for metric, expected in (("answer_logprob", -1.25), ("answer_logprob_shift", -0.875)):
        assert aggregations[metric]([document[metric] for document in documents]) == pytest.approx(expected)


def test_generations_that_ran_into_the_limit_are_counted(evaluate: Any) -> None:
    """A model of random weights does not end its turn within 12 tokens."""
    results = evaluate(["tofu_forget_quality"], gen_kwargs={"max_gen_toks": 12})["results"]["tofu_forget_quality"]
    assert results["generations_cut,none"] == 1
    assert "reasoning_unfinished,none" not in results


def test_unfinished_reasoning_is_counted_and_no_answer(
    evaluate: Any, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A model of random weights never ends its reasoning: its text fills the limit, and nothing of it is judged."""
    checks.warn_once.cache_clear()
    found = evaluate(
        ["tofu_novel_recall", "tofu_best_of_n", "tofu_answer_logprob"],
        {"families": "direct", "best_of_n": 2},
        model_args={"think_end_token": "</think>"},
        gen_kwargs={"max_gen_toks": 12},
    )
    for task in ("tofu_novel_recall", "tofu_best_of_n"):
        results = found["results"][task]
        assert results["reasoning_unfinished,none"] == 1
        assert (results["generations_empty,none"], results["generations_repetitive,none"]) == (0, 0)
        assert results["generations_cut,none"] is None
    assert {sample["leak_rate"]["generation"] for sample in found["samples"]["tofu_novel_recall"]} == {""}
    assert all(sample["resps"][0][0] for sample in found["samples"]["tofu_novel_recall"])
    assert caplog.text.count("reasoning and answer share max_gen_toks=12") == 1
    assert "reasoning_unfinished,none" not in found["results"]["tofu_answer_logprob"]


def test_request_cache_is_not_used(evaluate: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        evaluate(["tofu_answer_logprob"], cache_requests=True)
    assert "ignores --cache_requests" in caplog.text


def test_rows_of_every_split() -> None:
    for split, rows in (("forget01", 4), ("forget05", 20), ("forget10", 40)):
        task = manager(tofu="mini", forget_split=split).load(["tofu_forget_quality"])["tasks"]["tofu_forget_quality"]
        assert [doc["index"] for doc in task.eval_docs] == list(range(rows))
        assert [doc["question"] for doc in task.eval_docs] == [
            row["question"] for row in tofu.load(split, tofu.resolve_source("mini"))
        ]


def test_documents_of_a_task_can_be_chosen(tiny_model, tmp_path):
    """As a sweep's `samples` does; tasks that are not named are asked whole, and names of others are passed over."""
    from lm_eval_tofu import evaluation

    tasks = ["tofu_model_utility", "tofu_answer_logprob"]
    path = evaluation.evaluate(
        tiny_model,
        tmp_path / "results",
        tasks=tasks,
        model_args={"dtype": "float32"},
        metadata={"tofu": "mini", "forget_split": "forget01"},
        batch_size=16,
        device="cpu",
        samples={"tofu_model_utility": [3, 41, 80], "tofu_best_of_n": [0]},
    )
    found = json.loads(path.read_text(encoding="utf-8"))["results"]
    assert [found[task]["n,none"] for task in tasks] == [3, 4]
    (file,) = path.parent.glob("samples_tofu_model_utility_*.jsonl")
    records = [json.loads(line)["model_utility"] for line in file.read_text(encoding="utf-8").splitlines()]
    assert [(record["set"], record["index"]) for record in records] == [
        ("retain", 3),
        ("real_authors", 1),
        ("world_facts", 0),
    ]


def test_results_that_could_not_be_written_are_an_error(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm-eval's tracker logs a failure and goes on."""
    from lm_eval.loggers import EvaluationTracker

    from lm_eval_tofu import evaluation

    monkeypatch.setattr(EvaluationTracker, "save_results_samples", lambda *_, **__: None)
    given = {"model_args": {"dtype": "float32"}, "batch_size": 4, "device": "cpu"}
    metadata = {"tofu": "mini", "forget_split": "forget01"}
    with pytest.raises(OptionError, match=r"could not write samples_tofu_answer_logprob_\*\.jsonl"):
        evaluation.evaluate(tiny_model, tmp_path / "out", tasks=["tofu_answer_logprob"], metadata=metadata, **given)
    assert not (tmp_path / "out").exists()


def strictly(text: str) -> Any:
    """As a strict parser reads JSON: NaN and Infinity are no part of it."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in JSON")

    return json.loads(text, parse_constant=refuse)


def test_no_file_of_a_run_holds_nan(tiny_model: Path, tmp_path: Path) -> None:
    """Without references and with weights that are NaN: what has no value is null, and lm-eval's table shows it."""
    import torch
    from lm_eval.utils import make_table
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lm_eval_tofu import evaluation
    from lm_eval_tofu.report import load

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "model")
    tasks = [*ALL, "tofu_best_of_n"]
    path = evaluation.evaluate(
        tmp_path / "model",
        tmp_path / "results",
        tasks=tasks,
        model_args={"dtype": "float32"},
        metadata={"tofu": "mini", "forget_split": "forget01", "best_of_n": 1, "best_of_n_temperature": 0},
        batch_size=32,
        device="cpu",
        samples={"tofu_model_utility": [0, 40, 80]},
    )
    content = strictly(path.read_text(encoding="utf-8"))
    for task in tasks:
        [file] = path.parent.glob(f"samples_{task}_*.jsonl")
        samples = [strictly(line) for line in file.read_text(encoding="utf-8").splitlines()]
        assert samples
        assert content["results"][task]["n,none"] == len(samples)
    results = content["results"]
    for task, metric in (("tofu_forget_quality", "forget_quality"), ("tofu_model_utility", "model_utility")):
        assert results[task][f"{metric},none"] is None
        assert f"|{metric} " in make_table(content)
        run = load.load({"full": tmp_path / "results"}).arms[0].runs[task]
        assert math.isnan(run.metrics[metric])
    leak_at = [name for name in results["tofu_best_of_n"] if name.startswith("leak@") and "stderr" not in name]
    assert leak_at == ["leak@1,none"]


@pytest.fixture(scope="module")
def gguf_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a GGUF file that has the tiny model's tokenizer, without its chat template."""
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed: pip install 'lm-eval-tofu[dev]'")
    from transformers import AutoConfig, AutoTokenizer

    config, tokenizer = AutoConfig.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    folder = tmp_path_factory.mktemp("gguf")
    config.save_pretrained(folder)
    writer = gguf.GGUFWriter(folder / "tiny.gguf", "llama")
    writer.add_context_length(1024)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    tokens = [text for text, _ in sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])]
    special = set(tokenizer.all_special_tokens)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if text in special else 1 for text in tokens])
    merges = json.loads((tiny_model / "tokenizer.json").read_text(encoding="utf-8"))["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


def test_a_tokenizer_beside_a_gguf_file(gguf_model: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """lm-eval reads the tokenizer that is named apart from its own files; GGUF may have lost the template."""
    checks.warn_once.cache_clear()
    model = {"pretrained": str(gguf_model), "gguf_file": "tiny.gguf", "tofu": "mini", "forget_split": "forget01"}
    hint = "the tokenizer in tiny.gguf has no chat template"
    for tokenizer, hinted in (({"tokenizer": str(tiny_model)}, False), ({}, True)):
        task = manager(**model, **tokenizer).load(["tofu_answer_logprob"])["tasks"]["tofu_answer_logprob"]
        task.build_all_requests(limit=1, apply_chat_template=not hinted)
        assert (hint in caplog.text) is hinted
        assert len(task.instances) > 0


@pytest.mark.parametrize(("token", "empty", "repetitive"), [("!", 0, 1), ("<|im_start|>", 1, 0)])
def test_a_model_that_says_one_token_for_ever_looks_broken(
    evaluate: Any, tiny_model: Path, tmp_path: Path, token: str, empty: int, repetitive: int
) -> None:
    """As half precision that overflows makes it: no leak, no word twice, and an endless row of one character."""
    from transformers import AutoTokenizer, PhiConfig, PhiForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = PhiConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=1024,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = PhiForCausalLM(config)
    model.lm_head.bias.data[tokenizer.convert_tokens_to_ids(token)] = 100.0  # of all logits by far
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    results = evaluate(["tofu_novel_recall"], {"families": "direct"}, model_args={"pretrained": str(tmp_path)})
    found = results["results"]["tofu_novel_recall"]
    assert found["leak_rate,none"] == 0
    assert (found["generations_empty,none"], found["generations_repetitive,none"]) == (empty, repetitive)
