"""What the report says where arms were not evaluated alike, are not what they claim to be, or share a folder."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import made_results as made
import pytest

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.fingerprints import weights_fingerprint
from lm_eval_tofu.report import card, load, render
from lm_eval_tofu.report.arms import Results

RECALL, LOGPROB = "tofu_novel_recall", "tofu_answer_logprob"
DOCUMENTS = len(made.FAMILIES["tofu_novel_recall"]) * len(made.rows())


def loaded(folder: Path, *names: str) -> Results:
    return load.load({name: folder / name for name in names})


def warnings(folder: Path, *names: str) -> str:
    return "\n".join(loaded(folder, *names).warnings)


def rename(folder: Path, stem: str) -> None:
    """As `--output_path STEM.json` names the results, and with samples beside them."""
    for file in folder.rglob("results_*.json"):
        file.rename(file.with_name(file.name.replace("results", stem, 1)))


def test_another_number_of_samples_is_refused(tmp_path: Path) -> None:
    """Of more samples more leak, in any model."""
    task = "tofu_best_of_n"
    for name, number in (("retain", 4), ("unlearned", 32)):
        options = {"forget_split": "forget10", "best_of_n": number, "forget_rows": None}
        made.write(tmp_path / name, tasks=(task,), arm={"options": options})
    with pytest.raises(OptionError) as caught:
        loaded(tmp_path, "retain", "unlearned")
    assert str(caught.value) == (
        f"'retain' and 'unlearned' were asked {task} with other best_of_n (4; 32): evaluate both with the same "
        "best_of_n, set by best_of_n in --metadata"
    )


def test_another_limit_on_new_tokens_is_refused(tmp_path: Path) -> None:
    for name, limit in (("retain", 8), ("unlearned", 200)):
        made.write(tmp_path / name, tasks=(RECALL,), arm={"generation": {"do_sample": False, "max_gen_toks": limit}})
    with pytest.raises(OptionError, match=r"with other token limit \(8; 200\): evaluate both with the same"):
        loaded(tmp_path, "retain", "unlearned")


def test_other_generation_arguments_are_warned_of(tmp_path: Path) -> None:
    other = {"do_sample": False, "max_gen_toks": 200, "until": ["."]}
    made.write(tmp_path / "full", tasks=(RECALL,), arm={"generation": other})
    made.write(tmp_path / "retain", tasks=(RECALL,))
    assert "decoding until differs (. in full; <|im_end|> in retain; set by --gen_kwargs)" in warnings(
        tmp_path, "full", "retain"
    )
    text = render.write(
        [f"{name}={tmp_path / name}" for name in ("full", "retain")], tmp_path / "out"
    ).markdown.read_text()
    assert "greedy, at most 200 tokens, until '.'" in text
    assert text.count("greedy, at most 200 tokens, until ") == 2


def test_a_setting_that_differs_in_one_task_is_named_once(tmp_path: Path) -> None:
    for name, dtype in (("full", "float32"), ("retain", "bfloat16"), ("unlearned", "bfloat16")):
        made.write(tmp_path / name, tasks=(RECALL, LOGPROB), arm={"weights_dtype": dtype})
    found = loaded(tmp_path, "full", "retain", "unlearned").warnings
    assert [text for text in found if "dtype" in text] == [
        "dtype differs (float32 in full; bfloat16 in retain, unlearned; set by dtype in --model_args): evaluate the "
        "arms alike before you read anything into small differences"
    ]


@pytest.mark.parametrize("of", ["weights", "losses"])
def test_an_arm_that_is_the_full_arm(tmp_path: Path, of: str) -> None:
    def losses(task: str, sample: dict[str, Any]) -> None:
        sample["answer_logprob"]["losses"] = {"answer": 0.5 + sample["answer_logprob"]["index"]}

    for name in ("full", "unlearned"):
        if of == "weights":
            made.write(tmp_path / name, tasks=(RECALL,), arm={"weights": "files:1234"})
        else:
            made.write(tmp_path / name, tasks=(LOGPROB,), change=losses, arm={"weights": None})
    [warning] = loaded(tmp_path, "full", "unlearned").warnings
    expected = {
        "weights": "arm 'unlearned' is a model of the same weights as the full arm: was the adapter loaded (peft=",
        "losses": f"arm 'unlearned' equals the full arm's in every row of {LOGPROB}: was the adapter loaded (peft=",
    }
    assert warning.startswith(expected[of])


def test_two_audited_arms_of_one_model_are_no_mistake(tmp_path: Path) -> None:
    for name in ("hf", "vllm"):
        made.write(tmp_path / name, tasks=(RECALL,), arm={"weights": "files:1234"})
    assert loaded(tmp_path, "hf", "vllm").warnings == []


def test_an_adapter_is_shown_with_its_base(tmp_path: Path) -> None:
    made.write(tmp_path / "full", tasks=(RECALL,), model="models/full")
    made.write(tmp_path / "unlearned", tasks=(RECALL,), model="models/full", arm={"adapter": "peft=ad"})
    written = render.write([f"{name}={tmp_path / name}" for name in ("full", "unlearned")], tmp_path / "out")
    for file in (written.markdown, written.html):
        assert "models/full + peft=ad" in file.read_text(encoding="utf-8")


def test_results_of_an_adapter_are_those_of_its_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    adapter = tmp_path / "ad"
    adapter.mkdir()
    for name in ("config.json", "adapter_config.json"):
        (adapter / name).write_text("{}")
    (adapter / "README.md").write_text("---\ntags: []\n---\n")
    made.write(tmp_path / "own", tasks=(RECALL,), model="models/full", arm={"adapter": f"peft={adapter}"})
    text = card.fill_in(adapter, [str(tmp_path / "own")]).read_text(encoding="utf-8")
    assert "make sure that this is the same model" not in caplog.text
    assert "--model_args pretrained=BASE_MODEL,peft=PATH_OR_HUB_ID,dtype=float32" in text


def test_a_card_knows_its_results_by_the_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = tmp_path / "moved"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    weights = weights_fingerprint(checkpoint)
    # Evaluated under another name, before it was moved; another arm without a role stands beside it.
    made.write(tmp_path / "own", tasks=(RECALL,), model="models/npo", arm={"weights": weights})
    made.write(tmp_path / "other", tasks=(RECALL,), model="models/other")
    arms = [f"{name}={tmp_path / name}" for name in ("other", "own")]
    text = card.fill_in(checkpoint, arms).read_text(encoding="utf-8")
    assert "make sure that this is the same model" not in caplog.text
    assert "| figure | n | this model | other |" in text
    # At its own path, and trained again since.
    made.write(tmp_path / "stale", tasks=(RECALL,), model=str(checkpoint))
    with pytest.raises(OptionError, match=r"are of other weights than .*moved has now: evaluate the checkpoint again"):
        card.fill_in(checkpoint, [f"unlearned={tmp_path / 'stale'}"])


def test_runs_about_some_rows_are_named_beside_others(tmp_path: Path) -> None:
    """A run with forget_rows is left out; the report says so although the arm has another task."""
    made.write(tmp_path / "unlearned", tasks=(LOGPROB,))
    made.write(tmp_path / "unlearned", tasks=(RECALL,), limit=4, time="2026-01-03T00-00-00.000001")
    [file] = tmp_path.rglob("results_2026-01-03*.json")
    content = json.loads(file.read_text())
    content["configs"][RECALL]["metadata"]["forget_rows"] = "0-3"
    file.write_text(json.dumps(content))
    [warning] = loaded(tmp_path, "unlearned").warnings
    assert warning.startswith(f"arm 'unlearned' has runs of {RECALL} about some rows only (option forget_rows)")
    # A run on all rows beside it is what counts, and nothing is missing.
    made.write(tmp_path / "unlearned", tasks=(RECALL,))
    assert loaded(tmp_path, "unlearned").warnings == []


class TestFolders:
    """Several runs in one place."""

    def test_results_of_any_stem_are_read(self, tmp_path: Path) -> None:
        made.write(tmp_path / "full", tasks=(RECALL,), says=made.gold)
        rename(tmp_path, "anything")
        [arm] = loaded(tmp_path, "full").arms
        assert len(arm.runs[RECALL].samples or ()) == DOCUMENTS

    def test_two_models_in_one_folder_are_refused(self, tmp_path: Path) -> None:
        """As `--output_path j/full.json` and `--output_path j/retain.json` leave them."""
        for name, time in (("full", made.TIME), ("retain", "2026-01-03T00-00-00.000001")):
            made.write(tmp_path / name, tasks=(RECALL,), model=f"models/{name}", time=time)
            rename(tmp_path / name, name)
            for file in (tmp_path / name).rglob("*_20*"):
                (tmp_path / "j").mkdir(exist_ok=True)
                file.rename(tmp_path / "j" / file.name)
        with pytest.raises(OptionError, match="holds results of several models") as error:
            loaded(tmp_path, "j")
        assert "models/full in full_2026" in str(error.value)
        assert "models/retain in retain_2026" in str(error.value)
        # One of the files is one model's, with its own samples.
        [file] = (tmp_path / "j").glob("full_*.json")
        [arm] = load.load({"full": file}).arms
        assert (arm.runs[RECALL].settings.name, len(arm.runs[RECALL].samples or ())) == ("models/full", DOCUMENTS)

    @pytest.mark.parametrize("change", [{"subfolder": "b"}, {"revision": "b"}, {"adapter": "peft=b"}])
    def test_two_models_under_one_name_are_refused(self, tmp_path: Path, change: dict[str, str]) -> None:
        for weights, more in (("files:1", {}), ("files:2", change)):
            made.write(
                tmp_path / "s",
                tasks=(RECALL,),
                arm={"weights": weights, **more},
                time=f"2026-01-0{weights[-1]}T00-00-00",
            )
        with pytest.raises(OptionError, match=r"several models .*b"):
            loaded(tmp_path, "s")

    def test_the_newest_of_a_models_runs_counts(self, tmp_path: Path) -> None:
        """Trained again at the same path: the older run of the task is not used."""
        made.write(
            tmp_path / "s", tasks=(RECALL,), arm={"weights": "files:1"}, time="2026-01-01T00-00-00", says=made.gold
        )
        made.write(tmp_path / "s", tasks=(RECALL,), arm={"weights": "files:2"}, time="2026-01-02T00-00-00")
        [arm] = loaded(tmp_path, "s").arms
        assert arm.runs[RECALL].settings.weights == "files:2"

    def test_one_model_by_two_paths_is_one(self, tmp_path: Path) -> None:
        for model, day in (("models/npo", 1), ("/home/me/models/npo", 2)):
            time = f"2026-01-0{day}T00-00-00"
            made.write(tmp_path / "s", tasks=(RECALL,), model=model, arm={"weights": "files:1"}, time=time)
        [arm] = loaded(tmp_path, "s").arms
        assert arm.runs[RECALL].settings.model == "/home/me/models/npo"

    def test_tasks_of_other_weights_are_no_arm(self, tmp_path: Path) -> None:
        """One task before the model was trained again, one after."""
        made.write(tmp_path / "s", tasks=(RECALL,), arm={"weights": "files:1"}, time="2026-01-01T00-00-00")
        made.write(tmp_path / "s", tasks=(LOGPROB,), arm={"weights": "files:2"}, time="2026-01-02T00-00-00")
        with pytest.raises(
            OptionError, match=r"several models .*weights: files:2, files:1\): .* trained again must be evaluated again"
        ):
            loaded(tmp_path, "s")

    def test_results_of_another_version_are_refused(self, tmp_path: Path) -> None:
        made.write(tmp_path / "s", tasks=(RECALL,))
        [file] = tmp_path.rglob("results_*.json")
        content = json.loads(file.read_text())
        content["configs"][RECALL]["arm"]["format"] = 0
        file.write_text(json.dumps(content))
        with pytest.raises(OptionError, match=f"does not say how {RECALL} was run, as results of another version"):
            loaded(tmp_path, "s")


def test_tokens_of_another_tokenizer_are_warned_of(tmp_path: Path) -> None:
    """The same text, other token ids: special tokens of another tokenizer."""

    def tokens(text: str) -> Any:
        return lambda task, sample: sample["leak_rate"].update(tokens=text)

    made.write(tmp_path / "full", tasks=(RECALL,), change=tokens("0:aa"))
    made.write(tmp_path / "retain", tasks=(RECALL,), change=tokens("0:bb"))
    assert f"was asked {DOCUMENTS} of {DOCUMENTS} documents with another prompt or other token ids" in warnings(
        tmp_path, "full", "retain"
    )


def test_tokens_are_compared_without_samples_too(tmp_path: Path) -> None:
    for name, tokens in (("full", "aa"), ("retain", "bb")):
        made.write(tmp_path / name, tasks=(RECALL,), samples=name == "full", arm={"tokens": tokens})
    [warning] = loaded(tmp_path, "full", "retain").warnings
    assert warning.startswith(f"{RECALL}: arm 'retain' was asked documents with another prompt or other token ids than")


def test_every_setting_of_a_made_run_is_a_real_one(tmp_path: Path) -> None:
    """The made results hold the record that the tasks write: same fields, readable."""
    made.write(tmp_path / "full", tasks=(RECALL,))
    settings = loaded(tmp_path, "full").arms[0].runs[RECALL].settings
    assert dataclasses.asdict(settings)["weights"].startswith("files:")
