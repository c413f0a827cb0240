"""Adds our tasks to a plain `lm_eval`; imported at every Python start through `lm_eval_tofu.pth`.

lm-eval 0.4.13 has no entry point for tasks. A finder waits for `lm_eval.tasks.manager`, lets the ordinary finders find
it, and patches `TaskManager` once it has run. A `TaskManager` that finds our tasks itself, by the entry point of this
package, gets no path from us. `LM_EVAL_TOFU_AUTOLOAD=0` switches all of this off. Only `sys` and `os` are imported at
start: both are there already.
"""

import os
import sys

TYPE_CHECKING = False  # typing's own costs an import at every start
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from pathlib import Path
    from types import ModuleType
    from typing import Any

SWITCH = "LM_EVAL_TOFU_AUTOLOAD"
TARGET = "lm_eval.tasks.manager"
TASK = "tofu_forget_quality"
"""Where a `TaskManager` has this task, it has all of ours."""
_MARK = "_lm_eval_tofu"


class Finder:
    """Finds `lm_eval.tasks.manager` through the other finders, and patches it once it has been executed."""

    _lm_eval_tofu = True

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """What the other finders find, with a loader that patches; None for every other module."""
        if fullname != TARGET:
            return None
        others = (finder for finder in sys.meta_path if not hasattr(finder, _MARK))
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            try:
                _patch_after_execution(spec.loader)
            except Exception:  # noqa: BLE001  (lm_eval must start without us)
                _warn()
        return spec


def register() -> None:
    """Wait for lm_eval, or patch it if it is loaded; a second call changes nothing."""
    if os.environ.get(SWITCH) == "0":
        return
    if not any(hasattr(finder, _MARK) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
    module = sys.modules.get(TARGET)
    if module is not None and hasattr(module, "TaskManager"):
        patch(module)


def patch(module: "ModuleType") -> None:
    """Patch the module's `TaskManager`; a failure is a warning."""
    try:
        _patch_init(module.TaskManager)
        _patch_match_tasks(module.TaskManager)
    except Exception:  # noqa: BLE001  (lm_eval must work without us)
        _warn()


def _patch_after_execution(loader: "Any") -> None:
    execute: Callable[[ModuleType], None] = loader.exec_module

    def exec_module(module: "ModuleType") -> None:
        execute(module)
        if module.__name__ == TARGET:
            patch(module)

    loader.exec_module = exec_module


def _finds_ours(manager: "Any", initialise: "Callable[..., None]") -> bool:
    """Whether a manager without any path finds our tasks, as one does that reads entry points."""
    probe = manager.__new__(manager)
    initialise(probe, include_path=None, include_defaults=False)
    return TASK in getattr(probe, "all_tasks", ())


def _patch_init(manager: "Any") -> None:
    import functools
    import inspect

    original: Callable[..., None] = manager.__init__
    if hasattr(original, _MARK):
        return
    signature = inspect.signature(original)
    missing = {"include_path", "include_defaults"} - set(signature.parameters)
    if missing:
        raise TypeError(f"TaskManager has no parameter {', '.join(sorted(missing))}")

    @functools.cache
    def finds_ours() -> bool:
        return _finds_ours(manager, original)

    @functools.wraps(original)
    def __init__(self: "Any", *args: "Any", **kwargs: "Any") -> None:  # noqa: N807
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:
            original(self, *args, **kwargs)  # raises its own message
            return
        bound.apply_defaults()
        given = bound.arguments["include_path"]
        if bound.arguments["include_defaults"] and not finds_ours():
            bound.arguments["include_path"] = _with_ours(given)
        original(*bound.args, **bound.kwargs)
        self.include_path = given

    setattr(__init__, _MARK, True)
    manager.__init__ = __init__


def _with_ours(given: "Any") -> "list[str | Path]":
    """Our directory followed by the user's paths; without ours where one of theirs contains it."""
    from pathlib import Path

    from lm_eval_tofu.tasks import TASKS_DIR

    paths = list(given) if isinstance(given, list | tuple) else [given] if given else []
    ours = TASKS_DIR.resolve()
    held = any(ours.is_relative_to(Path(path).resolve()) for path in paths)
    return paths if held else [TASKS_DIR, *paths]


def _patch_match_tasks(manager: "Any") -> None:
    import functools

    original: Callable[..., list[str]] = manager.match_tasks
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def match_tasks(self: "Any", *args: "Any", **kwargs: "Any") -> "list[str]":
        matched = original(self, *args, **kwargs)
        _check_early(self, matched)
        return matched

    setattr(match_tasks, _MARK, True)
    manager.match_tasks = match_tasks


def _check_early(manager: "Any", matched: "list[str]") -> None:
    """Check options and references now: lm_eval's command line matches task names before it loads the model."""
    metadata = getattr(manager, "metadata", None)
    names = [name for name in matched if not _is_the_users(manager, name)]
    if metadata and any(name.startswith("tofu") for name in names):
        from lm_eval_tofu.tasks.task import preflight

        preflight(names, metadata)


def _is_the_users(manager: "Any", name: str) -> bool:
    """Whether a user's own task replaces ours of that name."""
    if not name.startswith("tofu"):
        return False
    from pathlib import Path

    from lm_eval_tofu.tasks import TASKS_DIR

    path = getattr(getattr(manager, "task_index", {}).get(name), "yaml_path", None)
    return path is not None and TASKS_DIR.resolve() not in Path(path).resolve().parents


def _warn() -> None:
    """Log an exception that was caught; lm_eval is in use here, so logging is imported anyway."""
    import logging

    logging.getLogger("lm_eval_tofu").warning(
        "the TOFU tasks may be missing or unchecked: lm-eval-tofu does not fit this lm_eval; "
        'pass --include_path "$(lm-eval-tofu tasks-path)"',
        exc_info=True,
    )


register()
