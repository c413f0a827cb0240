"""The tasks' options in lm-eval's metadata."""

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


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"forget_splits": "forget10"}, "'forget_splits' is unknown: did you mean 'forget_split'"),
        ({"retain_refrence": "x"}, "'retain_refrence' is unknown: did you mean 'retain_reference'"),
        ({"ful_reference": "x"}, "'ful_reference' is unknown: did you mean 'full_reference'"),
        ({"tofu_source": "mini"}, "'tofu_source' is unknown: the options are forget_split, tofu"),
        ({"forget_split": "forget20"}, "forget_split='forget20' is unknown: use one of forget01, forget05, forget10"),
        ({"truth_ratio_eps": "small"}, "truth_ratio_eps='small' is no number"),
        ({"truth_ratio_eps": 2}, "truth_ratio_eps=2 is no number"),
        ({"truth_ratio_eps": True}, "truth_ratio_eps=True is no number"),
    ],
)
def test_bad_options(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        Options.from_metadata(metadata)
    assert "\n" not in str(caught.value)
