"""Unlearning depth: the score by hand, patching and logit lens on small models, and UDS's own figures."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import needs

from lm_eval_tofu import cli, tofu
from lm_eval_tofu.chat import Prompting
from lm_eval_tofu.errors import DataError, OptionError
from lm_eval_tofu.metrics import depth as metrics
from lm_eval_tofu.unlearn.data import IGNORED, Example
from lm_eval_tofu.whitebox import answers, depth, models, patching
from lm_eval_tofu.whitebox.depth import DepthConfig


class TestTheScore:
    @pytest.mark.parametrize(
        ("s1", "s2", "expected"),
        [
            ([1.0, 3.0], [0.0, 0.0], 0.0),  # equal to full
            ([1.0, 3.0], [1.0, 3.0], 1.0),  # equal to retain
            ([1.0, 3.0], [1.0, 0.0], 0.25),  # weighted by s1: 1 x 1 / 4
            ([1.0, 3.0], [-2.0, 9.0], 0.75),  # clipped at both ends: (1 x 0 + 3 x 1) / 4
            ([0.05, 2.0], [0.05, 1.0], 0.5),  # 0.05 does not exceed the threshold
            ([-1.0, 2.0], [5.0, 1.0], 0.5),  # nor does a layer whose replacement helps
        ],
    )
    def test_by_hand(self, s1: list[float], s2: list[float], expected: float) -> None:
        assert metrics.erased(s1, s2) == pytest.approx(expected)

    def test_another_threshold(self) -> None:
        assert metrics.erased([0.5, 2.0], [0.5, 1.0], threshold=0.6) == 0.5
        assert metrics.erased([0.5, 2.0], [0.5, 1.0], threshold=0.0) == pytest.approx(1.5 / 2.5)

    def test_no_layer_that_holds_the_fact(self) -> None:
        assert metrics.erased([0.05, -1.0], [1.0, 1.0]) is None
        assert metrics.mean_over_rows([0.25, None, 0.75]) == 0.5
        assert math.isnan(metrics.mean_over_rows([None, None]))

    def test_what_is_no_number_is_not_left_out(self) -> None:
        assert math.isnan(metrics.erased([math.nan, 1.0], [1.0, 1.0]) or 0.0)
        assert math.isnan(metrics.erased([1.0], [math.nan]) or 0.0)
        assert math.isnan(metrics.mean_over_rows([0.5, math.nan]))


@pytest.fixture(scope="module")
def other_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with other weights in its layers: the same embeddings, final norm and head."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = tmp_path_factory.mktemp("models") / "other"
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.manual_seed(0)
    for parameter in model.model.layers.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def arms(tiny_model: Path, other_model: Path) -> tuple[Any, Any]:
    located = [models.locate("--model", str(path)) for path in (tiny_model, other_model)]
    full, retain = (models.load_causal(each, "float32", "cpu") for each in located)
    return full, retain


@pytest.fixture(scope="module")
def batch(tiny_model: Path) -> answers.Batch:
    """Three rows of different lengths, padded, with two, one and three tokens of a fact."""
    rows = [([5, 6, 7, 8, 9], [3, 4]), ([9, 8, 7], [2]), ([4, 5, 6, 7, 8, 9, 10], [2, 3, 4])]
    examples = [
        Example(input_ids=ids, labels=[token if place in fact else IGNORED for place, token in enumerate(ids)])
        for ids, fact in rows
    ]
    return next(answers.batches(examples, range(3), 3, "cpu"))


class TestPatching:
    def test_own_states_change_nothing(self, arms: tuple[Any, Any], batch: answers.Batch) -> None:
        full, _ = arms
        states = patching.layer_states(full, batch, "--full")
        baseline = patching.fact_scores(full, batch)
        patched = patching.patched_scores(full, batch, states.outputs, "--full")
        assert patched.shape == (2, 3)
        for layer in patched:
            assert torch.allclose(layer, baseline, atol=1e-6)

    def test_the_last_layer_by_hand(self, arms: tuple[Any, Any], batch: answers.Batch) -> None:
        """Behind the last layer there are final norm and head alone: patching and logit lens are the same there."""
        full, other = arms
        states = patching.layer_states(other, batch, "--model").outputs
        hidden = other(input_ids=batch.inputs["input_ids"], output_hidden_states=True).hidden_states[1]
        first = hidden.flatten(0, 1)[batch.tokens.positions]
        assert torch.allclose(states[0], first, atol=1e-5)
        with torch.inference_mode():
            logprobs = full.lm_head(full.model.norm(states)).log_softmax(-1)
        chosen = logprobs.gather(-1, batch.tokens.targets.expand(2, -1)[:, :, None])[:, :, 0]
        expected = torch.stack([part.mean(dim=1) for part in chosen.split([2, 1, 3], dim=1)], dim=1)
        assert torch.allclose(patching.lens_scores(full, batch, states, "--full"), expected, atol=1e-5)
        patched = patching.patched_scores(full, batch, states, "--full")
        assert torch.allclose(patched[-1], expected[-1], atol=1e-5)
        assert not torch.allclose(patched[0], expected[0], atol=1e-2)

    def test_only_the_positions_of_the_fact_are_replaced(self, arms: tuple[Any, Any], batch: answers.Batch) -> None:
        """A row's score does not depend on the rows beside it or on their padding."""
        full, other = arms
        rows = batch.inputs["input_ids"].shape[0]
        together = patching.patched_scores(full, batch, patching.layer_states(other, batch, "").outputs, "")
        lengths = batch.inputs["attention_mask"].sum(dim=1).tolist()
        for row in range(rows):
            ids, labels = (batch.inputs[name][row, : lengths[row]].tolist() for name in ("input_ids", "labels"))
            alone = next(answers.batches([Example(input_ids=ids, labels=labels)], [0], 1, "cpu"))
            score = patching.patched_scores(full, alone, patching.layer_states(other, alone, "").outputs, "")
            assert torch.allclose(score[:, 0], together[:, row], atol=1e-5)

    def test_the_lens_in_parts(
        self, arms: tuple[Any, Any], batch: answers.Batch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        full, other = arms
        states = patching.layer_states(other, batch, "").outputs
        whole = patching.lens_scores(full, batch, states, "")
        monkeypatch.setattr(patching, "LENS_TOKENS", 2)
        assert torch.allclose(patching.lens_scores(full, batch, states, ""), whole, atol=1e-6)

    def test_no_hook_stays(self, arms: tuple[Any, Any], batch: answers.Batch) -> None:
        full, other = arms
        before = patching.fact_scores(full, batch)
        patching.patched_scores(full, batch, patching.layer_states(other, batch, "").outputs, "")
        assert torch.equal(patching.fact_scores(full, batch), before)

    def test_a_model_without_a_list_of_layers(self, arms: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(arms[0].config, "num_hidden_layers", 7)
        with pytest.raises(OptionError, match="--full m: the architecture LlamaForCausalLM has no list of 7 layers"):
            patching.layers_of(arms[0], "--full m")


class TestFacts:
    def test_labels_are_on_the_fact_alone(self, tiny_model: Path) -> None:
        tokenizer = models.locate("--model", str(tiny_model)).tokenizer
        answer = "The author is Wilhelmina Drostenberg, who was born in Paramaribo."
        start = answer.index("Wilhelmina")
        fact = depth.AnnotatedFact(0, "Who?", answer, start, start + len("Wilhelmina Drostenberg"), start - 1)
        for applied in (True, False):
            example = depth.encode_fact(tokenizer, fact, Prompting(applied))
            labels = [label for label in example["labels"] if label != IGNORED]
            assert tokenizer.decode(labels).strip() == "Wilhelmina Drostenberg"
            place = example["labels"].index(labels[0])
            assert tokenizer.decode(example["input_ids"][:place]).endswith("The author is")
            assert tokenizer.decode(example["input_ids"]).endswith("Paramaribo.")

    @pytest.mark.parametrize(
        ("cut", "continuation"),
        [
            ("The author is", " Ada Kern."),
            ("", "The author is Ada Kern."),  # the prompt ends in a space
            ("The author is '", " Ada Kern."),  # a space is put in behind the quotation mark
        ],
    )
    def test_as_uds_reads_it(self, tiny_model: Path, cut: str, continuation: str) -> None:
        tokenizer = models.locate("--model", str(tiny_model)).tokenizer
        answer = f"{cut}{continuation.strip()}" if cut.endswith("'") else f"{cut}{continuation}"
        start = answer.index("Ada")
        fact = depth.AnnotatedFact(0, "Who?", answer, start, start + len("Ada Kern"), len(cut))
        example = depth.encode_fact_as_uds(tokenizer, fact)
        prompt = tokenizer.encode(f"Question: Who?\nAnswer: {cut}")
        assert example["input_ids"] == prompt + tokenizer.encode(continuation, add_special_tokens=False)
        labels = [label for label in example["labels"] if label != IGNORED]
        assert tokenizer.decode(labels).strip() == "Ada Kern"

    def test_facts_of_the_miniature(self) -> None:
        found = depth.own_facts(tofu.resolve_source("mini"), "forget10")
        assert len(found) >= 30
        for fact in found:
            assert fact.answer[fact.start : fact.stop].strip() not in ("", fact.question)
            assert fact.answer[fact.start : fact.stop] not in fact.question

    def test_annotated_rows(self, tmp_path: Path) -> None:
        row = {"idx": 7, "question": "Q?", "answer": "Ada is Ada Kern.", "prefix": "Ada is", "entity": "Ada Kern"}
        path = tmp_path / "facts.json"
        path.write_text(json.dumps([row, {**row, "prefix": "elsewhere", "entity": "Ada"}]))
        first, second = depth.read_facts(path)
        assert (first.row, first.start, first.stop, first.cut) == (7, 7, 15, 6)
        assert (second.start, second.stop, second.cut) == (0, 3, 0)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[", "cannot be read"),
            ("[]", "holds no rows"),
            ('{"a": 1}', "holds no rows"),
            ('[{"question": "Q"}]', "row 0 lacks 'answer'"),
            ("[3]", "row 0 lacks"),
            ('[{"question": "Q", "answer": "A b", "prefix": "A b", "entity": "A"}]', "does not state 'A' behind"),
            ('[{"question": "Q", "answer": "A b", "prefix": "A", "entity": ""}]', "does not state ''"),
        ],
    )
    def test_a_bad_file(self, tmp_path: Path, content: str, message: str) -> None:
        path = tmp_path / "facts.json"
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            depth.read_facts(path)


def config(model: Path, full: Path, retain: Path, output: Path, /, **changes: Any) -> DepthConfig:
    given = {"model": model, "full": full, "retain": retain}
    options = {"output": output, "tofu": "mini", "device": "cpu", "dtype": "float32", **changes}
    return DepthConfig(**{**{arm: str(path) for arm, path in given.items()}, **options})


def figures_of(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert depth.table(content)
    return {name.removesuffix(",none"): value for name, value in content["results"]["tofu_depth"].items()}


class TestTheAudit:
    def test_its_ends(self, tiny_model: Path, other_model: Path, tmp_path: Path) -> None:
        for model, expected in ((tiny_model, 0.0), (other_model, 1.0)):
            found = figures_of(depth.depth(config(model, tiny_model, other_model, tmp_path / "out")))
            assert found["uds"] == pytest.approx(expected, abs=1e-6)
            assert found["logit_lens"] == pytest.approx(expected, abs=1e-6)
            assert found["n_uds"] > 5

    def test_the_command(
        self, tiny_model: Path, other_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arms = ["--model", str(other_model), "--full", str(tiny_model), "--retain", str(other_model)]
        given = [*arms, "-o", str(tmp_path), "--tofu", "mini", "--forget-split", "forget01", "--device", "cpu"]
        for more in ([], ["--uds-compat"], ["--no-chat-template"]):
            assert cli.main(["depth", *given, *more]) == 0
            assert "UDS 1.000 of" in capsys.readouterr().out
        assert cli.main(["depth", *given, "--uds-compat", "--system-prompt", "Be brief."]) == 2
        assert "--uds-compat" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"forget_split": "forget20"}, "'forget20' is unknown"),
            ({"batch_size": 0}, "--batch-size 0 is less than 1"),
            ({"threshold": -1.0}, "--threshold -1.0 is no threshold"),
            ({"dtype": "int8"}, "--dtype 'int8' is unknown"),
            ({"full": "/nowhere/model"}, "--full /nowhere/model is no directory"),
            ({"uds_compat": True, "system_prompt": "Be brief."}, "--uds-compat asks without a chat template"),
        ],
    )
    def test_bad_options(
        self,
        tiny_model: Path,
        tmp_path: Path,
        changes: dict[str, Any],
        message: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(models, "load_causal", None)  # not callable: refused before any model is loaded
        with pytest.raises(OptionError, match=message):
            depth.depth(config(tiny_model, tiny_model, tiny_model, tmp_path / "out", **changes))

    def test_another_number_of_layers(self, tiny_model: Path, tmp_path: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(tiny_model, num_hidden_layers=1)
        model.save_pretrained(tmp_path / "shallow")
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "shallow")
        with pytest.raises(OptionError, match=r"--model .*shallow has 1 layers, --full .* has 2"):
            depth.depth(config(tmp_path / "shallow", tiny_model, tiny_model, tmp_path / "out"))


@pytest.mark.parametrize("arm", ["nano_npo", "nano_full", "nano_retain"])
class TestParity:
    """UDS's own code (commit fc31639) on the nano arms."""

    def rows(self, arm: str, *, uds_compat: bool) -> tuple[list[depth.RowDepth], Any, Any]:
        folder = needs("parity")
        theirs = json.loads((folder / "uds.json").read_text(encoding="utf-8"))
        named = {"model": arm, "full": "nano_full", "retain": "nano_retain"}
        located = {each: models.locate(f"--{each}", str(folder / "models" / name)) for each, name in named.items()}
        tokenizer = located["full"].tokenizer
        examples = []
        for row in theirs["rows"]:
            prompt = tokenizer.encode(row["prompt"])
            reference = tokenizer.encode(row["reference_text"], add_special_tokens=False)
            start, stop = row["eval_span"]
            labels = [token if start <= place < stop else IGNORED for place, token in enumerate(reference)]
            examples.append(Example(input_ids=prompt + reference, labels=[IGNORED] * len(prompt) + labels))
        found = depth.row_depths(located, examples, batch_size=8, device="cpu", dtype="float32", uds_compat=uds_compat)
        return found, theirs["rows"], theirs["arms"][arm]

    def test_every_row(self, arm: str) -> None:
        ours, rows, theirs = self.rows(arm, uds_compat=True)
        for found, row, scored in zip(ours, rows, theirs["rows"], strict=True):
            assert found.full_score == pytest.approx(row["full_score"], abs=1e-3)
            assert found.s1 == pytest.approx(row["s1_deltas"], abs=1e-3)
            assert found.s2 == pytest.approx(scored["s2_deltas"], abs=1e-3)
            assert found.uds() == pytest.approx(scored["uds"], abs=1e-3)
        assert metrics.mean_over_rows([row.uds() for row in ours]) == pytest.approx(theirs["uds"], abs=1e-3)

    def test_a_layer_by_a_layer(self, arm: str) -> None:
        """Without compatibility the ends are exact: full equals full, and retain equals retain."""
        ours, _, theirs = self.rows(arm, uds_compat=False)
        score = metrics.mean_over_rows([row.uds() for row in ours])
        lens = metrics.mean_over_rows([row.logit_lens() for row in ours])
        if arm == "nano_npo":
            assert score == pytest.approx(theirs["uds"], abs=0.01)
            assert 0.5 < lens < 0.9
        else:
            ends = {"nano_full": 0, "nano_retain": 1}
            assert score == pytest.approx(ends[arm], abs=1e-9)
            assert lens == pytest.approx(ends[arm], abs=1e-9)
        assert np.isfinite([row.full_score for row in ours]).all()


@pytest.mark.slow
def test_the_arms_of_the_miniature(nano_arms: Path, tmp_path: Path) -> None:
    """Full scores 0 and retain 1, in both scores; a model that NPO has changed a little stands between."""
    full, retain = nano_arms / "full", nano_arms / "retain"
    scores = {
        arm: figures_of(depth.depth(config(nano_arms / arm, full, retain, tmp_path / arm)))
        for arm in ("full", "retain", "lightly-unlearned")
    }
    for name in ("uds", "logit_lens"):
        assert scores["full"][name] == pytest.approx(0, abs=1e-6)
        assert scores["retain"][name] == pytest.approx(1, abs=1e-6)
        assert 0.02 < scores["lightly-unlearned"][name] < 0.98
        assert scores["full"][f"n_{name}"] >= 30
