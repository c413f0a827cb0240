"""What users install: the wheel and an editable install, each in a fresh environment, run from another directory.

Dependencies are not installed anew: a path file makes those of the running interpreter visible. Path files in that
directory are not read, so that nothing of an installation of ours in there helps.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
LEAVES = sorted(path.stem for path in (ROOT / "lm_eval_tofu" / "tasks").glob("tofu_*.yaml"))
SWITCHED_OFF = {"LM_EVAL_TOFU_AUTOLOAD": "0"}
MODULES = "import sys; print('\\n'.join(sys.modules))"


class Environment:
    """A virtual environment with this package, and a working directory that is not the repository."""

    def __init__(self, directory: Path, *requirement: str) -> None:
        self.work = directory / "work"
        self.work.mkdir()
        self.venv = directory / "venv"
        venv.create(self.venv, with_pip=True)
        self.python = self.venv / "bin" / "python"
        paths = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
        # Named so that `site` reads it after the path files of an editable install.
        (self.site_packages / "zz_dependencies.pth").write_text("\n".join(paths) + "\n")
        self.modules_before = set(self.run(self.python, "-c", MODULES).split())
        pip = (self.python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation")
        self.run(*pip, "--ignore-installed", *requirement)

    @property
    def site_packages(self) -> Path:
        [path] = self.venv.glob("lib/python*/site-packages")
        return path

    def run(self, *command: str | Path, **variables: str) -> str:
        """The command's standard output; standard error where it fails."""
        run = self._run(command, variables)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    def stderr(self, *command: str | Path) -> str:
        return self._run(command, {}).stderr

    def lm_eval(self, *arguments: str, **variables: str) -> str:
        return self.run(self.python, "-m", "lm_eval", *arguments, **variables)

    def _run(self, command: tuple[str | Path, ...], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
        dropped = ("PYTHONPATH", "PYTHONHOME", "LM_EVAL_TOFU_AUTOLOAD", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
        inherited = {name: value for name, value in os.environ.items() if name not in dropped}
        env = {**inherited, "HF_HUB_OFFLINE": "1", **variables}
        arguments = list(map(str, command))
        return subprocess.run(arguments, capture_output=True, text=True, cwd=self.work, env=env, check=False)


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "editable":
        yield Environment(directory, "--editable", str(ROOT))
        return
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(ROOT)]
    run = subprocess.run(build, capture_output=True, text=True, cwd=directory, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    [wheel] = directory.glob("*.whl")
    yield Environment(directory, str(wheel))


from_wheel = pytest.mark.parametrize("installed", ["wheel"], indirect=True)
"""For what starts lm_eval, whose index of all tasks takes ten seconds, and does not depend on the kind of install."""


def _listed(table: str) -> dict[str, str]:
    """Name and place of each row of `lm_eval ls`."""
    rows = (re.split(r"\s*\|\s*", line.strip("| ")) for line in table.splitlines() if line.startswith("|"))
    return {row[0]: row[1] for row in rows if len(row) > 1}


def test_the_package_is_the_one_that_was_installed(installed: Environment, request: pytest.FixtureRequest) -> None:
    place = Path(installed.run(installed.python, "-c", "import lm_eval_tofu as l; print(l.__file__)").strip())
    editable = "editable" in request.node.callspec.id
    assert place.is_relative_to(ROOT / "lm_eval_tofu" if editable else installed.site_packages)
    assert (installed.site_packages / "lm_eval_tofu.pth").is_file()


def test_package_data_is_there(installed: Environment) -> None:
    tasks = Path(installed.run(installed.venv / "bin" / "lm-eval-tofu", "tasks-path").strip())
    assert sorted(path.stem for path in tasks.glob("tofu_*.yaml")) == LEAVES
    assert (tasks / "_tofu_template").is_file()
    preset = Path(installed.run(installed.venv / "bin" / "lm-eval-tofu", "presets", "cpu").strip())
    assert preset.is_file()
    assert (tasks.parent / "py.typed").is_file()
    mini = {path.suffix for path in (tasks.parent / "mini").iterdir() if path.name != "__pycache__"}
    assert mini == {".json", ".md"}


def test_the_metadata_has_the_entry_point(installed: Environment) -> None:
    code = (
        "import json, pathlib, importlib.metadata as m; "
        f"[d] = m.distributions(name='lm-eval-tofu', path=[{str(installed.site_packages)!r}]); "
        "[e] = d.entry_points.select(group='lm_eval.tasks'); "
        "print(json.dumps([e.name, e.value, [str(p) for p in e.load().__path__]]))"
    )
    name, value, [path] = json.loads(installed.run(installed.python, "-c", code))
    assert (name, value) == ("tofu", "lm_eval_tofu.tasks")
    assert f"{path}\n" == installed.run(installed.venv / "bin" / "lm-eval-tofu", "tasks-path")


@from_wheel
def test_a_plain_lm_eval_lists_our_tasks(installed: Environment) -> None:
    listed = _listed(installed.lm_eval("ls", "tasks"))
    assert {"tofu", "tofu_forget_quality", "tofu_model_utility", "tofu_answer_logprob", *LEAVES} <= set(listed)
    assert "hellaswag" in listed


@from_wheel
def test_lm_eval_validates_our_tasks(installed: Environment) -> None:
    assert "All tasks found and valid" in installed.lm_eval("validate", "--tasks", "tofu_forget_quality")


def test_the_task_manager_matches_leaves_only_and_users_override(installed: Environment) -> None:
    users = installed.work / "users"
    users.mkdir(exist_ok=True)
    (users / "mine.yaml").write_text("task: tofu_forget_quality\n")
    code = (
        "import json; from lm_eval.tasks import TaskManager; t = TaskManager(include_path='users'); "
        "places = {n: str(t.task_index[n].yaml_path) for n in t.match_tasks(['tofu_*'])}; "
        "print(json.dumps([places, t.match_tasks(['tofu']), t.include_path]))"
    )
    places, group, include_path = json.loads(installed.run(installed.python, "-c", code))
    assert sorted(places) == LEAVES
    assert group == ["tofu"]
    assert include_path == "users"
    assert places.pop("tofu_forget_quality") == "users/mine.yaml"
    assert all("lm_eval_tofu/tasks/" in place for place in places.values())


@from_wheel
def test_switched_off_they_are_absent(installed: Environment) -> None:
    code = "from lm_eval.tasks import TaskManager; print(TaskManager().match_tasks(['tofu*', 'hellaswag']))"
    assert installed.run(installed.python, "-c", code, **SWITCHED_OFF).strip() == "['hellaswag']"


@from_wheel
def test_include_path_works_on_the_command_line(installed: Environment) -> None:
    # Switched off, so that nothing else can be what finds them.
    script = '"$0" -m lm_eval validate --tasks tofu_forget_quality --include_path "$(lm-eval-tofu tasks-path)"'
    path = f"{installed.venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    out = installed.run("bash", "-c", script, installed.python, PATH=path, **SWITCHED_OFF)
    assert "All tasks found and valid" in out


def test_a_start_imports_nothing_third_party(installed: Environment) -> None:
    modules = set(installed.run(installed.python, "-c", MODULES).split())
    off = set(installed.run(installed.python, "-c", MODULES, **SWITCHED_OFF).split())
    assert modules == off
    assert modules - installed.modules_before == {"lm_eval_tofu", "lm_eval_tofu.autoload"}


def test_a_start_costs_less_than_half_an_import_of_json(installed: Environment) -> None:
    """That is a dozen modules of the standard library, 2 ms on an idle machine; ours is a quarter of it.

    Both are measured in the same processes, and the shortest of ten counts: a busy machine can only lengthen them.
    """

    def microseconds() -> tuple[int, ...]:
        table = installed.stderr(installed.python, "-X", "importtime", "-c", "import json")
        # The package's own line stands before and its time is part of the module's.
        rows = [line.split("|") for line in table.splitlines() if line.count("|") == 2]
        times = {name.strip(): cumulative for _, cumulative, name in rows}
        return int(times["lm_eval_tofu.autoload"]), int(times["json"])

    ours, reference = (min(column) for column in zip(*(microseconds() for _ in range(10)), strict=True))
    assert ours < reference / 2
