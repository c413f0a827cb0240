"""The finder and the patch, mostly with a stand-in for lm_eval in a Python of its own (-S: no .pth is read)."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from lm_eval.config.evaluate_config import EvaluatorConfig
from lm_eval.tasks import TaskManager, manager
from lm_eval.tasks._index import TaskIndex

from lm_eval_tofu import autoload
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.tasks import TASKS_DIR

ROOT = Path(autoload.__file__).parents[1]

MANAGER = '''
class TaskManager:
    """Knows tasks."""

    def __init__(self, verbosity=None, include_path=None, include_defaults=True, metadata=None):
        """Index."""
        self.include_path = include_path
        self.metadata = metadata
        self.paths = ["defaults"] if include_defaults else []
        if include_path:
            self.paths += include_path if isinstance(include_path, (list, tuple)) else [include_path]

    def match_tasks(self, task_list):
        """Match."""
        return list(task_list)
'''

SHOW = """
import json, sys
def show(value):
    print(json.dumps(value, default=str))
"""

PREFLIGHT = """
import types
import lm_eval_tofu.tasks
calls = []
def preflight(names, metadata):
    calls.append([list(names), dict(metadata)])
task = sys.modules["lm_eval_tofu.tasks.task"] = types.ModuleType("lm_eval_tofu.tasks.task")
task.preflight = preflight
"""


class Fake:
    """A stand-in for lm_eval in a directory, and a Python that sees it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stderr = ""
        self.write("lm_eval/__init__.py", "")
        self.write("lm_eval/tasks/__init__.py", "from lm_eval.tasks.manager import TaskManager")
        self.write("lm_eval/tasks/manager.py", MANAGER)

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, code: str, **variables: str) -> Any:
        """What the code showed."""
        paths = os.pathsep.join(map(str, [self.directory, ROOT]))
        inherited = {name: value for name, value in os.environ.items() if name != autoload.SWITCH}
        env = {**inherited, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **variables}
        code = SHOW + textwrap.dedent(code)
        run = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, env=env, check=False)
        assert run.returncode == 0, run.stderr
        self.stderr = run.stderr
        return json.loads(run.stdout)


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "paths"),
    [
        ("", ["defaults", "OURS"]),
        ("include_path='mine'", ["defaults", "OURS", "mine"]),
        ("None, 'mine'", ["defaults", "OURS", "mine"]),
        ("include_path=('a', 'b')", ["defaults", "OURS", "a", "b"]),
        ("include_defaults=False", []),
        ("include_path='mine', include_defaults=False", ["mine"]),
        (f"include_path={str(TASKS_DIR)!r}", ["defaults", "OURS"]),
        (f"include_path={str(TASKS_DIR / 'prompts' / '..')!r}", ["defaults", f"{TASKS_DIR}/prompts/.."]),
        (f"include_path=[{str(TASKS_DIR.parent)!r}]", ["defaults", f"{TASKS_DIR.parent}"]),
    ],
)
def test_our_tasks_stand_between_the_defaults_and_the_users(fake: Fake, arguments: str, paths: list[str]) -> None:
    code = f"""
        import lm_eval_tofu.autoload
        from lm_eval.tasks import TaskManager
        show(TaskManager({arguments}).paths)
    """
    assert fake.run(code) == [str(TASKS_DIR) if path == "OURS" else path for path in paths]


@pytest.mark.parametrize("given", [None, "mine", ["a", "b"]])
def test_include_path_stays_the_users(fake: Fake, given: Any) -> None:
    code = f"""
        import lm_eval_tofu.autoload
        from lm_eval.tasks import TaskManager
        show(TaskManager(include_path={given!r}).include_path)
    """
    assert fake.run(code) == given


def test_a_manager_that_is_loaded_already_is_patched_at_once(fake: Fake) -> None:
    code = """
        from lm_eval.tasks import TaskManager
        before = TaskManager().paths
        import lm_eval_tofu.autoload
        show([before, TaskManager().paths])
    """
    assert fake.run(code) == [["defaults"], ["defaults", str(TASKS_DIR)]]


def test_nothing_is_done_twice(fake: Fake) -> None:
    code = """
        import importlib
        import lm_eval_tofu.autoload as autoload
        importlib.reload(autoload)
        import lm_eval.tasks.manager as manager
        importlib.reload(autoload)
        autoload.patch(manager)
        finders = [finder for finder in sys.meta_path if type(finder).__name__ == "Finder"]
        wrapped = [manager.TaskManager.__init__.__wrapped__, manager.TaskManager.match_tasks.__wrapped__]
        show([len(finders), [hasattr(function, "__wrapped__") for function in wrapped], manager.TaskManager().paths])
    """
    assert fake.run(code) == [1, [False, False], ["defaults", str(TASKS_DIR)]]


def test_a_reloaded_manager_is_patched_again(fake: Fake) -> None:
    code = """
        import importlib
        import lm_eval_tofu.autoload
        import lm_eval.tasks.manager as manager
        importlib.reload(manager)
        show(manager.TaskManager().paths)
    """
    assert fake.run(code) == ["defaults", str(TASKS_DIR)]


def test_the_switch(fake: Fake) -> None:
    code = """
        finders = len(sys.meta_path)
        import lm_eval_tofu.autoload
        from lm_eval.tasks import TaskManager
        show([len(sys.meta_path) - finders, TaskManager().paths])
    """
    assert fake.run(code, LM_EVAL_TOFU_AUTOLOAD="0") == [0, ["defaults"]]
    assert fake.run(code, LM_EVAL_TOFU_AUTOLOAD="1") == [1, ["defaults", str(TASKS_DIR)]]


PLUGINS = """
        from importlib.metadata import entry_points
        self.all_tasks = ["tofu_forget_quality"]
"""


def test_a_manager_that_finds_our_tasks_gets_no_path(fake: Fake) -> None:
    head, tail = MANAGER.split("    def match_tasks")
    fake.write("lm_eval/tasks/manager.py", f"{head}{PLUGINS}\n    def match_tasks{tail}")
    code = """
        import lm_eval_tofu.autoload
        from lm_eval.tasks.manager import TaskManager
        show([TaskManager().paths, TaskManager(include_path="mine").paths])
    """
    assert fake.run(code) == [["defaults"], ["defaults", "mine"]]


def test_a_mention_of_entry_points_does_not_hide_our_tasks(fake: Fake) -> None:
    fake.write("lm_eval/tasks/manager.py", f"{MANAGER}\n# Backends may come from entry_points, tasks do not.\n")
    code = """
        import lm_eval_tofu.autoload
        from lm_eval.tasks.manager import TaskManager
        show(TaskManager().paths)
    """
    assert fake.run(code) == ["defaults", str(TASKS_DIR)]


def test_names_signatures_and_errors_are_the_originals(fake: Fake) -> None:
    code = """
        import inspect
        import lm_eval_tofu.autoload
        from lm_eval.tasks import TaskManager
        try:
            TaskManager(colour="red")
        except TypeError as error:
            message = str(error)
        functions = [TaskManager.__init__, TaskManager.match_tasks]
        show([[[f.__qualname__, f.__doc__, str(inspect.signature(f))] for f in functions], message])
    """
    functions, message = fake.run(code)
    assert functions == [
        [
            "TaskManager.__init__",
            "Index.",
            "(self, verbosity=None, include_path=None, include_defaults=True, metadata=None)",
        ],
        ["TaskManager.match_tasks", "Match.", "(self, task_list)"],
    ]
    assert "unexpected keyword argument 'colour'" in message


@pytest.mark.parametrize(
    "source",
    [
        "TaskManager = None",
        "class TaskManager:\n    def __init__(self, folders=()):\n        self.paths = [*folders]",
        "class TaskManager:\n    __slots__ = ()\n    paths = []",
    ],
)
def test_a_manager_of_another_shape_is_a_warning(fake: Fake, source: str) -> None:
    fake.write("lm_eval/tasks/manager.py", source)
    code = """
        import lm_eval_tofu.autoload
        from lm_eval.tasks import TaskManager
        show(TaskManager and TaskManager().paths)
    """
    assert not fake.run(code)
    assert "--include_path" in fake.stderr


def test_without_lm_eval_its_import_fails_as_ever(fake: Fake) -> None:
    code = """
        import lm_eval_tofu.autoload
        try:
            import lm_eval.tasks.manager
        except ModuleNotFoundError as error:
            show(error.name)
    """
    (fake.directory / "lm_eval" / "tasks" / "manager.py").unlink()
    (fake.directory / "lm_eval" / "tasks" / "__init__.py").write_text("")
    assert fake.run(code) == "lm_eval.tasks.manager"


def test_nothing_but_ourselves_is_imported(fake: Fake) -> None:
    code = """
        import os  # as `site` does; -S leaves it out
        before = set(sys.modules)
        import lm_eval_tofu.autoload
        show(sorted(set(sys.modules) - before))
    """
    assert fake.run(code) == ["lm_eval_tofu", "lm_eval_tofu.autoload"]


def test_the_pth_line_swallows_any_failure(fake: Fake) -> None:
    [line] = (ROOT / "lm_eval_tofu.pth").read_text().splitlines()
    assert line.startswith("import ")  # the only lines that `site` executes
    fake.write("lm_eval_tofu/__init__.py", "")
    fake.write("lm_eval_tofu/autoload.py", "raise RuntimeError('broken')")
    assert fake.run(f"exec({line!r})\nshow('started')") == "started"
    assert fake.stderr == ""


def _match(names: Iterable[str], metadata: dict[str, Any], tail: str = "show(calls)") -> str:
    code = f"""
import lm_eval_tofu.autoload
from lm_eval.tasks import TaskManager
manager = TaskManager(metadata={metadata!r})
"""
    return PREFLIGHT + code + tail.replace("MATCH", f"manager.match_tasks({list(names)!r})")


@pytest.mark.parametrize(
    ("names", "metadata", "checked"),
    [
        (["tofu_forget_quality"], {"pretrained": "m"}, True),
        (["hellaswag", "tofu"], {"pretrained": "m"}, True),
        (["tofu_forget_quality"], {}, False),
        (["hellaswag"], {"pretrained": "m"}, False),
        ([], {"pretrained": "m"}, False),
    ],
)
def test_options_are_checked_when_names_are_matched(
    fake: Fake, names: list[str], metadata: dict[str, Any], checked: bool
) -> None:
    matched, calls = fake.run(_match(names, metadata, "show([MATCH, calls])"))
    assert matched == names
    assert calls == ([[names, metadata]] if checked else [])


def test_our_errors_stop_lm_eval(fake: Fake) -> None:
    tail = """
from lm_eval_tofu.errors import OptionError
def preflight(names, metadata):
    raise OptionError("wrong")
task.preflight = preflight
try:
    MATCH
except OptionError as error:
    show(str(error))
"""
    assert fake.run(_match(["tofu"], {"pretrained": "m"}, tail)) == "wrong"


def test_other_errors_pass_as_what_they_are(fake: Fake) -> None:
    tail = """
def preflight(names, metadata):
    raise RuntimeError("a fault of ours")
task.preflight = preflight
try:
    MATCH
except RuntimeError as error:
    show(str(error))
"""
    assert fake.run(_match(["tofu"], {"pretrained": "m"}, tail)) == "a fault of ours"
    assert "does not fit this lm_eval" not in fake.stderr


def test_a_users_task_of_our_name_is_not_checked(fake: Fake) -> None:
    tail = f"""
entry = types.SimpleNamespace
manager.task_index = {{
    "tofu_mine": entry(yaml_path="/elsewhere/tofu_mine.yaml"),
    "tofu_forget_quality": entry(yaml_path={str(TASKS_DIR / "tofu_forget_quality.yaml")!r}),
}}
MATCH
show(calls)
"""
    names = ["tofu_mine", "tofu_forget_quality"]
    assert fake.run(_match(names, {"pretrained": "m"}, tail)) == [[["tofu_forget_quality"], {"pretrained": "m"}]]


class _WithoutDefaults(TaskIndex):
    """Leaves out lm_eval's own 15,000 files, which take 20 seconds to read."""

    @staticmethod
    def build(paths: list[Path], **kwargs: Any) -> Any:
        return TaskIndex.build([path for path in paths if path != Path(manager.__file__).parent], **kwargs)


@pytest.fixture
def _without_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    autoload.patch(manager)
    monkeypatch.setattr(manager, "TaskIndex", _WithoutDefaults)


@pytest.mark.usefixtures("_without_defaults")
def test_lm_eval_finds_our_tasks() -> None:
    tasks = TaskManager()
    leaves = sorted(path.stem for path in TASKS_DIR.glob("tofu_*.yaml"))
    assert {"tofu_forget_quality", "tofu_model_utility", "tofu_answer_logprob"} <= set(leaves)
    assert tasks.match_tasks(["tofu_*"]) == leaves == tasks.all_subtasks
    assert tasks.all_groups == ["tofu"]


@pytest.mark.usefixtures("_without_defaults")
def test_a_users_task_overrides_ours(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("task: tofu_forget_quality\n")
    tasks = TaskManager(include_path=str(tmp_path))
    assert tasks.task_index["tofu_forget_quality"].yaml_path == path


@pytest.mark.usefixtures("_without_defaults")
def test_lm_eval_refuses_a_wrong_option_before_it_loads_a_model() -> None:
    config = EvaluatorConfig(tasks=["tofu_forget_quality"], metadata={"forget_split": "forget99"})
    with pytest.raises(OptionError, match="forget99"):
        config.process_tasks()
