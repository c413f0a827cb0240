"""lm-eval's private parts that the tasks rely on: every one of them exists in the installed version."""

import importlib
import inspect
from importlib.util import find_spec

import pytest

from lm_eval_tofu.tasks import harness
from lm_eval_tofu.tasks.task import TofuTask


@pytest.mark.parametrize("name", harness.RELIED_ON)
def test_every_private_part_exists(name: str) -> None:
    """A class's attribute may be set by its methods, also those of its bases."""
    module_name, _, path = name.partition(":")
    if module_name == "lm_eval.models.vllm_causallms" and not find_spec("vllm"):
        pytest.skip("vllm is not installed")
    module = importlib.import_module(module_name)
    if path.endswith(")"):
        function, _, local = path.removesuffix(")").partition("(")
        assert local in inspect.signature(getattr(module, function)).parameters
        return
    owner, _, attribute = path.partition(".")
    found = getattr(module, owner)
    if attribute and not hasattr(found, attribute):
        sources = [inspect.getsource(each) for each in found.__mro__ if each is not object]
        assert any(f"self.{attribute}" in source for source in sources)


def test_every_method_of_lm_eval_that_the_task_replaces_is_listed() -> None:
    base = TofuTask.__mro__[1]
    ours = {name for name in vars(TofuTask) if not name.startswith("_") and hasattr(base, name)}
    listed = {name.rpartition(".")[2] for name in harness.RELIED_ON if ".task:" in name}
    assert ours - {"aggregate"} <= listed  # lm-eval 0.5 has that one
