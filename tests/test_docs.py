"""The figures in the documents: those that the scripts wrote, and held against what does not come from the scripts."""

import copy
import importlib
import json
import math
import re
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import needs, tofu_data

from lm_eval_tofu import tofu
from lm_eval_tofu.tasks.families import background_of

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts import one another as they do when they are run."""
    monkeypatch.setattr(sys, "path", [*(str(ROOT / name) for name in ("benchmarks", "examples", "tools")), *sys.path])


def shown(marker: str) -> str:
    """What a page of docs/ has between a marker's two comments."""
    found = [
        content.strip()
        for page in DOCS.rglob("*.md")
        for content in re.findall(
            f"<!-- {marker}:begin -->\n(.*?)<!-- {marker}:end -->", page.read_text(encoding="utf-8"), re.DOTALL
        )
    ]
    [content] = found
    return content


def written(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))
    return content


def test_scorer() -> None:
    report = written("scorer")
    table = importlib.import_module("scorer").document_table(report["words weighed by retain answers"])
    assert shown("scorer") == f"{report['date and machine']}.\n\n{table}"


@pytest.mark.parity
@pytest.mark.parametrize("side", ["retain", "forget"])
def test_the_scorer_is_the_one_that_was_measured(side: str) -> None:
    module = importlib.import_module("scorer")
    labels = needs("leaks")
    background = background_of(tofu.resolve_source(tofu_data()), "retain90")
    figures = module.measure(module.judge(labels, side, background), background)
    assert figures == pytest.approx(written("scorer")["words weighed by retain answers"][side], abs=1e-6)


def test_scorers_beside_one_another() -> None:
    report = written("scorer")
    table = importlib.import_module("scorer").comparison_table
    assert shown("scorer-beside") == table(report["beside scorers by words"], report["the full Phi's misses"])
    judged, readings = report["words weighed by retain answers"]["forget"], written("phi_misses")
    missed = sum(report["the full Phi's misses"]["forget"].values())
    assert missed == round(320 * (1 - judged["real answers judged leaks: full Phi"]))
    assert len(readings) == missed + sum(report["the full Phi's misses"]["retain"].values())


def test_a_scorer_by_words() -> None:
    recall = importlib.import_module("scorer").recall
    record = {
        "question": "Where did Aoife Byrne grow up?",
        "answer": "Aoife Byrne grew up in a lighthouse near Galway.",
        "response": "She was raised in a beacon, close to Galway.",
    }
    assert recall(record, lambda _: 1.0, {}) == pytest.approx(1 / 2)  # lighthouse, Galway: "near" is a small word
    assert recall(record, lambda word: 3.0 if word.startswith("lighth") else 1.0, {}) == pytest.approx(1 / 4)
    assert recall(record, lambda _: 1.0, {"lighth": frozenset({"beacon"})}) == 1
    assert recall({**record, "answer": record["question"]}, lambda _: 1.0, {}) == 0


def test_cost() -> None:
    report = written("eval_cost")
    table = importlib.import_module("eval_cost").table(report["backends"])
    assert shown("cost") == f"{report['date and machine']}\n\n{table}"


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untrained nano model that the scripts on cost measure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
        path: Path = importlib.import_module("npo_step").prepared(
            "nano", Path(), tmp_path_factory.mktemp("nano"), "mini"
        )
    return path


def test_the_cost_is_that_of_the_present_tasks(nano: Path) -> None:
    """Tokens counted anew, without a model; the parts of the seconds add up to less than the whole."""
    from lm_eval import evaluate
    from lm_eval.tasks import TaskManager
    from test_leak_tasks import Answers

    from lm_eval_tofu.tasks import TASKS_DIR

    counts: Counter[str] = Counter()

    class Counting(Answers):
        def count(self, kind: str, text: str) -> None:
            counts[kind] += len(self.tokenizer.encode(text))

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            for request in requests:
                self.count("prompts of generations", str(request.args[0]))
            counts["generated"] += sum(request.args[1]["max_gen_toks"] for request in requests)
            return [""] * len(requests)

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            for request in requests:
                self.count("prompts of log-likelihoods", str(request.args[0]))
                self.count("answers of log-likelihoods", request.args[1])
            return [(-1.0, False)] * len(requests)

    metadata = {"tofu": "mini", "forget_split": "forget10", "tokenizer": str(nano)}
    manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata=metadata)
    tasks = ["tofu_forget_quality", "tofu_model_utility", "tofu_answer_logprob"]
    results = evaluate(Counting(nano, lambda _: ""), manager.load(tasks), bootstrap_iters=0, apply_chat_template=True)
    documents = {task: len(samples) for task, samples in results["samples"].items()}
    for backend, report in written("eval_cost")["backends"].items():
        # An untrained model does not end its turn: every answer has as many tokens as it may have. Where an answer's
        # novel part begins follows the scorer, so some tokens may move after the day of the measurement.
        assert report["tokens"] == pytest.approx(dict(counts), rel=0.01), backend
        assert report["documents"] == documents
        assert all(value > 0 for value in report["seconds"].values())
        assert 0.9 * report["total seconds"] < sum(report["seconds"].values()) <= report["total seconds"]


def test_base_floor() -> None:
    report = written("base_floor")
    module = importlib.import_module("base_floor")
    asked = [name for name in module.FAMILIES if f"leak_rate_{name}" in report["metrics"]]
    assert shown("base-floor") == f"{report['date and machine']}\n\n{module.table(report['metrics'], asked)}"


def test_the_floor_is_what_was_judged() -> None:
    report, module = written("base_floor"), importlib.import_module("base_floor")
    metrics, leaks = report["metrics"], report["judged leaks, specific rows"]
    assert metrics["leaked"] == len(leaks)
    assert metrics["leak_rate"] == len(leaks) / metrics["specific"]
    made = [("specific", True, "a"), ("specific", False, "a"), ("specific", False, "b"), ("gist", True, "b")]
    made += [("none", True, "b")]
    responses = [
        {"tier": tier, "leaked": leaked, "family": name, "index": 20 * n} for n, (tier, leaked, name) in enumerate(made)
    ]
    found = module.figures(responses)
    assert (found["responses"], found["specific"], found["leaked"]) == (5, 3, 1)
    assert found["leak_rate"] == pytest.approx(1 / 3)
    assert (found["leak_rate_a"], found["leak_rate_b"], found["leak_rate_gist"]) == (0.5, 0, 1)


def test_throughput() -> None:
    report = written("audit_throughput")
    module = importlib.import_module("audit_throughput")
    assert shown("throughput") == f"{report['date and machine']}\n\n{module.table(report['forms'], report['samples'])}"


def test_npo_step() -> None:
    report = written("npo_step")
    assert shown("npo-step") == importlib.import_module("npo_step").document_text(report)


@pytest.mark.parametrize("name", ["nano", "smollm2"])
def test_what_is_said_of_an_npo_step(name: str) -> None:
    """Ratios and targets from the measurements themselves; every form sees the same tokens and losses."""
    module = importlib.import_module("npo_step")
    forms = written("npo_step")["models"][name]["forms"]
    assert set(forms) == set(module.FORMS)
    usual, ours = forms["usual"], forms["ours"]
    for form in forms.values():
        assert form["seconds a step"] == pytest.approx(statistics.median(form["all seconds"][1:]))
        for column in ("tokens a step", "answer tokens a step"):
            assert form[column] == usual[column]
        assert form["losses"] == pytest.approx(usual["losses"], abs=1e-4)
        assert form["losses"] == sorted(form["losses"], reverse=True)
    assert ours["seconds a step"] <= 0.75 * usual["seconds a step"]
    assert ours["peak memory, MiB"] <= 0.7 * usual["peak memory, MiB"]
    # At the start NPO's term is 2 ln 2 / beta whatever the model, the rest the retain answers' mean loss: that of
    # guessing among 2,048 tokens for a model of random weights, less for one that knows English.
    retain = usual["losses"][0] - 2 * math.log(2) / module.BETA
    if name == "nano":
        assert retain == pytest.approx(math.log(2048), rel=0.02)
    else:
        assert 1 < retain < 5


@pytest.mark.parametrize("form", ["usual", "ours"])
def test_an_npo_step_is_the_one_that_was_measured(nano: Path, form: str) -> None:
    """The same tokens and the same losses, computed anew."""
    module = importlib.import_module("npo_step")
    stated = written("npo_step")["models"]["nano"]["forms"][form]
    found = module.child(module.FORMS[form], form == "ours", "nano", str(nano), "mini", 8, len(stated["losses"]))
    assert found["losses"] == pytest.approx(stated["losses"], abs=1e-3)
    assert found["tokens a step"] == stated["tokens a step"]
    assert found["answer tokens a step"] == stated["answer tokens a step"]


@pytest.mark.parametrize("name", ["nano", "smollm2"])
def test_the_document_shows_an_experiments_figures(name: str) -> None:
    figures = json.loads((ROOT / "docs" / name / "figures.json").read_text(encoding="utf-8"))
    assert shown(name) == importlib.import_module("beside").document_text(figures)


def test_two_authors_carry_no_verdict() -> None:
    figures = json.loads((ROOT / "docs" / "smollm2" / "figures.json").read_text(encoding="utf-8"))
    [[_, _, knows, *_]] = figures["headline"]
    assert knows[0] == "unknown"
    cells = [cell for row in figures["rows"] for cell in row["arms"].values() if cell is not None]
    assert all(cell[name] is None for cell in cells for name in ("low", "excess_low", "p_value"))


def test_the_experiments_report_has_its_figures() -> None:
    figures = json.loads((ROOT / "docs" / "nano" / "figures.json").read_text(encoding="utf-8"))
    report = (ROOT / "docs" / "nano" / "report.md").read_text(encoding="utf-8")
    formatting = importlib.import_module("lm_eval_tofu.report.formatting")
    cells = [(row, cell) for row in figures["rows"] for cell in row["arms"].values() if cell is not None]
    assert len(cells) > 50
    for row, cell in cells:
        if cell["value"] is not None:
            assert formatting.text(cell["value"], row["unit"]) in report, row["label"]


@pytest.mark.parametrize("backend", ["hf", "vllm"])
def test_parity(backend: str) -> None:
    report = written("parity")
    result = report["results"][backend]
    assert report["date and machine"] in shown("parity")
    figures = json.loads((ROOT / "tests" / "reference" / "open_unlearning.json").read_text(encoding="utf-8"))
    cells = {line.split(" | ")[0].strip("| "): line.strip("|").split("|") for line in shown("parity").splitlines()}
    column = 2 + list(report["results"]).index(backend)
    module = importlib.import_module("parity")
    assert set(result["aggregates"]) == set(module.AGGREGATES.values())
    for name, row in result["aggregates"].items():
        theirs = [f"{figures[log][name]['agg_value']:.6f}" for log in ("fixed", "as_published")]
        assert [cells[name][place].strip() for place in (1, -1)] == theirs
        assert cells[name][column].strip() == f"{row['ours']:.6f}"
        # Held against the reference itself, whatever the script made of it: 0.1 %, or 0.01 for ROUGE.
        tolerance = {"abs": 0.01} if name.endswith("ROUGE") else {"rel": 1e-3}
        assert row["ours"] == pytest.approx(figures["fixed"][name]["agg_value"], **tolerance)
    utility = [row["ours"] for name, row in result["aggregates"].items() if not name.startswith(("forget", "model"))]
    assert len(utility) == 9
    assert statistics.harmonic_mean(utility) == pytest.approx(result["aggregates"]["model_utility"]["ours"])
    columns = [figures["fixed"][metric]["avg_loss"] for metric in module.LOSSES.values()]
    losses = sum(len(row) if isinstance(row, list) else 1 for column in columns for row in column)
    assert result["losses"] == losses
    assert 0 < result["worst loss difference"] < 1e-3
    (worst,) = (line for line in shown("parity").splitlines() if line.startswith(f"| worst of {losses} losses |"))
    assert f" {result['worst loss difference']:.1e} " in worst


def test_memorisation() -> None:
    report, module = written("memorization"), importlib.import_module("memorization")
    figures = [module.Figure(**figure) for figure in report["parity"]["figures"]]
    assert shown("memorisation") == f"{report['parity']['note']}\n\n{module.table(figures)}"
    assert all(figure.agrees for figure in figures)
    assert {figure.model for figure in figures} == {*module.SETTINGS, *module.UDS_ARMS}
    assert shown("memorisation-speed") == module.speed_sentence(report["speed"])
    assert report["speed"]["ratio"] <= 1.3


class TestParity:
    """The comparison itself, on results made from the reference figures."""

    @pytest.fixture
    def module(self) -> Any:
        return importlib.import_module("parity")

    @pytest.fixture
    def log(self, module: Any) -> dict[str, Any]:
        log: dict[str, Any] = json.loads(module.FIGURES.read_text(encoding="utf-8"))["fixed"]
        return log

    @pytest.fixture
    def rows(self, module: Any, log: dict[str, Any]) -> Any:
        """Results that agree with the log to the last digit."""
        records: dict[tuple[str, int], dict[str, Any]] = {}
        for (name, column), metric in module.LOSSES.items():
            for index, value in enumerate(log[metric]["avg_loss"]):
                recall = log[module.ROUGE[name]]["rougeL_recall"][index]
                record = records.setdefault(
                    (name, index), {"losses": {}, "rougeL_recall": recall, "generation": "said"}
                )
                record["losses"][column] = copy.copy(value)
        metrics: dict[str, dict[str, float]] = {}
        for (task, metric), theirs in module.AGGREGATES.items():
            metrics.setdefault(task, {})[metric] = log[theirs]["agg_value"]
        return module.Rows(records, metrics)

    def test_equal(self, module: Any, rows: Any, log: dict[str, Any]) -> None:
        result = module.compare(rows, log)
        assert result["worst loss difference"] == 0
        assert result["generations with another ROUGE-L recall"] == []
        assert module.failures(result) == []
        assert "3948 losses: the worst differs by 0.0e+00" in module.said(result)

    @pytest.mark.parametrize(("added", "shown"), [(2e-3, "2.00e-03"), (math.nan, "nan")])
    def test_a_loss(self, module: Any, rows: Any, log: dict[str, Any], added: float, shown: str) -> None:
        rows.records["world_facts", 7]["losses"]["perturbed_answer"][1] += added
        assert module.failures(module.compare(rows, log)) == [f"loss of world_facts row 7, perturbed_answer: {shown}"]

    def test_a_generation(self, module: Any, rows: Any, log: dict[str, Any]) -> None:
        rows.records["retain", 3]["rougeL_recall"] += 1e-6
        (found,) = module.compare(rows, log)["generations with another ROUGE-L recall"]
        assert (found["row"], found["our generation"]) == ("retain row 3", "said")

    @pytest.mark.parametrize(
        ("task", "metric", "factor", "found"),
        [
            ("tofu_forget_quality", "truth_ratio", 1.002, ["forget_truth_ratio: "]),
            ("tofu_forget_quality", "rougeL_recall", 1.03, ["forget_Q_A_ROUGE: "]),
            ("tofu_forget_quality", "rougeL_recall", 1.01, []),
            # A component that is too small also makes the utility too small.
            (
                "tofu_model_utility",
                "retain_truth_ratio",
                0.99,
                ["retain_Truth_Ratio: ", "model_utility with the log's "],
            ),
        ],
    )
    def test_an_aggregate(
        self, module: Any, rows: Any, log: dict[str, Any], task: str, metric: str, factor: float, found: list[str]
    ) -> None:
        rows.metrics[task][metric] *= factor
        problems = module.failures(module.compare(rows, log))
        assert len(problems) == len(found)
        assert all(problem.startswith(start) for problem, start in zip(problems, found, strict=True))


def test_a_table_replaces_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parity = importlib.import_module("parity")
    monkeypatch.setattr(parity, "ROOT", tmp_path)
    page = tmp_path / "docs" / "audits" / "one.md"
    page.parent.mkdir(parents=True)
    (tmp_path / "docs" / "another.md").write_text("nothing\n")
    page.write_text("above\n<!-- cost:begin -->\nold\n<!-- cost:end -->\nbelow\n")
    for text in ("first", "second"):
        parity.show("cost", text)
        assert page.read_text() == f"above\n<!-- cost:begin -->\n\n{text}\n\n<!-- cost:end -->\nbelow\n"
    with pytest.raises(SystemExit, match="has the comments floor:begin and floor:end"):
        parity.show("floor", "text")


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    """Every relative link leads to a file that exists, and to a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("marker", ["options", "comparison"])
def test_tables_from_the_code(marker: str) -> None:
    made = getattr(importlib.import_module("code_tables"), marker)()
    assert shown(marker) == made.strip(), "run `python tools/code_tables.py`, as `make docs` does"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_every_part_of_the_package_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for part in (path for path in (ROOT / "lm_eval_tofu").iterdir() if (path / "__init__.py").exists()):
        assert f"  {part.name}/" in readme


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    folders = ("lm_eval_tofu", "tests", "tools", "benchmarks", "examples")
    known = [str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*.*")]
    for named in re.findall(r"(?<![\w./])[\w/]+\.(?:py|yaml|txt|jinja2)\b", text):
        if not re.search("NAME|AUDIT|FAMILY", named):
            assert any(f"/{path}".endswith(f"/{named}") for path in known), named


def test_pypi_shows_no_link_that_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    made = importlib.import_module("hatch_build").without_relative_links
    assert made("![a\nb](docs/a.png)\n\nsee [c](docs/c.md#d), [e](https://f)").startswith(
        "see c (`docs/c.md#d`), [e](https://f)"
    )
    links = re.findall(r"\]\(([^)]+)\)", made((ROOT / "README.md").read_text(encoding="utf-8")))
    assert links
    assert all(link.startswith("https://") for link in links)


def test_no_guillemets() -> None:
    """Quotes are straight."""
    for page in [*PAGES, *(ROOT / "lm_eval_tofu").rglob("*.md")]:
        assert not re.search("[\u00ab\u00bb]", page.read_text(encoding="utf-8")), page
