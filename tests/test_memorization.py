"""Memorisation and membership inference: by hand, on a model, and against open-unlearning's own figures."""

import json
import math
import random
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import needs

from lm_eval_tofu import cli, tofu
from lm_eval_tofu.chat import Prompting
from lm_eval_tofu.errors import OptionError, ReferenceRunError
from lm_eval_tofu.files import results_files
from lm_eval_tofu.metrics import memorization as metrics
from lm_eval_tofu.unlearn.data import encode_rows
from lm_eval_tofu.whitebox import answers, memorization, models
from lm_eval_tofu.whitebox.memorization import MemorizationConfig

ROWS = 1e-3
"""Largest difference of a row's figure from open-unlearning's."""


class TestMemorisation:
    @pytest.mark.parametrize(
        ("is_top", "exact", "strength", "no_floor"),
        [
            ([1, 1, 1, 1], 1.0, 1.0, 1.0),  # knows all
            ([0, 0, 0, 0], 0.0, 0.25, 0.0),  # knows nothing: the floor alone
            ([0, 0, 0, 1], 0.25, 0.25, 0.25),  # one right token at the end has the same value as none
            ([1, 1, 1, 0], 0.75, 0.25, 0.0),  # a suffix must reach the end
            ([1, 0, 1, 1], 0.75, 0.5, 0.5),
            ([1], 1.0, 1.0, 1.0),
            ([0], 0.0, 1.0, 0.0),  # one token: the floor is all there is
        ],
    )
    def test_by_hand(self, is_top: list[int], exact: float, strength: float, no_floor: float) -> None:
        known = [bool(each) for each in is_top]
        assert metrics.exact_memorization(known) == exact
        assert metrics.extraction_strength(known) == strength
        assert metrics.extraction_strength(known, floor=False) == no_floor

    def test_an_answer_without_tokens(self) -> None:
        assert math.isnan(metrics.exact_memorization([]))
        assert metrics.extraction_strength([]) == 0

    def test_the_search_of_the_reference(self) -> None:
        """1 - k / L with the first k from which all is right, else the last k: open-unlearning's loop, spelled out."""
        generator = random.Random(0)
        for _ in range(200):
            known = [generator.random() < 0.8 for _ in range(generator.randint(1, 9))]
            found = next((k for k in range(len(known)) if all(known[k:])), len(known) - 1)
            assert metrics.extraction_strength(known) == pytest.approx(1 - found / len(known))


class TestScores:
    def test_loss_by_hand(self) -> None:
        assert metrics.loss([-1.0, -2.0, -6.0]) == 3
        assert math.isnan(metrics.loss([]))

    def test_zlib_divides_the_mean(self) -> None:
        text = "a hundred bytes or so, repeated " * 4
        assert metrics.zlib_score(3.0, text) == 3 / len(zlib.compress(text.encode("utf-8"), 6))
        assert metrics.zlib_score(3.0, "") == 3 / 8  # an empty text: header and checksum alone

    @pytest.mark.parametrize(
        ("k", "expected"),
        [
            (0.4, (8 + 4) / 2),  # floor(0.4 x 5) = 2
            (0.59, (8 + 4) / 2),  # floor(2.95)
            (0.1, 8.0),  # never fewer than one
            (1.0, 3.2),
        ],
    )
    def test_min_k_by_hand(self, k: float, expected: float) -> None:
        assert metrics.min_k([-1.0, -4.0, -2.0, -8.0, -1.0], k) == pytest.approx(expected)

    def test_min_k_of_nothing_and_of_no_number(self) -> None:
        assert metrics.min_k([]) == 0
        assert metrics.min_k([-3.0]) == 3
        assert math.isnan(metrics.min_k([-1.0, math.nan, -2.0]))

    def test_min_k_plus_plus_by_hand(self) -> None:
        """p = (1/2, 1/4, 1/4), in units of ln 2: m = -1/2 - 2/2 = -3/2, v = 1/2 + 4/2 - 9/4 = 1/4.

        So z = (-ln 2 + 1.5 ln 2) / (ln 2 / 2) = 1 for the likeliest token, and -1 for the others.
        """
        logits = torch.tensor([[0.5, 0.25, 0.25]] * 2).log()
        values = answers.vocabulary_values(logits, torch.tensor([0, 2]))
        found = metrics.normalised_logprobs(values.logprob, values.mean, values.variance)
        assert found == pytest.approx([1, -1], abs=1e-5)
        assert values.is_top.tolist() == [1, 0]

    def test_a_certain_model_divides_by_the_least_variance(self) -> None:
        assert metrics.normalised_logprobs([-0.001], [0.0], [0.0]) == pytest.approx([-1])


class TestAuc:
    @pytest.mark.parametrize(
        ("forget", "holdout", "expected"),
        [
            ([1.0, 2.0], [3.0, 4.0], 1.0),  # forget rows are likelier: memorised
            ([3.0, 4.0], [1.0, 2.0], 0.0),  # over-forgotten
            ([1.0, 4.0], [2.0, 3.0], 0.5),
            ([1.0, 1.0], [1.0, 1.0], 0.5),  # all tied
            ([1.0, 2.0], [2.0, 3.0], 3.5 / 4),  # 2 < 2 counts half
            ([1.0], [2.0, 0.0, 1.0], 1.5 / 3),
        ],
    )
    def test_by_hand(self, forget: list[float], holdout: list[float], expected: float) -> None:
        assert metrics.auc(forget, holdout) == expected

    def test_counting_all_pairs(self) -> None:
        generator = np.random.default_rng(0)
        forget, holdout = generator.integers(0, 6, 23), generator.integers(1, 7, 17)
        pairs = [(b > a) + (b == a) / 2 for a in forget for b in holdout]
        assert metrics.auc(forget.tolist(), holdout.tolist()) == pytest.approx(np.mean(pairs))

    def test_degenerate_input(self) -> None:
        assert math.isnan(metrics.auc([1.0, math.nan], [2.0]))
        assert metrics.auc([1.0], [math.inf]) == 1
        for forget, holdout in (([], [1.0]), ([1.0], [])):
            with pytest.raises(ValueError, match="both must have some"):
                metrics.auc(forget, holdout)

    def test_both_ends_are_far_from_privacy(self) -> None:
        assert [metrics.separation(value) for value in (0.0, 0.5, 1.0, 0.25)] == [1, 0, 1, 0.5]


class TestPrivleak:
    @pytest.mark.parametrize(
        ("auc", "retain", "expected"),
        [
            (0.5, 0.5, 0.0),
            (1.0, 0.5, -100.0),  # still a member
            (0.0, 0.5, 100.0),
            (0.25, 0.5, 50.0),
            (0.7, 0.0, -70.0),  # 100 ((1 - 0.7) - 1) / 1
            (0.0, 0.0, 0.0),
            (1.0, 1.0, 0.0),  # 0 / 1e-10
            (0.5, 1.0, 0.5 / 1e-10 * 100),  # no bound
        ],
    )
    def test_by_hand(self, auc: float, retain: float, expected: float) -> None:
        assert metrics.privleak(auc, retain) == pytest.approx(expected, rel=1e-6, abs=1e-6)

    def test_relative_difference(self) -> None:
        assert metrics.relative_difference(0.9, 0.6) == pytest.approx(50)
        assert metrics.relative_difference(0.0, 0.0) == 0


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> Any:
    return models.load_causal(models.locate("--model", str(tiny_model)), "float32", "cpu")


def encoded(model: Path, count: int) -> Any:
    tokenizer = models.locate("--model", str(model)).tokenizer
    return encode_rows(tokenizer, tofu.load("forget10", tofu.resolve_source("mini"))[:count], Prompting(True))


class TestTheForwardPass:
    def test_values_are_those_of_a_row_alone(self, tiny_model: Path, loaded: Any) -> None:
        """In double precision from the whole logits, without padding."""
        examples = encoded(tiny_model, 5)
        [batch] = answers.batches(examples, [3, 1, 4], 8, "cpu")
        found = answers.split_rows(answers.token_values(loaded, batch), batch.tokens)
        for row, values in zip(batch.rows, found, strict=True):
            ids = torch.tensor([examples[row]["input_ids"]])
            with torch.inference_mode():
                logits = loaded(ids).logits[0].double()
            count = sum(label != -100 for label in examples[row]["labels"])
            logprobs = logits[-count - 1 : -1].log_softmax(-1)
            answer = ids[0, -count:]
            mean = (logprobs.exp() * logprobs).sum(-1)
            expected = [
                logprobs[torch.arange(count), answer],
                (logprobs.argmax(-1) == answer).double(),
                mean,
                (logprobs.exp() * (logprobs - mean[:, None]) ** 2).sum(-1),
            ]
            for ours, theirs in zip(values, expected, strict=True):
                assert ours.numpy() == pytest.approx(theirs.numpy(), abs=2e-5)

    def test_statistics_are_in_float32(self) -> None:
        """bfloat16 logits are widened before the sum over the vocabulary: nothing is rounded a second time."""
        logits = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0)).bfloat16()
        targets = torch.tensor([1, 2, 3])
        found, exact = answers.vocabulary_values(logits, targets), answers.vocabulary_values(logits.float(), targets)
        for ours, theirs in zip(found, exact, strict=True):
            assert torch.equal(ours, theirs)

    def test_a_token_that_is_ruled_out_adds_nothing(self) -> None:
        logits = torch.tensor([[0.0, 0.0, -math.inf]])
        values = answers.vocabulary_values(logits, torch.tensor([0]))
        assert [float(each) for each in values] == pytest.approx([-math.log(2), 1, -math.log(2), 0], abs=1e-6)
        assert float(answers.vocabulary_values(logits, torch.tensor([2])).logprob) == -math.inf

    def test_logits_that_are_no_numbers_stay_so(self) -> None:
        values = answers.vocabulary_values(torch.tensor([[0.0, math.nan]]), torch.tensor([0]))
        assert math.isnan(values.logprob)
        assert math.isnan(values.mean)

    def test_only_answer_positions_are_projected(self, tiny_model: Path, loaded: Any) -> None:
        sizes = []
        handle = loaded.get_output_embeddings().register_forward_hook(lambda _, __, out: sizes.append(out.shape))
        [batch] = answers.batches(encoded(tiny_model, 4), range(4), 4, "cpu")
        answers.token_values(loaded, batch)
        handle.remove()
        assert sizes == [(len(batch.tokens), loaded.config.vocab_size)]

    def test_gradient_norm(self, tiny_model: Path, loaded: Any) -> None:
        [batch] = answers.batches(encoded(tiny_model, 1), [0], 1, "cpu")
        found = answers.gradient_norm(loaded, batch)
        loss = loaded(input_ids=batch.inputs["input_ids"], labels=batch.inputs["labels"]).loss
        loss.backward()
        norms = [float(each.grad.norm()) for each in loaded.parameters() if each.grad is not None]
        loaded.zero_grad()
        assert found == pytest.approx(np.mean(norms), rel=1e-5)
        assert all(each.grad is None or not each.grad.any() for each in loaded.parameters())


def config(model: Path, output: Path, /, **changes: Any) -> MemorizationConfig:
    return MemorizationConfig(
        **{"model": str(model), "output": output, "tofu": "mini", "device": "cpu", "dtype": "float32", **changes}
    )


class TestTheAudit:
    def test_an_untrained_model(self, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        given = config(tiny_model, tmp_path / "out", reference_model=str(tiny_model))
        content = json.loads(memorization.memorization(given).read_text(encoding="utf-8"))
        figures = content["results"]["tofu_memorization"]
        rows = content["tofu_memorization"]["rows"]
        assert len(rows["forget"]) == len(rows["holdout"]) == figures["n_holdout,none"] == 40
        assert figures["mia_reference,none"] == 0.5  # its own loss: every score is 0
        assert figures["exact_memorization,none"] < 0.1
        assert figures["extraction_strength_no_floor,none"] <= figures["extraction_strength,none"]
        assert figures["privleak,none"] is None
        assert "mia_gradnorm,none" not in figures
        strengths = [row["extraction_strength"] for row in rows["forget"]]
        assert figures["extraction_strength,none"] == pytest.approx(np.mean(strengths))
        assert memorization.table(content)

        # A second run finds all token values; the first one's results are its retain reference.
        def no_model(*_: Any) -> None:
            raise AssertionError("the model is loaded again")

        monkeypatch.setattr(models, "load_causal", no_model)
        again = config(tiny_model, tmp_path / "out", retain_reference=tmp_path / "out")
        content = json.loads(memorization.memorization(again).read_text(encoding="utf-8"))
        assert content["results"]["tofu_memorization"]["privleak,none"] == 0
        assert content["results"]["tofu_memorization"]["relative_difference,none"] == 0

    def test_the_command(self, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        given = ["--model", str(tiny_model), "-o", str(tmp_path), "--tofu", "mini", "--forget-split", "forget01"]
        assert cli.main(["memorization", *given, "--device", "cpu", "--gradient-norm", "--k", "0.2"]) == 0
        said = capsys.readouterr().out
        assert "mia_gradnorm" in said
        assert f"written: {results_files(tmp_path)[0]}" in said
        assert cli.main(["memorization", *given, "--retain-reference", str(tmp_path / "nowhere")]) == 2
        assert "--retain-reference" in capsys.readouterr().err

    def test_a_damaged_shard_is_computed_again(self, tiny_model: Path, tmp_path: Path) -> None:
        run: Any = memorization.token_values
        found = models.locate("--model", str(tiny_model))
        given = {"examples": encoded(tiny_model, 3), "batch_size": 2, "device": "cpu", "dtype": "float32"}
        first = run(tmp_path, found, **given)
        [shard] = tmp_path.rglob("*.npz")
        whole = shard.read_bytes()
        for content in (whole[: len(whole) // 2], b""):
            shard.write_bytes(content)
            again = run(tmp_path, found, **given)
            assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
        assert shard.read_bytes() != b""
        run(tmp_path, found, **{**given, "examples": encoded(tiny_model, 2)})
        assert len({path.parent for path in tmp_path.rglob("*.npz")}) == 2

    def test_the_same_weights_with_fewer_layers_are_another_model(self, tiny_model: Path, tmp_path: Path) -> None:
        shutil.copytree(tiny_model, tmp_path / "shallow")
        path = tmp_path / "shallow" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 1}))
        located = [models.locate("--model", str(folder)) for folder in (tiny_model, path.parent)]
        assert located[0].weights == located[1].weights
        given = {"examples": encoded(tiny_model, 1), "batch_size": 1, "device": "cpu", "dtype": "float32"}
        first, second = (memorization.token_values(tmp_path / "tokens", each, **given)[0] for each in located)
        assert not np.allclose(first[0], second[0], atol=0.01)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"forget_split": "forget20"}, "'forget20' is unknown"),
            ({"k": 0.0}, "--k 0.0 is no share"),
            ({"batch_size": 0}, "--batch-size 0 is less than 1"),
            ({"dtype": "int8"}, "--dtype 'int8' is unknown"),
            ({"device": "nonsense"}, "--device nonsense cannot be used"),
            ({"model": "/nowhere/model"}, "--model /nowhere/model is no directory"),
            ({"reference_model": "/nowhere/model"}, "--reference-model /nowhere/model is no directory"),
            ({"apply_chat_template": False, "template_args": {"a": 1}}, "has no use without a chat template"),
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
            memorization.memorization(config(tiny_model, tmp_path / "out", **changes))

    def test_no_holdout_rows(self, tiny_model: Path, tmp_path: Path) -> None:
        source = Path(tofu.__file__).parent / "mini"
        for name in ("forget10_perturbed", "retain90"):
            (tmp_path / f"{name}.json").write_bytes((source / f"{name}.json").read_bytes() * 10)
        with pytest.raises(tofu.DataError, match=r"has no holdout10\.json"):
            memorization.memorization(config(tiny_model, tmp_path / "out", tofu=str(tmp_path)))

    def test_other_retain_references(self, tiny_model: Path, tmp_path: Path) -> None:
        memorization.memorization(config(tiny_model, tmp_path / "mine", forget_split="forget05"))
        other = tmp_path / "other"
        other.mkdir()
        for name, content in (("probe", {"results": {"tofu_probe": {}}}), ("none", {})):
            (other / f"results_{name}.json").write_text(json.dumps(content))
        (tmp_path / "empty").mkdir()
        cases = {
            tmp_path / "nowhere": "does not exist",
            tmp_path / "empty": "holds results of no task",
            other: "holds results of tofu_probe and none of tofu_memorization",
            tmp_path / "mine": "its forget_split is 'forget05', this run's is 'forget10'",
        }
        for path, message in cases.items():
            with pytest.raises(ReferenceRunError, match=message):
                memorization.memorization(config(tiny_model, tmp_path / "out", retain_reference=path))
        with pytest.raises(ReferenceRunError, match=r"its k is 0\.4, this run's is 0\.2"):
            memorization.memorization(
                config(tiny_model, tmp_path / "o", forget_split="forget05", k=0.2, retain_reference=tmp_path / "mine")
            )
        assert not results_files(tmp_path / "out")

    def test_a_log_of_open_unlearning_is_a_retain_reference(self, tiny_model: Path, tmp_path: Path) -> None:
        log = tmp_path / "TOFU_EVAL.json"
        log.write_text(json.dumps({"mia_min_k": {"agg_value": 0.25}, "extraction_strength": {"agg_value": 0.1}}))
        path = memorization.memorization(config(tiny_model, tmp_path / "out", retain_reference=log))
        figures = json.loads(path.read_text(encoding="utf-8"))["results"]["tofu_memorization"]
        assert figures["privleak,none"] == pytest.approx(metrics.privleak(figures["mia_min_k,none"], 0.25))


class TestTheTask:
    """`tofu_membership`: LOSS and ZLib from lm-eval's sums."""

    def test_it_agrees_with_the_forward_pass(self, tiny_model: Path, tmp_path: Path, evaluate: Any) -> None:
        found = evaluate(["tofu_membership"], {"forget_split": "forget10"})
        ours = found["results"]["tofu_membership"]
        path = memorization.memorization(config(tiny_model, tmp_path / "out"))
        command = json.loads(path.read_text(encoding="utf-8"))
        rows = command["tofu_memorization"]["rows"]
        assert len(found["samples"]["tofu_membership"]) == ours["n,none"] == 80
        for sample in found["samples"]["tofu_membership"]:
            record = sample["mia_loss"]
            expected = rows[record["set"]][record["index"]]
            for name in ("mia_loss", "mia_zlib"):
                assert record[name] == pytest.approx(expected[name], abs=1e-5)
        for name in ("mia_loss", "mia_zlib"):
            auc = command["results"]["tofu_memorization"][f"{name},none"]
            assert ours[f"{name},none"] == pytest.approx(auc, abs=1e-9)
            assert ours[f"{name}_separation,none"] == pytest.approx(abs(2 * auc - 1), abs=1e-9)

    def test_without_holdout_rows_there_is_no_value(self, evaluate: Any, caplog: pytest.LogCaptureFixture) -> None:
        found = evaluate(["tofu_membership"], limit=3)["results"]["tofu_membership"]
        assert found["mia_loss,none"] is None
        assert found["mia_zlib_separation,none"] is None
        assert "it compares forget with holdout rows" in caplog.text

    def test_chosen_rows_are_refused(self, evaluate: Any) -> None:
        with pytest.raises(OptionError, match="forget_rows fits the leak audits only"):
            evaluate(["tofu_membership"], {"forget_rows": "0-1"})


class TestParity:
    """open-unlearning's own evaluation of the nano arms; SmolLM2's is in `benchmarks/parity.py --memorisation`."""

    @pytest.fixture(scope="class", params=["nano_full", "nano_retain"])
    def both(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
        folder = needs("parity")
        theirs = json.loads((folder / "memorisation.json").read_text(encoding="utf-8"))
        other = {"nano_full": "nano_retain", "nano_retain": "nano_full"}[request.param]
        output = tmp_path_factory.mktemp("memorization")
        if request.param == "nano_full":
            (output / "TOFU_EVAL.json").write_text(json.dumps(theirs["nano_retain"]))
        path = memorization.memorization(
            config(
                folder / "models" / request.param,
                output,
                reference_model=str(folder / "models" / other),
                gradient_norm=True,
                retain_reference=output / "TOFU_EVAL.json" if request.param == "nano_full" else None,
            )
        )
        return json.loads(path.read_text(encoding="utf-8")), theirs[request.param]

    def test_every_row(self, both: tuple[Any, Any]) -> None:
        ours, theirs = both
        rows = ours["tofu_memorization"]["rows"]
        compared = 0
        for name in ("exact_memorization", "extraction_strength", *memorization.ATTACKS):
            parts = theirs[name] if name.startswith("mia") else {"forget": theirs[name]}
            for part in parts.keys() & rows.keys():
                expected = [parts[part]["value_by_index"][str(index)]["score"] for index in range(40)]
                assert [row[name] for row in rows[part]] == pytest.approx(expected, abs=ROWS), (name, part)
                compared += 40
        assert compared == (2 + 2 * 6) * 40

    def test_every_aggregate(self, both: tuple[Any, Any]) -> None:
        ours, theirs = both
        figures = ours["results"]["tofu_memorization"]
        for name in ("exact_memorization", "extraction_strength", *memorization.ATTACKS):
            assert figures[f"{name},none"] == pytest.approx(theirs[name]["agg_value"], abs=1e-3), name
        with_log = figures["privleak,none"] is not None
        privleak = figures["privleak,none" if with_log else "privleak_without_retain,none"]
        assert privleak == pytest.approx(theirs["privleak"]["agg_value"], rel=1e-6)

    def test_our_aggregates_of_their_rows(self) -> None:
        theirs = json.loads((needs("parity") / "memorisation.json").read_text(encoding="utf-8"))
        for model in ("smollm2", "smollm2_28_layers", "nano_full", "nano_retain"):
            for name in theirs[model].keys() & set(memorization.ATTACKS):
                scores = [
                    [row["score"] for row in theirs[model][name][part]["value_by_index"].values()]
                    for part in ("forget", "holdout")
                ]
                assert metrics.auc(*scores) == pytest.approx(theirs[model][name]["auc"], abs=1e-12), (model, name)
        for model, retain in (("smollm2", "smollm2_28_layers"), ("nano_full", "nano_retain")):
            aucs = [theirs[each]["mia_min_k"]["auc"] for each in (model, retain)]
            assert metrics.privleak(*aucs) == pytest.approx(theirs[model]["privleak"]["agg_value"], rel=1e-12)


@pytest.mark.slow
def test_the_arms_of_the_miniature(nano_arms: Path, tmp_path: Path) -> None:
    """Full memorises every word of the forget rows, retain none; NPO's arm stands between or beyond."""
    found: dict[str, dict[str, float]] = {}
    for arm in ("retain", "full", "lightly-unlearned"):
        reference = tmp_path / "retain" if arm != "retain" else None
        path = memorization.memorization(config(nano_arms / arm, tmp_path / arm, retain_reference=reference))
        figures = json.loads(path.read_text(encoding="utf-8"))["results"]["tofu_memorization"]
        found[arm] = {name.removesuffix(",none"): value for name, value in figures.items()}
    full, retain, unlearned = (found[arm] for arm in ("full", "retain", "lightly-unlearned"))
    for name in ("extraction_strength", "extraction_strength_no_floor", "exact_memorization"):
        assert full[name] > 0.95
        assert unlearned[name] < full[name]
    assert retain["extraction_strength_no_floor"] < 0.05
    assert retain["exact_memorization"] < 0.4
    for name in ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus"):
        assert full[name] == full[f"{name}_separation"] > 0.99
    assert full["privleak"] < -95
