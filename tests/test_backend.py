"""The settings that take effect, found by real runs of a tiny model: decoding, dtypes, tokens, names of models."""

import json
import logging
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from test_tasks import manager, write_samples

from lm_eval_tofu import chat
from lm_eval_tofu.arm import ArmSettings
from lm_eval_tofu.chat import Prompting
from lm_eval_tofu.errors import OptionError, PromptError, ReferenceRunError
from lm_eval_tofu.tasks import backend, checks, decoding
from lm_eval_tofu.tasks.task import preflight

RECALL, LOGPROB, QUALITY = "tofu_novel_recall", "tofu_answer_logprob", "tofu_forget_quality"
DIRECT = {"families": "direct"}
SHORT = {"max_gen_toks": 6}


@pytest.fixture(autouse=True)
def warned_anew() -> None:
    """Warnings that come once a process come once a test."""
    checks.warn_once.cache_clear()


@pytest.fixture
def copy_of(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the tiny model with changed JSON files."""

    def make(name: str, **files: dict[str, Any]) -> Path:
        folder = shutil.copytree(tiny_model, tmp_path / name)
        for stem, changes in files.items():
            path = folder / f"{stem}.json"
            content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            path.write_text(json.dumps({**content, **changes}), encoding="utf-8")
        return folder

    return make


def settings(results: Any, task: str) -> ArmSettings:
    found = ArmSettings.from_record(json.loads(json.dumps(results["configs"][task]["arm"])))
    assert found is not None
    return found


def generations(results: Any) -> list[str]:
    return [sample["leak_rate"]["generation"] for sample in results["samples"][RECALL]]


class TestDecoding:
    """Nothing but the task decides how answers are generated."""

    BENT: ClassVar = {
        "repetition_penalty": 5.0,
        "no_repeat_ngram_size": 1,
        "suppress_tokens": list(range(300, 450)),
        "begin_suppress_tokens": [5, 6, 7],
        "min_new_tokens": 3,
        "max_new_tokens": 2,
        "num_beams": 2,
        "do_sample": True,
        "temperature": 3.0,
    }

    def test_a_checkpoints_generation_config_does_not_bend_answers(
        self, evaluate: Any, copy_of: Any, tiny_model: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        bent = copy_of("bent", generation_config=self.BENT)
        prompt = torch.tensor([[3, 4, 5, 6, 7, 8]])
        left_alone = [
            AutoModelForCausalLM.from_pretrained(path)
            .generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_length=12)
            .tolist()
            for path in (bent, tiny_model)
        ]
        assert left_alone[0] != left_alone[1]
        plain = evaluate([RECALL], DIRECT, gen_kwargs=SHORT)
        with caplog.at_level(logging.WARNING):
            results = evaluate([RECALL], DIRECT, gen_kwargs=SHORT, model_args={"pretrained": str(bent)})
        assert generations(results) == generations(plain)
        assert "generation_config.json sets repetition_penalty=5.0" in caplog.text
        found, unbent = settings(results, RECALL), settings(plain, RECALL)
        assert found.generation == unbent.generation == {"do_sample": False, "max_gen_toks": 6, "until": ["<|im_end|>"]}
        assert (found.overruled["repetition_penalty"], found.overruled["max_new_tokens"]) == (5.0, 2)
        assert unbent.overruled == {}
        assert found.pinned

    def test_samples_keep_nothing_but_their_own_temperature(self, evaluate: Any, copy_of: Any) -> None:
        bent = copy_of("bent", generation_config={**self.BENT, "typical_p": 0.2, "min_p": 0.4, "top_k": 3})
        results = evaluate(["tofu_best_of_n"], {"best_of_n": 2}, gen_kwargs=SHORT, model_args={"pretrained": str(bent)})
        sent = results["samples"]["tofu_best_of_n"][0]["arguments"][0][1]
        assert (sent["temperature"], sent["top_p"], sent["do_sample"]) == (1.0, 1.0, True)
        neutral = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "typical_p": 1.0, "min_p": None, "top_k": 0}
        assert {name: sent[name] for name in neutral} == neutral
        assert settings(results, "tofu_best_of_n").decoding.startswith(
            "2 samples at temperature 1.0, top_p 1.0, at most 6"
        )

    @pytest.mark.parametrize(
        ("task", "given", "message"),
        [
            (RECALL, {"do_sample": True}, "do_sample=True does not fit tofu_novel_recall, whose answers are greedy"),
            (RECALL, {"temperature": 0.7}, "temperature=0.7 does not fit tofu_novel_recall"),
            (QUALITY, {"repetition_penalty": 1.2}, "repetition_penalty=1.2 does not fit tofu_forget_quality"),
            (RECALL, {"num_beams": 4}, "num_beams=4 does not fit"),
            (RECALL, {"logit_bias": {"5": 1}}, "logit_bias=.* does not fit"),
            ("tofu_best_of_n", {"repetition_penalty": 1.2}, "repetition_penalty=1.2 does not fit tofu_best_of_n"),
        ],
    )
    def test_generation_arguments_that_bend_answers(
        self, evaluate: Any, task: str, given: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(OptionError, match=f"--gen_kwargs {message}.*leave it out"):
            evaluate([task], gen_kwargs=given)

    def test_neutral_arguments_are_no_difference(self) -> None:
        given = {"do_sample": False, "temperature": 0.0, "repetition_penalty": 1, "num_beams": 1, "top_k": 50}
        decoding.check_greedy(RECALL, given)
        assert decoding.effective_generation({**given, "top_k": 0}, None) == {"do_sample": False}

    @pytest.mark.parametrize(
        ("url", "sampled", "sent"),
        [
            ("http://127.0.0.1:8000/v1/completions", False, {"repetition_penalty": 1.0}),
            ("http://127.0.0.1:8000/v1/completions", True, {"repetition_penalty": 1.0, "top_k": 0, "min_p": 0.0}),
            ("https://api.openai.com/v1/completions", True, None),
            ("https://mine.openai.azure.com/openai", False, None),
        ],
    )
    def test_servers_are_sent_what_they_know(self, url: str, sampled: bool, sent: dict[str, Any] | None) -> None:
        """Parameters that OpenAI's servers do not know would end the run; vLLM's take the checkpoint's otherwise."""
        assert decoding.pin_generation(None, {"base_url": url}, sampled=sampled) == (sent or {}, sent is not None, {})

    def test_vllm_takes_everything_from_the_request(self) -> None:
        class VLLM:
            model = object()

        assert decoding.pin_generation(VLLM(), {}, sampled=True) == ({}, True, {})
        assert decoding.pin_generation(object(), {}, sampled=False) == ({}, False, {})


class TestDtypes:
    def test_hf_in_half_precision(self, evaluate: Any, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            results = evaluate([LOGPROB], model_args={"dtype": "bfloat16"})
        found = settings(results, LOGPROB)
        assert (found.weights_dtype, found.softmax_dtype, found.checkpoint_dtype) == ("bfloat16", "bfloat16", "float32")
        assert "pass softmax_dtype=float32 in --model_args" in caplog.text
        assert "checkpoint is of float32 and hf runs it in bfloat16: pass dtype=float32" in caplog.text
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            results = evaluate([LOGPROB], model_args={"dtype": "bfloat16", "softmax_dtype": "float32"})
        assert settings(results, LOGPROB).softmax_dtype == "float32"
        assert "softmax_dtype" not in caplog.text

    def test_float32_needs_no_warning(self, evaluate: Any, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            found = settings(evaluate([RECALL], DIRECT, gen_kwargs=SHORT), RECALL)
        assert "dtype" not in caplog.text
        assert (found.weights_dtype, found.softmax_dtype) == ("float32", None)  # it scores no answer

    def test_vllm_says_what_its_engine_runs_in(self) -> None:
        """`dtype=auto` makes bfloat16 of a float32 checkpoint; the engine's own record has it."""
        import torch

        class VLLM:
            model_args: ClassVar = {"model": "m", "dtype": "auto", "revision": None}
            _config = types.SimpleNamespace(dtype=torch.float32)
            batch_size = "auto"
            lora_request = types.SimpleNamespace(lora_path="ad")

        engine = types.SimpleNamespace(model_config=types.SimpleNamespace(dtype=torch.bfloat16, quantization="awq"))
        model = VLLM()
        model.model = types.SimpleNamespace(llm_engine=engine)
        found = backend.model_settings(model, {})
        assert (found["backend"], found["weights_dtype"], found["checkpoint_dtype"]) == ("vllm", "bfloat16", "float32")
        assert (found["quantization"], found["adapter"], found["model"]) == ("awq", "lora_local_path=ad", "m")
        assert backend.softmax_dtype(model) == "float32"
        del model.model  # with data parallelism lm-eval holds no engine
        assert backend.model_settings(model, {})["weights_dtype"] is None


class TestModels:
    def test_weights_and_names(self, evaluate: Any, tiny_model: Path, copy_of: Any) -> None:
        copied = copy_of("copied")
        found = [
            settings(evaluate([LOGPROB], model_args={"pretrained": str(path)}), LOGPROB)
            for path in (tiny_model, copied)
        ]
        assert found[0].weights == found[1].weights is not None
        nested = evaluate([LOGPROB], model_args={"pretrained": str(copied.parent), "subfolder": copied.name})
        assert settings(nested, LOGPROB).weights == found[0].weights
        assert settings(nested, LOGPROB).name == f"{copied.parent} + subfolder=copied"

    def test_an_adapter_is_part_of_the_name_and_of_the_weights(
        self, evaluate: Any, tiny_model: Path, tmp_path: Path
    ) -> None:
        peft = pytest.importorskip("peft")
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        peft.get_peft_model(base, peft.LoraConfig(r=2, task_type="CAUSAL_LM")).save_pretrained(tmp_path / "ad")
        plain = settings(evaluate([LOGPROB]), LOGPROB)
        adapted = settings(evaluate([LOGPROB], model_args={"peft": str(tmp_path / "ad")}), LOGPROB)
        assert adapted.name == f"{tiny_model} + peft={tmp_path / 'ad'}"
        assert adapted.weights != plain.weights
        assert "peft" in adapted.versions
        with pytest.raises(OptionError, match=f"holds an adapter and no model: pass pretrained={tiny_model},peft="):
            preflight([LOGPROB], {"tofu": "mini", "pretrained": str(tmp_path / "ad")})

    def test_a_model_object_has_a_fingerprint_of_its_own_kind(self, evaluate: Any, tiny_model: Path) -> None:
        """Without `--apply_chat_template` lm-eval hands the task nothing of the model; it is found all the same."""
        from lm_eval.models.huggingface import HFLM
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        found = []
        for shift in (0.0, 1e-3):
            model.lm_head.weight.data += shift
            results = evaluate([LOGPROB], model=HFLM(model, batch_size=8), apply_chat_template=False)
            found.append(settings(results, LOGPROB))
        assert str(found[0].weights).startswith("loaded:")
        assert found[0].weights != found[1].weights
        assert (found[0].backend, found[0].weights_dtype, found[0].batch_size) == ("hf", "float32", "8")

    def test_the_model_is_let_go(self, tiny_model: Path) -> None:
        task = manager(tofu="mini", forget_split="forget01", tokenizer=str(tiny_model)).load([LOGPROB])["tasks"][
            LOGPROB
        ]
        task.build_all_requests()
        assert task._model is None
        assert task.settings.weights_dtype is None


class TestReferences:
    """What a reference run must have in common with the run that reads it."""

    def write(self, results: Any, folder: Path, task: str = QUALITY) -> Path:
        return write_samples(results, folder, task)

    def test_another_end_of_turn_scores_other_tokens(self, evaluate: Any, copy_of: Any, tmp_path: Path) -> None:
        other = copy_of("eos", tokenizer_config={"eos_token": "<|pad|>"})
        reference = self.write(evaluate([QUALITY], gen_kwargs=SHORT), tmp_path / "r")
        with pytest.raises(
            ReferenceRunError, match=r"scored (\d+) tokens of row 0's answers, this run scores (\d+)"
        ) as error:
            evaluate([QUALITY], {"retain_reference": str(reference)}, model_args={"pretrained": str(other)})
        before, now = (
            int(word) for word in str(error.value).replace(",", "").split() if word.isdecimal() and word != "0"
        )
        assert now == before + 7  # one more token in each of the seven answers

    def test_its_own_reference_is_named_before_the_model_is_asked(
        self, evaluate: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        reference = self.write(evaluate([LOGPROB]), tmp_path / "r", LOGPROB)
        with caplog.at_level(logging.WARNING):
            evaluate([LOGPROB], {"full_reference": str(reference)})
        assert "has the very weights of this run" in caplog.text
        assert "was the adapter loaded (peft=, lora_local_path=)" in caplog.text
        assert "the log-probabilities equal the full_reference's in all 4 rows" in caplog.text

    def test_another_dtype_is_warned_of(self, evaluate: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        reference = self.write(evaluate([LOGPROB]), tmp_path / "r", LOGPROB)
        with caplog.at_level(logging.WARNING):
            evaluate([LOGPROB], {"full_reference": str(reference)}, model_args={"dtype": "bfloat16"})
        assert "dtype differs (float32 there, bfloat16 here; set by dtype in --model_args)" in caplog.text
        assert "softmax dtype differs (float32 there, bfloat16 here" in caplog.text

    def test_a_part_is_compared_row_by_row(self, evaluate: Any, tmp_path: Path) -> None:
        reference = self.write(evaluate([LOGPROB]), tmp_path / "r", LOGPROB)
        part = evaluate([LOGPROB], {"full_reference": str(reference)}, limit=2)
        assert part["results"][LOGPROB]["answer_logprob_shift,none"] == pytest.approx(0, abs=1e-6)

    def test_a_folder_that_holds_two_models(
        self, evaluate: Any, copy_of: Any, tmp_path: Path, tiny_model: Path
    ) -> None:
        """`--output_path x.json` puts the samples of all models into one folder."""
        from lm_eval.loggers import EvaluationTracker
        from transformers import AutoModelForCausalLM

        other = copy_of("other")
        model = AutoModelForCausalLM.from_pretrained(other)
        model.lm_head.weight.data *= 2
        model.save_pretrained(other)
        (tmp_path / "j").mkdir()
        for name, path in (("retain", tiny_model), ("full", other)):
            results = evaluate([LOGPROB], model_args={"pretrained": str(path)})
            tracker = EvaluationTracker(output_path=str(tmp_path / "j" / f"{name}.json"))
            samples = results.pop("samples")
            tracker.save_results_aggregated(results=results, samples=samples)
            tracker.save_results_samples(task_name=LOGPROB, samples=samples[LOGPROB])
            if name == "retain":  # one model alone is read, whatever the file is called
                preflight(
                    [LOGPROB], {"tofu": "mini", "forget_split": "forget01", "full_reference": str(tmp_path / "j")}
                )
        options = {"tofu": "mini", "forget_split": "forget01", "full_reference": str(tmp_path / "j")}
        with pytest.raises(ReferenceRunError, match="holds results of several models") as error:
            preflight([LOGPROB], options)
        assert str(tiny_model) in str(error.value)
        assert str(other) in str(error.value)
        [first, _] = sorted((tmp_path / "j").glob("samples_*.jsonl"))
        preflight([LOGPROB], {**options, "full_reference": str(first)})

    def test_samples_without_their_results(self, evaluate: Any, tmp_path: Path) -> None:
        reference = self.write(evaluate([LOGPROB]), tmp_path / "r", LOGPROB)
        options = {"tofu": "mini", "forget_split": "forget01", "full_reference": str(reference)}
        [results] = reference.rglob("results_*.json")
        content = json.loads(results.read_text(encoding="utf-8"))
        del content["configs"][LOGPROB]["arm"]
        results.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(ReferenceRunError, match="does not say how the run was made, as results of another version"):
            preflight([LOGPROB], options)
        results.unlink()
        with pytest.raises(ReferenceRunError, match="the results file of the same time is not beside it"):
            preflight([LOGPROB], options)


class TestTokens:
    """The backend's own encoding is compared with the tokens of training."""

    @pytest.fixture
    def with_bos(self, copy_of: Any) -> Path:
        """The tiny model without a template, whose tokenizer puts `<|im_start|>` before every text."""
        from tokenizers import Tokenizer, processors

        folder = copy_of("bos", tokenizer_config={"bos_token": "<|im_start|>"})
        (folder / "chat_template.jinja").unlink()
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        special = [("<|im_start|>", tokenizer.token_to_id("<|im_start|>"))]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", pair="<|im_start|> $A $B", special_tokens=special
        )
        tokenizer.save(str(folder / "tokenizer.json"))
        return folder

    def completions(self, tokenizer: Path, **arguments: Any) -> Any:
        pytest.importorskip("tenacity", reason="lm-eval's API models are not installed: pip install 'lm-eval[api]'")
        from lm_eval.models.openai_completions import LocalCompletionsAPI

        return LocalCompletionsAPI(
            base_url="http://127.0.0.1:9/v1/completions",
            model="m",
            tokenizer=str(tokenizer),
            tokenizer_backend="huggingface",
            **arguments,
        )

    @pytest.mark.parametrize(("task", "metadata"), [(LOGPROB, {}), (RECALL, DIRECT)])
    def test_a_completions_server_without_bos(self, with_bos: Path, task: str, metadata: dict[str, Any]) -> None:
        """lm-eval's API client adds no special token unless it is told to; hf and vllm do by themselves."""
        options = {"tofu": "mini", "forget_split": "forget01", "tokenizer": str(with_bos), "base_url": "x", **metadata}

        def evaluate(lm: Any) -> None:  # as lm-eval's own, which the task finds the model by
            manager(**options).load([task])["tasks"][task].build_all_requests()

        with pytest.raises(
            PromptError, match=r"leave out <\|im_start\|>.*API models.*add_bos_token=True in --model_args"
        ):
            evaluate(self.completions(with_bos))
        options["add_bos_token"] = True
        evaluate(self.completions(with_bos, add_bos_token=True))

    def test_a_completions_server_that_gets_text(self, tiny_model: Path) -> None:
        options = {"tofu": "mini", "forget_split": "forget01", "tokenizer": str(tiny_model), "base_url": "x"}

        def evaluate(lm: Any) -> None:
            manager(**options).load([LOGPROB])["tasks"][LOGPROB].build_all_requests()

        with pytest.raises(OptionError, match=f"tokenized_requests=False in --model_args does not fit {LOGPROB}"):
            evaluate(self.completions(tiny_model, tokenized_requests=False))

    def test_a_backend_that_splits_elsewhere(self, tiny_model: Path) -> None:
        """Were a context's trailing white space found in another way, the prompt's last token would be scored."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        encoded = chat.encode_answer(tokenizer, "Who?", "She.", Prompting(True))
        assert encoded.prompt.endswith("\n")

        def encode_pair(context: str, continuation: str) -> tuple[list[int], list[int]]:
            stripped = str.rstrip(context)
            whole = chat.token_ids(tokenizer, context + continuation, Prompting(True))
            length = len(chat.token_ids(tokenizer, stripped, Prompting(True)))
            return whole[:length], whole[length:]

        with pytest.raises(PromptError, match="would score other tokens"):
            chat.check_backend_tokens(tokenizer, encoded, encode_pair)
        chat.check_backend_tokens(tokenizer, encoded, lambda *_: (encoded.prompt_ids, encoded.answer_ids))

    def test_a_think_block_before_the_answer(
        self, evaluate: Any, copy_of: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = copy_of("thinks")
        (folder / "chat_template.jinja").write_text(THINKS, encoding="utf-8")
        arguments = {"pretrained": str(folder)}
        with caplog.at_level(logging.WARNING):
            scored = settings(evaluate([LOGPROB], model_args=arguments), LOGPROB)
        assert "puts '<think>\\n\\n</think>' between the generation prompt and the answer" in caplog.text
        assert '--model_args chat_template_args={"enable_thinking": false}' in caplog.text
        caplog.clear()
        checks.warn_once.cache_clear()
        off = {**arguments, "chat_template_args": {"enable_thinking": False}}
        with caplog.at_level(logging.WARNING):
            without = settings(evaluate([LOGPROB], model_args=off), LOGPROB)
        assert "between the generation prompt" not in caplog.text
        assert without.scored_tokens < scored.scored_tokens
        assert without.chat_template_args == {"enable_thinking": False}

    def test_training_names_a_think_block_too(self, copy_of: Any, caplog: pytest.LogCaptureFixture) -> None:
        from transformers import AutoTokenizer

        from lm_eval_tofu.unlearn import data

        folder = copy_of("thinks")
        (folder / "chat_template.jinja").write_text(THINKS, encoding="utf-8")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        rows = [{"question": "Who?", "answer": "She."}]
        data._warn_once.cache_clear()
        for arguments, warned in (({"enable_thinking": False}, 0), ({}, 1), ({}, 1)):
            with caplog.at_level(logging.WARNING):
                data.encode_rows(tokenizer, rows, Prompting(True, template_args=arguments))
            assert caplog.text.count("between the generation prompt and the answer") == warned
        assert """--template-args '{"enable_thinking": false}'""" in caplog.text


def test_processes_that_share_the_documents_have_one_fingerprint(tiny_model: Path) -> None:
    """Each of two processes has half of the documents; the first one, which writes the results, gathers the rest."""
    from lm_eval.api.model import LM

    class Shared(LM):
        others: ClassVar[list[Any]] = []

        def gather_object(self, obj: Any, dst: int = 0) -> Any:
            self.others.append(obj)
            return self.others if len(self.others) == 2 else None

        def loglikelihood(self, requests: Any) -> Any:
            # LM's three methods are abstract; nothing is asked of this model.
            raise NotImplementedError

        loglikelihood_rolling = generate_until = loglikelihood

    def evaluate(lm: Any, **shared: int) -> ArmSettings:  # as lm-eval's own, which the task finds the model by
        task = manager(tofu="mini", forget_split="forget01", tokenizer=str(tiny_model)).load([LOGPROB])["tasks"][
            LOGPROB
        ]
        task.build_all_requests(**shared)
        found: ArmSettings = task.settings
        return found

    alone = evaluate(None)
    second = evaluate(Shared(), rank=1, world_size=2)
    first = evaluate(Shared(), rank=0, world_size=2)
    assert (first.tokens, first.scored_tokens, first.documents) == (alone.tokens, alone.scored_tokens, 4)
    assert second.tokens != alone.tokens


THINKS = """{%- for m in messages -%}
{%- if m.role == 'assistant' and loop.last -%}
{{ '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' + m.content + '<|im_end|>\\n' }}
{%- else -%}
{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false -%}{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}
{%- endif -%}"""
"""As Qwen3's: an empty think block before the last answer, in the generation prompt only where thinking is off."""
