"""The tasks' options in lm-eval's metadata."""

import dataclasses
import inspect
import math
from typing import Any

import pytest

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.tasks.options import Options


def test_defaults() -> None:
    assert Options.from_metadata({}) == Options("forget10", None, None, None, None, 1e-10)
    assert Options.from_metadata({"forget_split": None, "tofu": None}) == Options()


def test_the_models_arguments_pass() -> None:
    arguments = {
        "pretrained": "m",
        "revision": "main",
        "tokenizer": "t",
        "tokenizer_revision": "r",
        "dtype": "float32",
        "max_model_len": 512,
        "gpu_memory_utilization": 0.8,
        "chat_template_args": {"date_string": "10 Apr 2025"},
        "trust_remote_code": True,
        "version": 1,
        "config_source": "x",
    }
    assert Options.from_metadata({**arguments, "forget_split": "forget05"}) == Options("forget05")


def test_every_option_is_taken() -> None:
    given = Options("forget01", "mini", "v1", "a", "b", 0.5)
    assert Options.from_metadata(dataclasses.asdict(given)) == given
    assert Options.from_metadata({"truth_ratio_eps": 0}).truth_ratio_eps == 0


def test_no_argument_of_a_backend_is_taken_for_a_misspelt_option() -> None:
    from lm_eval.models.huggingface import HFLM

    Options.from_metadata(dict.fromkeys(inspect.signature(HFLM.__init__).parameters))


def test_no_argument_of_vllm_is_taken_for_one() -> None:
    arguments = pytest.importorskip("vllm.engine.arg_utils").EngineArgs
    Options.from_metadata(dict.fromkeys(field.name for field in dataclasses.fields(arguments)))


def test_the_source() -> None:
    assert Options(tofu="mini").source.kind == "mini"
    assert str(Options(tofu="someone/TOFU", tofu_revision="v1").source) == "someone/TOFU@v1"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"forget_splits": "forget10"}, "'forget_splits' is unknown: did you mean 'forget_split'"),
        ({"retain_refrence": "x"}, "'retain_refrence' is unknown: did you mean 'retain_reference'"),
        ({"ful_reference": "x"}, "'ful_reference' is unknown: did you mean 'full_reference'"),
        ({"tofu_source": "mini"}, "'tofu_source' is unknown: the options are forget_split, tofu"),
        ({"tofu_splitt": "forget10"}, "'tofu_splitt' is unknown: the options are forget_split, tofu, tofu_revision"),
        ({"tofu_revison": "x"}, "'tofu_revison' is unknown: did you mean 'tofu_revision'"),
        ({"Forget_split": "forget10"}, "'Forget_split' is unknown: did you mean 'forget_split'"),
        ({"truth_ratio_epsilon": 0}, "'truth_ratio_epsilon' is unknown: "),
        ({"forget_split": ["forget10"]}, r"forget_split=\['forget10'\] is unknown: use one of forget01"),
        ({"forget_split": 10}, "forget_split=10 is unknown: use one of forget01"),
        ({"forget_split": "retain90"}, "forget_split='retain90' is unknown: use one of forget01"),
        ({"forget_split": "forget20"}, "forget_split='forget20' is unknown: use one of forget01, forget05, forget10"),
        ({"truth_ratio_eps": "small"}, "truth_ratio_eps='small' is no number"),
        ({"truth_ratio_eps": 2}, "truth_ratio_eps=2 is no number"),
        ({"truth_ratio_eps": 1}, r"truth_ratio_eps=1 is no number in \[0, 1\)"),
        ({"truth_ratio_eps": -1e-10}, "truth_ratio_eps=-1e-10 is no number"),
        ({"truth_ratio_eps": math.nan}, "truth_ratio_eps=nan is no number"),
        ({"truth_ratio_eps": True}, "truth_ratio_eps=True is no number"),
        ({"retain_reference": ""}, "retain_reference='' names nothing, as an unset variable does: leave it out"),
        ({"full_reference": ""}, "full_reference='' names nothing"),
        ({"tofu": ""}, "tofu='' names nothing"),
    ],
)
def test_bad_options(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        Options.from_metadata(metadata)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "meant"), [("retain", "retain_reference"), ("split", "forget_split"), ("N", "best_of_n")]
)
def test_what_may_be_another_tasks_option_is_named(key: str, meant: str, caplog: pytest.LogCaptureFixture) -> None:
    assert Options.from_metadata({key: "x"}) == Options()
    assert f"metadata key {key!r} is none of TOFU's options: did you mean {meant!r}?" in caplog.text
