"""The masked probe: its arithmetic by hand, its data, its stores on disk, and what it refuses."""

import json
import logging
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import by_chance

from lm_eval_tofu import cli, tofu
from lm_eval_tofu.chat import Prompting, encode_answer
from lm_eval_tofu.errors import DataError
from lm_eval_tofu.metrics import inference
from lm_eval_tofu.metrics.facts import Fact
from lm_eval_tofu.metrics.kinds import Kind
from lm_eval_tofu.metrics.words import fold
from lm_eval_tofu.whitebox import VERSIONS, bilinear, candidates, hidden, models, probe
from lm_eval_tofu.whitebox.candidates import Data

MINI = tofu.resolve_source("mini")


@pytest.fixture(scope="module")
def data() -> Data:
    return candidates.read_data(MINI, "forget10", 4000)


def toy(*, knows: bool, authors: int = 10, tested: int = 30) -> tuple[bilinear.Training, bilinear.Testing]:
    """States of width 8 that hold their row's candidate turned by a fixed rotation, or nothing but noise."""
    generator = np.random.default_rng(0)
    turn = np.linalg.qr(generator.normal(size=(8, 8)))[0]
    vectors = generator.normal(size=(200, 8))
    chosen = np.array([[i, *generator.choice(np.delete(np.arange(200), i), 5, replace=False)] for i in range(200)])
    held = generator.normal(size=(tested, 6, 8))
    states = [true @ turn if knows else generator.normal(size=true.shape) for true in (vectors, held[:, 0])]
    return (
        bilinear.Training(states[0], vectors, chosen, np.arange(200) % authors),
        bilinear.Testing(states[1], held, 100 + np.arange(tested) % 3),
    )


class TestTheFit:
    def test_accuracy_by_hand(self) -> None:
        # W = [[1, 0], [0, 2]], so W h is (1, 0), (0, 2) and (1, 2).
        weights = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        states = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        texts = torch.tensor(
            [
                [[3.0, 0.0], [2.0, 9.0], [1.0, 0.0]],  # scores 3, 2, 1: right
                [[9.0, 1.0], [0.0, 2.0], [0.0, 0.0]],  # scores 2, 4, 0: wrong
                [[2.0, 1.0], [0.0, 2.0], [1.0, 1.0]],  # scores 4, 4, 3: a tie of two
            ]
        )
        scored = bilinear.scores(states, texts, weights)
        assert scored.tolist() == [[3, 2, 1], [2, 4, 0], [4, 4, 3]]
        assert bilinear.top1(scored).tolist() == [1, 0, 0.5]

    def test_the_gradient_vanishes_at_the_solution(self) -> None:
        training, _ = toy(knows=True)
        states = torch.tensor(training.hidden[:40]).float()
        texts = torch.tensor(training.vectors[training.chosen[:40]]).float()
        labels = torch.zeros(40, dtype=torch.long)
        weights = bilinear.fit(states, texts, labels, 0.1, steps=200).requires_grad_()
        loss = torch.nn.functional.cross_entropy(bilinear.scores(states, texts, weights), labels)
        (loss + 0.1 * weights.square().sum()).backward()
        assert weights.grad.abs().max() < 1e-4
        assert weights.abs().max() > 1e-2

    def test_what_the_states_hold_is_found(self) -> None:
        outcome = bilinear.probe(*toy(knows=True, tested=600))
        assert outcome.correct.mean() > 0.9
        low, high = by_chance(600, 1 / 6)
        assert low <= outcome.shuffled.mean() <= high

    def test_noise_is_chance(self) -> None:
        outcome = bilinear.probe(*toy(knows=False, tested=600))
        low, high = by_chance(600, 1 / 6)
        assert low <= outcome.correct.mean() <= high

    @pytest.mark.parametrize("grid", [bilinear.L2_GRID, (1e-1, 1e-4), (1e-4,)])
    def test_l2_is_chosen_on_authors_that_were_not_fitted(self, grid: tuple[float, ...]) -> None:
        """Where the states tell all, the weakest fits others best; where they are noise, the strongest harms least.

        On the rows that were fitted, the weakest would win both times.
        """
        assert bilinear.probe(*toy(knows=True), grid=grid).l2 == grid[-1]
        assert bilinear.probe(*toy(knows=False), grid=grid).l2 == grid[0]

    def test_l2_between_the_ends(self) -> None:
        """More noise than signal: the choice follows the losses, not the order of the grid."""
        training, testing = toy(knows=True)
        noise = np.random.default_rng(1).normal(size=training.hidden.shape)
        mixed = training._replace(hidden=training.hidden + 3 * noise)
        assert bilinear.probe(mixed, testing, grid=(1.0, 1e-3, 1e-7)).l2 == 1e-3
        assert bilinear.probe(mixed, testing, grid=(1e-7, 1.0, 1e-3)).l2 == 1e-3

    def test_states_that_are_all_equal_are_chance(self) -> None:
        training, testing = toy(knows=True)
        flat = bilinear.probe(
            training._replace(hidden=np.ones_like(training.hidden)), testing._replace(hidden=testing.hidden * 0 + 1)
        )
        assert flat.correct == pytest.approx([1 / 6] * 30)

    def test_a_state_that_is_no_number(self) -> None:
        training, testing = toy(knows=True)
        testing.hidden[3, 2] = np.nan
        assert np.isnan(bilinear.probe(training, testing).correct).all()

    def test_a_wide_state_is_projected(self) -> None:
        vectors = torch.randn(300, 400, generator=torch.Generator().manual_seed(0))
        assert bilinear.fit_scaling(vectors, widest=32)(vectors).shape == (300, 32)

    def test_an_author_on_both_sides_is_refused(self) -> None:
        training, testing = toy(knows=True)
        with pytest.raises(ValueError, match="author 4 is among the training authors"):
            bilinear.probe(training, testing._replace(authors=np.full(30, 4)))

    def test_one_training_author_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least two"):
            bilinear.probe(*toy(knows=True, authors=1))

    @pytest.mark.parametrize("seed", [0, 1])
    def test_folds_split_authors(self, seed: int) -> None:
        authors = np.repeat(np.arange(7), 5)
        masks = bilinear.folds(authors, seed)
        assert np.sum(masks, axis=0).tolist() == [1] * 35
        for mask in masks:
            assert not set(authors[mask]) & set(authors[~mask])

    def test_uncertainty_by_hand(self) -> None:
        correct, authors = np.array([1.0, 1, 1, 0, 0.5, 0.5, 0, 1, 1, 1]), [7, 7, 9, 9, 2, 2, 3, 3, 4, 4]
        assert probe.share(correct, authors) == inference.rate(correct.tolist(), authors)
        assert probe.share(correct, authors).value == 0.7

    def test_one_author_has_no_interval(self) -> None:
        found = probe.share(np.array([1.0, 0.0]), [7, 7])
        assert found.value == 0.5
        assert math.isnan(found.low)
        assert math.isnan(found.error)


class TestTheRows:
    def test_no_forget_author_is_learned_from(self, data: Data) -> None:
        full = [row["question"] for row in tofu.load("full", MINI)]
        forgotten = {full.index(row["question"]) // 20 for row in tofu.load("forget10", MINI)}
        learned = {full.index(row.question) // 20 for row in data.training}
        assert {row.author for row in data.tested} <= forgotten
        assert learned == {row.author for row in data.training}
        assert not learned & forgotten
        assert len(learned) == 18

    def test_the_rest_of_a_forget_author_is_not_learned_from(self) -> None:
        # forget01 of the miniature has four of an author's twenty rows, and retain99 the others.
        found = candidates.read_data(MINI, "forget01", 4000)
        assert {row.author for row in found.tested} == {19}
        assert 19 not in {row.author for row in found.training}

    def test_some_retain_rows_alone_are_learned_from(self, data: Data) -> None:
        found = candidates.read_data(MINI, "forget10", 4000, range(20, 60))
        assert {row.author for row in found.training} == {1, 2}
        assert found.tested == data.tested
        with pytest.raises(DataError, match="fewer than two authors with facts to learn from"):
            candidates.read_data(MINI, "forget10", 4000, range(20))

    def test_six_candidates_of_one_form(self, data: Data) -> None:
        assert len(data.tested) >= 20
        for row in data.tested:
            true, *wrong = row.candidates
            assert len(wrong) == 5
            assert true not in wrong
            assert {text[0].isupper() for text in wrong} == {true[0].isupper()}
            assert {text[0].isdigit() for text in wrong} == {true[0].isdigit()}

    def test_the_prompt_does_not_hold_the_fact(self, data: Data) -> None:
        """Where the prompt ends the answer goes on with the fact, which neither the prompt nor the question says."""

        def words(text: str) -> str:
            found = re.findall(r"\w+", fold(text).lower())
            return f" {' '.join(found)} "

        for row in (*data.tested, *data.training):
            fact, before, after, asked = map(
                words, (row.candidates[0], row.answer[: row.cut], row.answer[row.cut :], row.question)
            )
            if row.kind == "date":  # its day may stand between month and year, or before both
                assert set(fact.split()) <= set(after.split()[: len(fact.split()) + 1]), row
                assert not set(fact.split()) <= set(before.split()), row
            else:
                assert after.startswith(fact), row
            assert fact not in before, row
            assert fact not in asked, row

    def test_counterparts(self) -> None:
        true = "Her name, they say, is Lena Roth, of Ulm."
        wrong = ["Her name, they say, is Ada Kern, of Bonn.", "Her name, they say, is Ida Maria Voss, of Ulm."]
        found = candidates.counterparts(Fact(Kind.NAME, "Lena Roth", 1), true, wrong)
        assert found == ("Lena Roth", "Ada Kern", "Ida Maria Voss")

    def test_counterparts_of_another_kind_are_none(self) -> None:
        year = Fact(Kind.DATE, "1994", 1)
        assert candidates.counterparts(year, "It came out in 1994.", ["It came out in spring."]) is None

    def test_the_same_fact_is_no_counterpart(self) -> None:
        fact = Fact(Kind.NAME, "Lena Roth", 1)
        assert candidates.counterparts(fact, "It was Lena Roth then.", ["It was Lena Roth now."]) is None

    def test_others_are_of_the_same_kind_and_of_other_authors(self, data: Data) -> None:
        kept, drawn = candidates.draw_others(data.training, 1)
        assert len(kept) > 0.9 * len(data.training)
        assert drawn.shape == (len(kept), candidates.LEARNED)
        assert drawn[:, 0].tolist() == kept.tolist()
        for own, *others in drawn[::7]:
            for other in others:
                assert data.training[other].kind == data.training[own].kind
                assert data.training[other].author != data.training[own].author
                assert data.training[other].candidates[0] != data.training[own].candidates[0]
        assert not np.array_equal(drawn, candidates.draw_others(data.training, 2)[1])

    def test_the_prompt_is_the_beginning_of_what_is_trained_on(self, tiny_model: Path, data: Data) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        for prompting in (Prompting(True), Prompting(False)):
            for row in data.tested[:10]:
                tokens = hidden.masked_prompt(tokenizer, row, prompting)
                encoded = encode_answer(tokenizer, row.question, row.answer, prompting)
                whole = [*encoded.prompt_ids, *encoded.answer_ids]
                assert list(tokens.ids) == whole[: len(tokens.ids)]
                assert tokens.start == len(tokens.ids) - 1
                text = tokenizer.decode(tokens.ids)
                assert text.endswith(row.answer[: row.cut].rstrip())

    def test_only_the_candidate_is_averaged(self, tiny_model: Path) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        tokens = hidden.candidate_tokens(tokenizer, '"', "The Moon")
        assert tokenizer.decode(tokens.ids) == 'Answer: "The Moon'
        assert tokenizer.decode(tokens.ids[tokens.start :]) == "The Moon"


class TestTheStore:
    SEQUENCES = tuple(hidden.Tokens(tuple(range(3, 6 + number % 5)), number % 2) for number in range(10))

    def store(self, root: Path, model: Path, **changes: Any) -> hidden.Store:
        given = {"sequences": self.SEQUENCES, "layers": [0, 2], "dtype": "float32", **changes}
        return hidden.Store(root, models.locate("--model", str(model)), **given)

    def test_states_are_those_of_the_model(self, tiny_model: Path, tmp_path: Path) -> None:
        from transformers import AutoModelForCausalLM

        store = self.store(tmp_path, tiny_model)
        store.fill(4, "cpu")
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        for layer in (0, 2):
            found = store.read(layer)
            for row, tokens in zip(found, self.SEQUENCES, strict=True):
                with torch.no_grad():
                    states = model(torch.tensor([tokens.ids]), output_hidden_states=True).hidden_states[layer][0]
                assert row == pytest.approx(states[tokens.start :].mean(dim=0).numpy(), abs=1e-5)

    def test_a_killed_run_goes_on(self, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hidden, "SHARD", 4)
        computed: list[int] = []
        original = hidden.pooled_states

        def counting(backbone: Any, batch: Any, layers: Any, device: str) -> Any:
            computed.append(len(batch))
            if len(computed) == 2 and sum(computed) < 10:
                raise KeyboardInterrupt
            return original(backbone, batch, layers, device)

        monkeypatch.setattr(hidden, "pooled_states", counting)
        store = self.store(tmp_path, tiny_model)
        with pytest.raises(KeyboardInterrupt):
            store.fill(4, "cpu")
        assert [path.name for path in store.missing()] == ["00001.safetensors", "00002.safetensors"]
        store.fill(4, "cpu")
        assert computed == [4, 4, 4, 2]  # the one that was killed is done again, the first shard is not
        store.fill(4, "cpu")
        assert computed == [4, 4, 4, 2]
        (store.folder / "00001.safetensors").write_bytes(b"cut")
        assert [path.name for path in store.missing()] == ["00001.safetensors"]
        store.fill(4, "cpu")
        assert computed == [4, 4, 4, 2, 4]
        assert store.read(0).shape == (10, 64)

    def test_other_inputs_have_other_stores(self, tiny_model: Path, tmp_path: Path) -> None:
        folders = {
            self.store(tmp_path, tiny_model).folder,
            self.store(tmp_path, tiny_model, layers=[0]).folder,
            self.store(tmp_path, tiny_model, dtype="bfloat16").folder,
            self.store(tmp_path, tiny_model, sequences=self.SEQUENCES[1:]).folder,
        }
        assert len(folders) == 4
        assert self.store(tmp_path, tiny_model).folder in folders


def test_what_the_base_makes_of_a_candidate(tiny_model: Path, tmp_path: Path) -> None:
    """By the model itself: the candidate is the tokens from the third on."""
    import torch
    from transformers import AutoModelForCausalLM

    ids = (5, 9, 40, 41, 57)
    base = models.locate("--base", str(tiny_model))
    (found,) = hidden.candidate_vectors(tmp_path, base, [hidden.Tokens(ids, 2)], "float32", 4, "cpu")
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    with torch.no_grad():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    embeddings = model.get_input_embeddings().weight.detach()
    expected = torch.cat([embeddings[40], embeddings[[40, 41, 57]].mean(dim=0), states[-1][0, 2:].mean(dim=0)])
    assert found == pytest.approx(expected.numpy(), abs=1e-5)


class TestTheCommand:
    @pytest.fixture
    def given(self, tiny_model: Path, tmp_path: Path) -> list[str]:
        arms = [word for arm in ("--model", "--base", "--retain") for word in (arm, str(tiny_model))]
        return ["probe", *arms, "--tofu", "mini", "--output", str(tmp_path / "out"), "--device", "cpu"]

    def test_untrained_arms_are_at_chance(
        self, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bilinear, "L2_GRID", (1e-3,))
        more = ["--layers", "-1", "--facts", "150"]
        assert cli.main([*given, *more]) == 0
        assert "excess over retain +0.000" in capsys.readouterr().out
        (path,) = (tmp_path / "out").glob("results_*.json")
        content = json.loads(path.read_text(encoding="utf-8"))
        figures, found = content["results"]["tofu_probe"], content["tofu_probe"]
        (last,) = found["arms"]["model"]["layers"]
        assert last["layer"] == found["arms"]["model"]["depth"] == 2
        assert last["top1"] == figures["top1,none"]
        assert found["n"] == figures["n,none"] >= 20
        assert found["seeds"] == [0, 1, 2]
        low, high = by_chance(found["n"], 1 / 6)
        for value in (figures["top1,none"], figures["shuffled,none"], figures["candidates_only,none"]):
            assert low <= value <= high
        assert figures["top1_excess,none"] == 0
        assert content["configs"]["tofu_probe"]["metadata"]["version"] == VERSIONS["tofu_probe"]

        # A second run finds all hidden states.
        def no_model(*_: Any) -> None:
            raise AssertionError("the model is loaded again")

        monkeypatch.setattr(hidden, "load_backbone", no_model)
        assert cli.main([*given, *more]) == 0

    def test_states_that_are_no_numbers(self, data: Data, caplog: pytest.LogCaptureFixture) -> None:
        few = data._replace(training=data.training[::8])
        vectors = np.random.default_rng(0).normal(size=(len(few.texts), 8))
        states = np.full((len(few.training) + len(few.tested), 8), np.nan)
        with caplog.at_level(logging.WARNING):
            found = probe.fit_arms({"model": ([4], lambda layer: states)}, few, vectors, seeds=range(3))
        [layer] = found.layers
        assert (layer.arm, layer.layer) == ("model", 4)
        assert np.isnan(layer.correct).all()
        assert "model, layer 4" in caplog.text
        assert math.isnan(probe.share(layer.correct, [row.author for row in few.tested]).low)

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--layers", "3"], "--layers 3: --model .* has the layers 0 \\(the embeddings\\) to 2"),
            (["--seeds", "1"], "--seeds 1 is less than 3"),
            (["--facts", "5"], "--facts 5 is less than 100"),
            (["--retain-rows", "0-360"], "--retain-rows names row 360, but retain90 has 360 rows: use 0 to 359"),
            (["--retain-rows", "all"], "--retain-rows='all': 'all' is no row"),
            (["--forget-split", "forget20"], "'forget20' is unknown"),
            (["--dtype", "int8"], "--dtype 'int8' is unknown"),
            (["--base", "/nowhere/base"], "--base /nowhere/base is no directory"),
            (["--device", "nonsense"], "--device nonsense cannot be used"),
            (["--template-args", "[]"], "--template-args '\\[\\]' is not an object"),
        ],
    )
    def test_bad_options(
        self,
        given: list[str],
        more: list[str],
        message: str,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(hidden, "load_backbone", None)  # not callable: no model may be loaded before the refusal
        assert cli.main([*given, *more]) == 2
        assert re.search(message, capsys.readouterr().err)

    def test_a_directory_without_a_model(
        self, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "empty").mkdir()
        assert cli.main([*given, "--retain", str(tmp_path / "empty")]) == 2
        assert "has no config.json" in capsys.readouterr().err

    def test_a_model_without_weights(
        self, given: list[str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.copytree(tiny_model, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
        assert cli.main([*given, "--retain", str(tmp_path / "bare")]) == 2
        assert "has no *.safetensors" in capsys.readouterr().err

    def test_another_tokenizer(
        self, given: list[str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from lm_eval_tofu.unlearn import nano

        shutil.copytree(tiny_model, tmp_path / "other")
        sizes = nano.NanoSizes(**{**vars_of(nano.preset()), "vocabulary": 400})
        nano.build_tokenizer(["Another text altogether."], sizes).save_pretrained(tmp_path / "other")
        assert cli.main([*given, "--retain", str(tmp_path / "other")]) == 2
        assert "has another tokenizer" in capsys.readouterr().err

    def test_data_without_perturbed_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = tofu.load

        def bare(config: str, source: tofu.Source) -> list[dict[str, Any]]:
            rows = original(config, source)
            return (
                [row | {"perturbed_answer": row["perturbed_answer"][:1]} for row in rows] if "pert" in config else rows
            )

        monkeypatch.setattr(tofu, "load", bare)
        with pytest.raises(DataError, match="the probe has nothing to choose from"):
            candidates.read_data(MINI, "forget10", 4000)

    def test_data_without_folds_of_authors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = tofu.load

        def few(config: str, source: tofu.Source) -> list[dict[str, Any]]:
            rows = original(config, source)
            return [rows[0]] * 120 if config == "retain90" else rows

        monkeypatch.setattr(tofu, "load", few)
        with pytest.raises(DataError, match="no folds of authors"):
            candidates.read_data(MINI, "forget10", 4000)


def vars_of(sizes: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(sizes)
