"""What the examples share: steps that go on where they stopped, and figures that the documents show."""

import importlib
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import made_results as made
import pytest

from lm_eval_tofu import cli, tofu
from lm_eval_tofu.audit import options as cli_audit
from lm_eval_tofu.tasks import rows as task_rows
from lm_eval_tofu.tasks.options import Options
from lm_eval_tofu.unlearn import options, sweep_config

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts import one another as they do when they are run."""
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])


def job(done: Path | None, code: str) -> Any:
    return importlib.import_module("experiment").Job(done, [sys.executable, "-c", code])


def writes(path: Path) -> Any:
    return job(path, f"import pathlib; path = pathlib.Path({str(path)!r}); path.write_text(path.name)")


def test_the_quick_start_audits_with_the_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quickstart = importlib.import_module("quickstart")
    trained: list[str] = []
    monkeypatch.setattr(quickstart, "train", lambda arms, *_: trained.extend(arms))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # restores what the script sets

    def ran(*arguments: str) -> list[str]:
        found: list[list[str]] = []

        def run(command: list[str], check: bool) -> Any:
            found.append(command)
            return subprocess.CompletedProcess(command, 0)

        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.setattr(sys, "argv", ["quickstart.py", "--out", str(tmp_path), *arguments])
        assert quickstart.main() == 0
        [command] = found
        assert cli_audit.AuditOptions(**options.values_of(parsed(command[3:]), cli_audit.AuditOptions)).tofu == "mini"
        arms: list[str] = parsed(command[3:]).models
        return arms

    def parsed(arguments: list[str]) -> Any:
        return cli._parser("audit").parse_args(arguments)

    assert ran() == [f"full={tmp_path / 'models' / 'full'}", f"retain={tmp_path / 'models' / 'retain'}"]
    assert trained == ["base", "full", "retain"]
    assert ran("--model", "m", "--retain", "r") == ["unlearned=m", "retain=r"]
    assert len(trained) == 3


def test_the_miniature_sweep_shows_a_metric_without_a_value(tmp_path: Path) -> None:
    """The retain arm has no forget quality, since it has no reference: lm-eval writes null, the table a blank."""
    sweep_mini = importlib.import_module("sweep_mini")
    values = {"forget_quality,none": None, "ks_statistic,none": 0, "truth_ratio,none": 0.5, "alias": "x"}
    values |= {f"{name},none": 1.0 for name in ("rougeL_recall", "generations_empty")}
    utility = {f"{name},none": 1.0 for name in ("retain_rougeL_recall", "model_utility")}
    content = {"results": {"tofu_forget_quality": values, "tofu_model_utility": utility}}
    (tmp_path / "results_2026-01-01T00-00-00.000000.json").write_text(json.dumps(content))
    metrics = sweep_mini.evaluate(Path("model"), tmp_path, {})
    table = sweep_mini.arms_table(dict.fromkeys(("full", "retain", "selected"), metrics))
    assert table[2:5] == [
        "| forget quality |  |  |  |",
        "| D | 0 | 0 | 0 |",
        "| truth ratio, forget rows | 0.5 | 0.5 | 0.5 |",
    ]


def test_a_failed_job_stops_the_experiment_but_not_the_jobs_beside_it(tmp_path: Path) -> None:
    experiment = importlib.import_module("experiment")
    steps = [
        experiment.Step(
            "first", [writes(tmp_path / "a"), job(tmp_path / "b", "raise SystemExit(3)"), writes(tmp_path / "c")]
        ),
        experiment.Step("second", [writes(tmp_path / "d")]),
    ]
    with pytest.raises(SystemExit, match=r"failed, the reason stands above:\n.*SystemExit\(3\)"):
        experiment.run(iter(steps), 2, 2, tmp_path / "seconds.json")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c", "seconds.json"}


def test_a_second_call_makes_what_is_missing_and_adds_its_time(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    experiment = importlib.import_module("experiment")
    record = tmp_path / "seconds.json"
    record.write_text(json.dumps({"first": 60.0, "second": 120.0}))
    (tmp_path / "a").write_text("as it was")
    steps = [
        experiment.Step("first", [writes(tmp_path / "a")]),
        experiment.Step("second", [writes(tmp_path / "b"), job(None, "print('always asked')")]),
    ]
    minutes = experiment.run(iter(steps), 2, 2, record)
    assert (tmp_path / "a").read_text() == "as it was"
    assert (tmp_path / "b").read_text() == "b"
    seconds = json.loads(record.read_text())
    assert seconds["first"] == 60
    assert seconds["second"] > 120
    assert minutes == pytest.approx(sum(seconds.values()) / 60)
    output = capfd.readouterr().out
    assert "== step 1 of 2: first, after 3 min\nis there already" in output
    assert "always asked" in output


def test_an_abort_after_the_results_are_written_does_not_count(tmp_path: Path) -> None:
    """As vLLM's threads do at the end of a process."""
    experiment = importlib.import_module("experiment")
    written = job(tmp_path / "a", f"open({str(tmp_path / 'a')!r}, 'w').close(); import os; os.abort()")
    experiment.side_by_side([written], 1)
    with pytest.raises(SystemExit):
        experiment.side_by_side([job(None, "import os; os.abort()")], 1)


def test_a_step_may_have_its_own_number_of_jobs_at_a_time(tmp_path: Path) -> None:
    experiment = importlib.import_module("experiment")

    # Each makes its own directory: those that run together wait for one another, of those in turn each must be alone.
    there = f"import os, pathlib, time; here = pathlib.Path({str(tmp_path)!r}, 'there'); here.mkdir(exist_ok=True); "
    there += "mine = here / str(os.getpid()); mine.mkdir(); "
    waits = "end = time.monotonic() + 600\nwhile len(list(here.iterdir())) < 2: assert time.monotonic() < end"
    alone = "time.sleep(0.3); assert list(here.iterdir()) == [mine]; mine.rmdir()"
    empty = f"import shutil; shutil.rmtree({str(tmp_path / 'there')!r})"
    steps = [
        experiment.Step("together", [job(None, there + waits)] * 2, at_once=2),
        experiment.Step("between", [job(None, empty)]),
        experiment.Step("in turn", [job(None, there + alone)] * 2),
    ]
    experiment.run(iter(steps), 2, 1, tmp_path / "seconds.json")
    assert list((tmp_path / "there").iterdir()) == []


def test_jobs_share_the_places_and_have_one_each(tmp_path: Path) -> None:
    """Three jobs, two at a time: each knows the core that it is bound to, and no two run on the same one."""
    experiment = importlib.import_module("experiment")
    code = (
        "import os, pathlib, time; place = os.environ['VLLM_CPU_OMP_THREADS_BIND']; "
        f"mine = pathlib.Path({str(tmp_path)!r}, 'place' + place); mine.mkdir(); time.sleep(0.3); mine.rmdir(); "
        f"pathlib.Path({str(tmp_path)!r}, 'ran').open('a').write(place + os.environ['OMP_NUM_THREADS'])"
    )
    experiment.side_by_side([job(None, code)] * 3, 2)
    ran = (tmp_path / "ran").read_text()
    assert len(ran) == 6
    assert set(ran[::2]) == {"0", "1"}
    assert set(ran[1::2]) == {"1"}


@pytest.mark.parametrize("name", ["reproduce_nano", "smollm2/reproduce"])
def test_an_experiment_has_the_steps_that_it_announces(name: str, tmp_path: Path) -> None:
    """What is trained, evaluated and swept is what exists."""
    published = importlib.import_module("published")
    plan = runpy.run_path(str(EXAMPLES / f"{name}.py"))["PLAN"]
    found = []
    (tmp_path / "sweep").mkdir()
    for step in published.steps(plan, tmp_path, "mini", 2):
        found.append(step)
        if step.name == "blind selection":
            (tmp_path / "sweep" / "selection.json").write_text(json.dumps({"checkpoint": "runs/run01/model"}))
    assert len(found) == published.STEPS
    commands = [" ".join(each.command) for step in found for each in step.jobs]
    assert sum(f" sweep {plan.sweep} " in command for command in commands) == 2
    # Nothing else of what takes a GPU for itself stands beside the sweep's processes.
    [sweeping] = [step for step in found if step.at_once is not None]
    assert (len(sweeping.jobs), sweeping.at_once) == (2, 2)
    for command in ("probe", "relearn", "select", "report", "card"):
        assert sum(f"lm_eval_tofu.cli {command} " in each for each in commands) == 1
    audited = [command for command in commands if "tofu_chain_of_clues" in command]
    assert [command.split("results/")[1].split("/")[0] for command in audited] == [
        "retain",
        "base",
        "full",
        "unlearned",
    ]


def test_the_smollm2_experiment_asks_what_its_model_was_taught(tmp_path: Path) -> None:
    """Training, unlearning, the sweep's utility and the probe must mean the same retain rows."""
    module = runpy.run_path(str(EXAMPLES / "smollm2" / "reproduce.py"))
    plan, known = module["PLAN"], tofu.row_numbers("rows", module["KNOWN"])
    model, reference = tmp_path / "model", tmp_path / "reference"
    config = sweep_config.read_config(
        plan.sweep, {"model": str(model), "output": "o", "retain_reference": str(reference)}
    )
    assert tofu.row_numbers("rows", config.training["retain_rows"]) == known
    assert plan.probe[plan.probe.index("--retain-rows") + 1] == module["KNOWN"]
    # full is retain99's rows, then forget01's.
    assert plan.arms["full"][3] == f"{module['KNOWN']},3960-3999"
    assert plan.arms["retain"][:4] == ("--split", "retain99", "--rows", module["KNOWN"])
    asked = plan.samples("mini")
    utility = config.evaluation.samples
    assert utility == {"tofu_model_utility": asked["tofu_model_utility"]}
    retain, authors, facts = (
        [number for number in asked["tofu_model_utility"] if first <= number < last]
        for first, last in ((0, 400), (400, 500), (500, 617))
    )
    assert set(retain) <= set(known)
    assert retain + authors + facts == asked["tofu_model_utility"]
    assert min(len(retain), len(authors), len(facts)) >= 10
    rows = task_rows.chain_of_clues(Options.from_metadata({"tofu": "mini", "forget_split": "forget01"}))
    assert {rows[number]["index"] for number in asked["tofu_chain_of_clues"]} == {0, 2}


@pytest.fixture
def found(tmp_path: Path) -> dict[str, Any]:
    """Figures of three arms of which two know nothing, with a selection; the probe was not run."""
    arms = {"full": made.gold, "retain": made.nothing, "unlearned": made.nothing}
    for name, says in arms.items():
        made.write(tmp_path / name, model=f"models/{name}", says=says)
    run = {"run": "run07", "point": {"epochs": 10, "learning_rate": 5e-4}, "forget_quality": 0.5, "model_utility": 0.4}
    (tmp_path / "selection.json").write_text(json.dumps({"runs": [run, {**run, "run": "run08"}]}))
    figures = importlib.import_module("beside").figures
    content: dict[str, Any] = figures({name: tmp_path / name for name in arms}, tmp_path, 12.3)
    return content


def test_figures_are_the_reports_and_survive_json(found: dict[str, Any]) -> None:
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    rows = {row["key"]: row for row in found["rows"]}
    assert rows["novel_recall"]["arms"]["full"]["value"] == 1
    assert rows["novel_recall"]["arms"]["unlearned"]["excess"] == 0
    assert rows["probe"]["arms"]["full"] is None
    assert found["selected"] == {"runs": 2, "point": {"epochs": 10, "learning_rate": 5e-4}}


def test_the_table_shows_every_figure_or_a_gap(found: dict[str, Any]) -> None:
    text = importlib.import_module("beside").document_text(found)
    lines = text.splitlines()
    assert lines[0].endswith("; 12 minutes for the whole.")
    assert "Selected of 2 runs: epochs 10, learning_rate 0.0005." in lines
    assert "| | full | retain | unlearned | excess of unlearned over retain (95 %) |" in lines
    assert any(line.startswith("| Novel-recall leak | 100.0 % | 0.0 % | 0.0 % | +0.0 points") for line in lines)
    assert "| Masked probe, last layer | – | – | – |  |" in lines
    table = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in table} == {6}
    assert len(table) == 2 + len(found["rows"])


def test_a_table_without_markers_in_the_document_is_an_error(tmp_path: Path) -> None:
    beside = importlib.import_module("beside")
    document = tmp_path / "d.md"
    document.write_text("above\n<!-- nano:begin -->\nold\n<!-- nano:end -->\nbelow\n")
    beside.show("nano", "new", document)
    assert document.read_text() == "above\n<!-- nano:begin -->\n\nnew\n\n<!-- nano:end -->\nbelow\n"
    with pytest.raises(SystemExit, match="lacks the comments other:begin"):
        beside.show("other", "new", document)
