"""Relearning: folds, arithmetic, resuming, refusals, and once for real on the miniature."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from lm_eval_tofu import cli, evaluation, tofu
from lm_eval_tofu.arm import ArmSettings
from lm_eval_tofu.errors import OptionError, PromptError, TofuError
from lm_eval_tofu.files import read_json
from lm_eval_tofu.metrics import inference, recovery
from lm_eval_tofu.metrics.recovery import Change, Score
from lm_eval_tofu.tasks import rows as task_rows
from lm_eval_tofu.tasks.options import Options
from lm_eval_tofu.whitebox import VERSIONS, relearn, relearn_step
from lm_eval_tofu.whitebox.relearn import Fold, Trial, author_folds, inner_split
from lm_eval_tofu.whitebox.relearn_step import Job, RelearnConfig, Setting

# Folds


@pytest.mark.parametrize(("authors", "folds"), [(20, 5), (10, 5), (2, 2), (7, 3), (5, 5)])
def test_every_author_is_held_out_once_and_never_taught_in_that_fold(authors: int, folds: int) -> None:
    made = author_folds(authors, folds, seed=3)
    assert len(made) == folds
    assert sorted(author for fold in made for author in fold.held_out) == list(range(authors))
    for fold in made:
        assert sorted(fold.train + fold.held_out) == list(range(authors))
        assert len(fold.held_out) in (authors // folds, -(-authors // folds))


def test_folds_depend_on_the_seed_alone() -> None:
    assert author_folds(20, 5, seed=1) == author_folds(20, 5, seed=1) != author_folds(20, 5, seed=2)


@pytest.mark.parametrize("number", range(5))
def test_the_inner_split_stays_within_the_training_authors_and_divides_no_author(number: int) -> None:
    fold = author_folds(20, 5)[number]
    taught, asked = inner_split(fold, 400, 5)
    assert sorted(taught + asked) == relearn.rows_of(fold.train, 400)
    assert not {row // 20 for row in taught} & {row // 20 for row in asked}
    # A fifth of 16 authors, rounded.
    assert len(asked) == 3 * 20


def test_one_training_author_is_divided_by_rows() -> None:
    taught, asked = inner_split(Fold((1,), (0,)), 40, 2)
    assert sorted(taught + asked) == list(range(20, 40))
    assert len(asked) == 10


@pytest.mark.parametrize(
    ("authors", "folds", "message"),
    [
        (1, 2, "no author folds are possible: the forget split has one author"),
        (20, 1, "--folds 1 does not fit 20 authors: give 2 to 20"),
        (2, 5, "--folds 5 does not fit 2 authors: give 2 to 2"),
    ],
)
def test_impossible_folds(authors: int, folds: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        author_folds(authors, folds)


# Arithmetic


def change(row: int, leaked: tuple[bool, bool], specific: bool = True, rouge: tuple[float, float] = (0, 0)) -> Change:
    return Change(row, "direct", row // 20, specific, leaked, rouge)


def test_delta_and_excess_by_hand() -> None:
    """Five authors, two specific rows each; the eleventh row is not specific and counts for ROUGE-L only.

    Model: the authors gain 2, 1, -1, 0 and 0 of 2: 2 / 10 = 20 points. Retain: author 0 gains 1: 10 points.
    Excess by author: 1, 1, -1, 0, 0: 10 points.
    """
    no, up, down = (False, False), (False, True), (True, False)
    rows = [20 * author + row for author in range(5) for row in (0, 1)]
    model = [change(*pair) for pair in zip(rows, (up, up, up, no, down, *[no] * 5), strict=True)]
    model.append(change(42, up, specific=False, rouge=(0.1, 0.8)))
    retain = [change(row, up if row == 1 else no) for row in reversed(rows)]
    delta, theirs = recovery.recovery_delta(model), recovery.recovery_delta(retain)
    excess = recovery.excess(model, retain)
    assert delta.value == pytest.approx(20)
    assert theirs.value == pytest.approx(10)
    assert excess.value == pytest.approx(10)
    assert (excess.clusters, excess.n) == (5, 10)
    # Half of 1, 1, -1, 0, 0 has the variance 0.175 between the authors: an error of sqrt(0.175 / 5). Between rows, with
    # the differences 1, 0, 1, 0, -1 and five times 0, it is 0.29 / 9, which is less.
    assert excess.error == pytest.approx(100 * math.sqrt(0.175 / 5))
    assert excess.p_value == pytest.approx(stats.t.sf(0.1 / math.sqrt(0.175 / 5), 4))
    assert excess.low == pytest.approx(10 - stats.t.ppf(0.975, 4) * excess.error)
    assert excess.high >= 10 + stats.t.ppf(0.975, 4) * excess.error
    authors = [row // 20 for row in rows]
    before, after = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    expected = inference.excess(after, before, authors)
    assert (delta.low, delta.high) == pytest.approx((100 * expected.low, 100 * expected.high))
    own, other = delta.high - delta.value, theirs.value - theirs.low
    assert excess.high == pytest.approx(max(10 + math.hypot(own, other), 20 - excess.low))
    assert recovery.rouge_delta(model) == pytest.approx(0.7 / 11)
    assert recovery.score(model, 0) == Score(pytest.approx(1 / 10), pytest.approx(0.1 / 11), 10)
    assert recovery.score(model, 1) == Score(pytest.approx(3 / 10), pytest.approx(0.8 / 11), 10)


def test_without_a_specific_row_there_is_no_figure() -> None:
    rows = [change(row, (False, True), specific=False) for row in (0, 20)]
    delta = recovery.recovery_delta(rows)
    assert all(map(math.isnan, (delta.value, delta.low, delta.high, delta.p_value)))
    assert math.isnan(recovery.score(rows, 0).leak_rate)


def test_arms_with_other_rows_have_no_excess() -> None:
    with pytest.raises(ValueError, match="2 specific prompts"):
        recovery.excess([change(0, (False, True))], [change(1, (False, True))])


def trial(lr: float, leaks: tuple[float, float], rouge: tuple[float, float]) -> Trial:
    return Trial(Setting(lr, 1), Score(leaks[0], rouge[0], 5), Score(leaks[1], rouge[1], 5))


def test_the_setting_that_recovers_most_inside_is_chosen() -> None:
    some, more = trial(1, (0.2, 0.3), (0, 0.9)), trial(2, (0.2, 0.5), (0, 0.1))
    also = trial(3, (0.2, 0.5), (0, 0.2))
    again = trial(4, (0.2, 0.5), (0, 0.2))
    assert relearn.best([some, more]).lr == 2
    assert relearn.best([some, more, also, again]).lr == 3
    nothing = trial(5, (math.nan, math.nan), (0.5, 0.6))
    assert relearn.best([nothing, trial(6, (math.nan, math.nan), (0.5, 0.7))]).lr == 6


# Rows of a split


@pytest.mark.parametrize(
    ("value", "rows"), [("0-2,5", (0, 1, 2, 5)), (7, (7,)), ([3, 1], (1, 3)), ("4", (4,)), ((2,), (2,))]
)
def test_row_numbers(value: Any, rows: tuple[int, ...]) -> None:
    assert tofu.row_numbers("forget_rows", value) == rows
    assert Options.from_metadata({"forget_rows": value}).forget_rows == rows


@pytest.mark.parametrize("value", ["", "a", "3-1", "1-", "-1", "1,1", "0-2,1", [], [True], [1.5], True, 1.5, [-1], {}])
def test_bad_row_numbers(value: Any) -> None:
    with pytest.raises(OptionError, match=r"forget_rows=.*names|forget_rows=.*is no row"):
        Options.from_metadata({"forget_rows": value})


def test_leak_audits_ask_for_the_rows_that_are_named() -> None:
    whole = Options(tofu="mini")
    some = replace(whole, forget_rows=(3, 25))
    for rows in (task_rows.novel_recall, task_rows.chain_of_clues, task_rows.recognition_options):
        named = [row for row in rows(whole) if row["index"] in (3, 25)]
        # What was left out is counted over the rows that are asked for.
        without = [{key: row[key] for key in row if key != "left_out"} for row in named]
        assert [{key: row[key] for key in row if key != "left_out"} for row in rows(some)] == without
        assert without
    with pytest.raises(OptionError, match="forget_rows names row 40, but forget10 has 40 rows: use 0 to 39"):
        task_rows.novel_recall(replace(whole, forget_rows=(0, 40)))


def test_comparisons_with_a_reference_take_no_part_of_a_split() -> None:
    with pytest.raises(OptionError, match="forget_rows fits the leak audits only"):
        task_rows.forget_split(Options(tofu="mini", forget_rows=(0,)))


@pytest.mark.parametrize(
    ("warmup", "epochs", "expected"),
    [(1.0, 1, 0.5), (1.0, 2, 1.0), (1.0, 5, 1.0), (4.0, 5, 2.5), (0.25, 1, 0.25), (0, 3, 0)],
)
def test_the_warm_up_is_at_most_half_of_a_run(warmup: float, epochs: int, expected: float) -> None:
    config = RelearnConfig(model="m", retain="r", output=Path("out"), warmup=warmup)
    job = Job(model="m", folder=Path("step"), scored=[0], train=[1, 2], setting=Setting(3e-5, epochs))
    finetuning = config.finetuning(job)
    assert finetuning.warmup == expected
    assert (finetuning.epochs, finetuning.learning_rate, finetuning.rows) == (epochs, 3e-5, (1, 2))


# The run, with a model and a training of paper


class Paper:
    """Stands in for training and scoring: tells what was asked for, and can be killed.

    A model leaks nothing. Taught, the audited one gives even rows away (specific ones: all but multiples of 5), the
    retain arm row 2 alone; the larger learning rate gives the better ROUGE-L recall.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.jobs: list[Job] = []
        self.killed_at = -1

    def _tell(self, half: str, job: Job) -> None:
        if len(self.calls) == self.killed_at:
            raise KeyboardInterrupt
        self.calls.append((half, "/".join(job.folder.parts[-3:])))

    def train(self, config: RelearnConfig, job: Job) -> None:
        self._tell("train", job)
        self.jobs.append(job)
        job.checkpoint.mkdir()

    def score(self, config: RelearnConfig, job: Job) -> None:
        self._tell("score", job)
        assert job.checkpoint.is_dir() == bool(job.train)
        lines = []
        for row in job.scored:
            leaked = bool(job.train) and (row % 2 == 0 if "retain" not in job.model else row == 2)
            tier = "specific" if row % 5 else "gist"
            record = {"index": row, "family": "direct", "tier": tier, "leaked": leaked, "generation": "a b"}
            gold = "a b c d" if job.train and job.setting.lr > 1e-3 else "a b c d e f g h"
            lines.append(json.dumps({"leak_rate": record, "prompt_hash": f"h{row}", "doc": {"answer": gold}}))
        folder = job.folder / "results" / "model"
        folder.mkdir(parents=True)
        (folder / "samples_tofu_novel_recall_x.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> Paper:
    stand_in = Paper()
    monkeypatch.setattr(relearn_step, "train", stand_in.train)
    monkeypatch.setattr(relearn_step, "score", stand_in.score)
    return stand_in


@pytest.fixture
def config(tiny_model: Path, tmp_path: Path) -> RelearnConfig:
    shutil.copytree(tiny_model, tmp_path / "retain")
    return RelearnConfig(
        model=str(tiny_model),
        retain=str(tmp_path / "retain"),
        output=tmp_path / "out",
        tofu="mini",
        folds=2,
        lrs=(2e-3, 1e-3),
        epochs=(3,),
    )


def test_both_arms_in_every_fold(config: RelearnConfig, paper: Paper) -> None:
    file = relearn.relearn(config)
    content = json.loads(file.read_text())
    figures = content["results"]["tofu_relearn"]
    # 32 of 40 rows are specific; 16 of them are even.
    assert figures["n,none"] == 32
    assert figures["recovery_delta,none"] == pytest.approx(50)
    assert figures["recovery_delta_low,none"] is None  # two authors
    assert figures["retain_recovery_delta,none"] == pytest.approx(100 / 32)
    assert figures["excess,none"] == pytest.approx(50 - 100 / 32)
    assert figures["excess_p_value,none"] is figures["excess_error,none"] is None
    assert figures["authors,none"] == 2
    assert figures["rougeL_delta,none"] == figures["retain_rougeL_delta,none"] == pytest.approx(0.5 - 0.25)
    assert (
        content["configs"]["tofu_relearn"]["metadata"]["version"]
        == content["versions"]["tofu_relearn"]
        == VERSIONS["tofu_relearn"]
    )

    folds = content["tofu_relearn"]["folds"]
    assert [(fold["arm"], fold["fold"]) for fold in folds] == [
        (arm, number) for number in (0, 1) for arm in ("model", "retain")
    ]
    for arm in ("model", "retain"):
        assert sorted(author for fold in folds if fold["arm"] == arm for author in fold["authors"]) == [0, 1]
    # The ROUGE-L recall inside T decides here; the leaks are the same.
    assert all((fold["lr"], fold["epochs"]) == (2e-3, 3) for fold in folds)
    assert all([inner["lr"] for inner in fold["inner"]] == [1e-3, 2e-3] for fold in folds)
    assert all(not set(job.train) & set(job.scored) for job in paper.jobs)

    # Neither checkpoints nor lm-eval's results of single steps are left for others to find.
    assert list(config.output.rglob("checkpoint")) == []
    assert list(config.output.rglob("results_*.json")) == [file]
    lines = "\n".join(relearn.table(read_json(file)))
    assert "recovery delta      +50.00 pp   no interval: fewer than 5 authors" in lines


@pytest.mark.parametrize("killed_at", [0, 1, 2, 3, 4, 9, 21])
def test_a_killed_run_does_only_what_is_missing(config: RelearnConfig, paper: Paper, killed_at: int) -> None:
    paper.killed_at = killed_at
    with pytest.raises(KeyboardInterrupt):
        relearn.relearn(config)
    assert list(config.output.glob("results_*.json")) == []
    paper.killed_at = -1
    relearn.relearn(config)
    # Two arms: asked once as they are; in each of 2 folds two trials and the held-out authors, each taught and asked.
    assert len(paper.calls) == len(set(paper.calls)) == 2 * (1 + 2 * 3 * 2)
    calls = len(paper.calls)
    relearn.relearn(config)
    assert len(paper.calls) == calls
    assert len(list(config.output.glob("results_*.json"))) == 1


def test_a_single_setting_needs_no_trial(config: RelearnConfig, paper: Paper) -> None:
    file = relearn.relearn(replace(config, lrs=(1e-3,), keep_checkpoints=True))
    assert len(paper.calls) == 2 * (1 + 2 * 2)
    assert all(fold["inner"] == [] for fold in json.loads(file.read_text())["tofu_relearn"]["folds"])
    assert len(list(config.output.rglob("checkpoint"))) == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "--seed is 1, but was 0 in"),
        ({"families": ("direct", "cloze")}, r"--families is \['direct', 'cloze'\], but was \['direct'\] in"),
    ],
)
def test_a_run_goes_on_with_the_same_options_only(
    config: RelearnConfig, paper: Paper, changed: dict[str, Any], message: str
) -> None:
    relearn.relearn(config)
    with pytest.raises(OptionError, match=message):
        relearn.relearn(replace(config, **changed))
    relearn.relearn(replace(config, batch_size=3))


def test_other_weights_under_the_same_name_are_noticed(config: RelearnConfig, paper: Paper) -> None:
    from safetensors.torch import load_file, save_file

    relearn.relearn(config)
    weights = Path(config.retain) / "model.safetensors"
    tensors = load_file(weights)
    tensors[next(iter(tensors))] += 1
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(OptionError, match="was begun with other weights or data"):
        relearn.relearn(config)


def test_a_directory_of_something_else_is_left_alone(config: RelearnConfig, paper: Paper) -> None:
    config.output.mkdir()
    (config.output / "thesis.txt").touch()
    with pytest.raises(OptionError, match="holds something else"):
        relearn.relearn(config)


def test_a_damaged_step_is_named(config: RelearnConfig, paper: Paper) -> None:
    relearn.relearn(config)
    (config.output / "retain" / "before" / "answers.json").write_text('{"answers": [')
    with pytest.raises(OptionError, match=r"before/answers.json: not JSON .* delete it, and this step is done again"):
        relearn.relearn(config)


def _without(path: Path, name: str) -> str:
    for file in path.glob(name):
        file.unlink()
    return str(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "/nowhere"}, "--model /nowhere is no directory"),
        ({"retain": "/nowhere"}, "--retain /nowhere is no directory"),
        ({"forget_split": "forget05"}, "no author folds are possible: the forget split has one author"),
        ({"forget_split": "forget20"}, "forget_split='forget20' is unknown"),
        ({"folds": 1}, "--folds 1 holds no author out: give 2 or more"),
        ({"folds": 3}, "--folds 3 does not fit 2 authors: give 2 to 2"),
        ({"families": ("telepathy",)}, "--families=.*'telepathy' is unknown: use direct"),
        ({"lrs": (1e-3, 0.0)}, "--lrs 0.001,0.0: 0.0 is not above 0"),
        ({"lrs": (math.nan,)}, "--lrs nan: nan is not above 0"),
        ({"lrs": (1e-3, 1e-3)}, "--lrs 0.001,0.001 names a value twice"),
        ({"epochs": (0,)}, "--epochs 0: 0 is less than 1"),
        ({"epochs": ()}, "--epochs  names nothing"),
        ({"train_batch_size": 0}, "--train-batch-size 0 is less than 1"),
        ({"warmup": -1.0}, "--warmup -1.0 is below 0"),
        ({"backend": "abacus"}, "--backend 'abacus' is unknown: use hf or vllm"),
        ({"model_args": {"pretrained": "x"}}, "--model_args pretrained=x has no use here"),
        ({"dtype": "int3"}, "--dtype 'int3' is unknown"),
        ({"training": {"learning_rate": 1}}, "training: learning_rate is not passed on"),
        ({"output": Path("x" * 150, "y" * 60)}, r"--output: the model .*checkpoint makes a name of 2\d\d bytes"),
        ({"batch_size": 0}, "--batch_size 0 is no batch size: give a number from 1 up, or auto"),
        ({"batch_size": "many"}, "--batch_size many is no batch size"),
        ({"device": "gpu"}, r"--device gpu cannot be used \(.*\): use cpu, or leave it out"),
        (
            {"model_args": {"dtyp": "float32"}},
            "--model_args dtyp=float32: dtyp is no argument of hf: did you mean",
        ),
        ({"model_args": {"dtype": "float33"}}, "--model_args dtype=float33 is no type: use float32"),
        (
            {"training": {"adam_beta_2": 0.9}},
            "--adam_beta_2 0.9: the trainer refuses",
        ),
        ({"training": {"optim": "adamw_torhc"}}, "--optim adamw_torhc: the trainer refuses"),
    ],
)
def test_bad_options(config: RelearnConfig, paper: Paper, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        relearn.relearn(replace(config, **changed))
    assert "\n" not in str(caught.value)
    assert paper.calls == []
    assert not config.output.exists()


def test_a_model_that_cannot_be_loaded_is_named_with_its_arguments(tiny_model: Path, tmp_path: Path) -> None:
    """Which arguments transformers takes shows only when it gets them."""
    with pytest.raises(
        OptionError, match=r"--backend hf cannot load .*--model_args pretrained=.*,no_such=1,token=\*\*\* \("
    ):
        evaluation.evaluate(
            tiny_model,
            tmp_path / "results",
            tasks=["tofu_answer_logprob"],
            model_args={"no_such": 1, "token": "hf_secret"},
            metadata={"tofu": "mini", "forget_split": "forget01"},
            device="cpu",
        )
    assert not (tmp_path / "results").exists()


def test_the_same_model_twice(config: RelearnConfig) -> None:
    with pytest.raises(OptionError, match="is --model too"):
        relearn.relearn(replace(config, retain=config.model))


@pytest.mark.parametrize(
    ("missing", "error", "message"),
    [
        ("config.json", OptionError, "--retain .* has no config.json"),
        ("*token*", OptionError, "--retain .* cannot be read"),
        ("chat_template.jinja", PromptError, "--retain .*: its tokenizer has no chat template"),
    ],
)
def test_an_incomplete_model(
    config: RelearnConfig, paper: Paper, missing: str, error: type[TofuError], message: str
) -> None:
    _without(Path(config.retain), missing)
    with pytest.raises(error, match=message):
        relearn.relearn(config)
    assert paper.calls == []


def test_arms_that_are_asked_differently(config: RelearnConfig, paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    def score(config: RelearnConfig, job: Job) -> None:
        paper.score(config, job)
        if "retain" in job.model:
            [file] = (job.folder / "results").rglob("samples_*")
            file.write_text(file.read_text().replace('"h7"', '"other"'))

    monkeypatch.setattr(relearn_step, "score", score)
    with pytest.raises(OptionError, match=r"is asked row 7 \(direct\) with another prompt than --model"):
        relearn.relearn(config)


def test_models_that_are_asked_in_another_dtype_are_named(
    config: RelearnConfig, paper: Paper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A retain arm in bfloat16 on the disk beside a model in float32: each is asked in its own type."""

    def score(config: RelearnConfig, job: Job) -> None:
        paper.score(config, job)
        dtype = "bfloat16" if "retain" in job.model else "float32"
        known = {"backend": "hf", "task": relearn_step.TASK, "options": {"forget_rows": list(job.scored)}}
        record = ArmSettings(model=job.model, weights_dtype=dtype, **known).to_record()
        content = {"configs": {relearn_step.TASK: {"arm": record}}}
        (job.folder / "results" / "results_2026-01-01T00-00-00.json").write_text(json.dumps(content))

    monkeypatch.setattr(relearn_step, "score", score)
    file = relearn.relearn(config)
    [difference] = read_json(file)["tofu_relearn"]["differences"]
    assert difference.startswith("dtype differs (float32 in model/before; bfloat16 in retain/before, ")
    warned = "the arms were evaluated with different settings: dtype differs (float32 in model/before; bfloat16 in "
    assert f"{warned}retain/before;" in caplog.text
    assert f"evaluated with different settings: {difference}" in list(relearn.table(read_json(file)))


def test_with_vllm_a_step_is_a_process_of_its_own(config: RelearnConfig) -> None:
    """The child gets the options and the job, finds that it cannot do it, and its reason comes back."""
    on_vllm = replace(config, backend="vllm", training={"optim": "adamw_torch"})
    job = Job("/nowhere", config.output / "model" / "fold0", range(2), range(2, 5), Setting(1e-3, 2))
    with pytest.raises(OptionError, match=r"fold0: ERROR .*--model /nowhere is no directory.*the whole log: .*log.txt"):
        relearn_step.answers(on_vllm, job)


def _made(config: RelearnConfig) -> RelearnConfig:
    config.output.mkdir()
    return config


def test_the_command_line(
    config: RelearnConfig, paper: Paper, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["relearn", "--model", config.model, "--retain", config.retain, "--output", str(config.output)]
    arguments += ["--tofu", "mini", "--lrs", "1e-3", "--epochs", "2"]
    assert cli.main(arguments) == 2
    assert "--folds 5 does not fit 2 authors: give 2 to 2" in capsys.readouterr().err
    assert cli.main([*arguments, "--folds", "2", "--batch-size", "auto", "--model_args", "dtype=float32,x=1"]) == 0
    out = capsys.readouterr().out
    assert "recovery delta" in out
    assert f"written: {config.output}" in out
    for training, message in (
        ('{"adam_beta_2": 0.9}', "--training: adam_beta_2 is no option: did you mean adam_beta2?"),
        ('{"max_steps": "many"}', "--training: argument --max_steps/--max-steps: invalid int value: 'many'"),
        ('{"learning_rate": 1}', "training: learning_rate is not passed on: give learning_rate instead"),
    ):
        assert cli.main([*arguments, "--folds", "2", "--training", training]) == 2
        assert message in capsys.readouterr().err
    assert cli.main([*arguments, "--lrs", "fast"]) == 2
    assert "--lrs 'fast' is no list of numbers" in capsys.readouterr().err


# For real


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A small model that knows the forget authors, one unlearned from it by NPO, a retain arm, and an untrained one."""
    from lm_eval_tofu.unlearn import nano
    from lm_eval_tofu.unlearn.finetune import FinetuneConfig, finetune
    from lm_eval_tofu.unlearn.unlearning import UnlearnConfig, unlearn

    sizes = replace(
        nano.preset(), vocabulary=1024, context=512, hidden=64, feed_forward=176, heads=2, key_value_heads=2
    )
    folder = tmp_path_factory.mktemp("arms")
    shared: dict[str, Any] = {
        "tofu": "mini",
        "batch_size": 8,
        "gradient_accumulation": 1,
        "training": {"save_strategy": "no"},
    }

    def learn(name: str, rows: Sequence[int], epochs: int) -> str:
        settings: dict[str, Any] = {"split": "full", "rows": tuple(rows), "epochs": epochs, "learning_rate": 5e-3}
        return str(finetune(FinetuneConfig(from_scratch="nano", output=folder / name, **settings, **shared)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nano, "preset", lambda name="nano": sizes)
        full, retain = learn("full", range(360, 400), 40), learn("retain", range(20), 15)
    npo: dict[str, Any] = {"forget_split": "forget10", "alpha": 0, "epochs": 4, "learning_rate": 1e-3, "warmup": 0}
    unlearned = str(unlearn(UnlearnConfig(model=full, output=folder / "npo", **npo, **shared)))
    tokenizer = nano.build_tokenizer(nano.corpus(tofu.resolve_source("mini")), sizes)
    tokenizer.save_pretrained(folder / "untrained")
    nano.build_model(tokenizer, sizes, seed=1).save_pretrained(folder / "untrained")
    return {"npo": unlearned, "retain": retain, "untrained": str(folder / "untrained")}


@pytest.mark.slow
def test_an_unlearned_model_recovers_and_one_that_never_knew_does_not(
    arms: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two authors, so there is no interval; some 11 of the 34 prompts came back where the bounds were found.

    If a third comes back, fewer than 3 do with probability 1e-3 at most. A model that never knew says no name rightly.
    """
    config = RelearnConfig(
        model=arms["npo"],
        retain=arms["retain"],
        output=tmp_path / "npo",
        tofu="mini",
        folds=2,
        lrs=(1e-3,),
        epochs=(5,),
        train_batch_size=4,
        gradient_accumulation=1,
        batch_size=64,
        model_args={"dtype": "float32"},
    )
    figures = _figures(relearn.relearn(config))
    assert figures("excess") * figures("n") / 100 >= 3
    assert figures("recovery_delta") > figures("retain_recovery_delta")
    assert figures("rougeL_delta") > figures("retain_rougeL_delta")
    assert abs(figures("retain_recovery_delta")) * figures("n") / 100 <= 2

    # What the retain arm was taught and said is the same beside another model, so it need not be done again.
    never = replace(config, model=arms["untrained"], output=tmp_path / "never")
    relearn._begin(_made(never), relearn._recorded(never))
    shutil.copytree(config.output / "retain", never.output / "retain")
    figures = _figures(relearn.relearn(never))
    assert abs(figures("excess")) * figures("n") / 100 <= 2


def _figures(file: Path) -> Callable[[str], float]:
    content = json.loads(file.read_text())["results"]["tofu_relearn"]
    return lambda name: content[f"{name},none"]
