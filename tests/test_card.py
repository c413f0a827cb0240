"""The model card: what the hub reads, what a person reads, and what of an older card is kept."""

import itertools
import json
import logging
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import made_results as made
import pytest
from huggingface_hub import ModelCard

from lm_eval_tofu import cli, tofu
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.report import card, formatting, load, tables
from lm_eval_tofu.unlearn import card as first_card
from lm_eval_tofu.whitebox import VERSIONS

RECORD = {
    "method": "npo",
    "options": {
        "model": "/home/someone/models/full",
        "forget_split": "forget10",
        "epochs": 5,
        "learning_rate": 2e-05,
        "alpha": 2.0,
        "beta": 0.1,
        "lora_r": None,
    },
    "data": {"source": "mini"},
    "effective_batch": 32,
    "weights": "f998ed78",
    "apply_chat_template": True,
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    made.write(folder / "full", model="models/full", says=made.gold, ratios=lambda row: 0.1)
    made.write(folder / "retain", model="models/retain")
    made.write(
        folder / "unlearned", model="models/npo", says=lambda row, family: made.gold(row, family) if row < 9 else ""
    )
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint as training leaves it, with the card of its base's licence."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: other\nlicense_name: llama3.2\nbase_model: org/base\n---\n# Base\n")
    path = tmp_path / "npo"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "unlearning.json").write_text(json.dumps(RECORD))
    about = {"model": str(base), "data": first_card.MINIATURE, "summary": "Made.", "settings": {"a": 1}}
    first_card.write(path, title="npo", **about, tags=["unlearning", "npo"])
    return path


def _given(results: Path) -> list[str]:
    return [f"{name}={results / name}" for name in ("unlearned", "retain", "full")]


def _card(checkpoint: Path) -> Any:
    return ModelCard.load(checkpoint / "README.md")


def test_the_hub_can_read_the_results(checkpoint: Path, results: Path) -> None:
    assert card.fill_in(checkpoint, _given(results)) == checkpoint / "README.md"
    data = _card(checkpoint).data
    built = tables.build(load.load(load.parse_arms(_given(results))))
    expected = {
        row.key: cell.value
        for row in built.main
        if (cell := row.cells["unlearned"]) is not None and cell.value == cell.value
    }
    assert {each.metric_type: each.metric_value for each in data.eval_results} == pytest.approx(expected)
    assert {"forget_quality", "model_utility", "novel_recall", "logprob_shift"} <= set(expected)
    assert "probe" not in expected  # not evaluated
    assert {each.dataset_type for each in data.eval_results} == {"lm-eval-tofu-mini"}
    assert {each.task_type for each in data.eval_results} == {"text-generation"}
    [model] = data.to_dict()["model-index"]
    assert model["name"] == "npo"
    assert sum(len(result["metrics"]) for result in model["results"]) == len(expected)


def test_a_reference_arms_results_are_not_the_checkpoints(checkpoint: Path, results: Path) -> None:
    with pytest.raises(OptionError, match=r"names retain, and none of them is plainly .*npo: give its own results as"):
        card.fill_in(checkpoint, [f"retain={results / 'retain'}"])


def test_a_fine_tuned_model_forgot_nothing(checkpoint: Path, results: Path) -> None:
    record = {"method": "finetune", "options": {"model": "org/base", "split": "full"}}
    (checkpoint / "unlearning.json").write_text(json.dumps(record))
    card.fill_in(checkpoint, _given(results))
    text = _card(checkpoint).text
    assert "base, fine-tuned on full of the TOFU miniature." in text
    assert "made to forget" not in text


def test_the_hub_gets_no_p_value_of_a_part_of_the_rows(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("retain", "unlearned"):
        made.write(tmp_path / "part" / name, limit=5)
        [path] = (tmp_path / "part" / name).rglob("results_*.json")
        content = json.loads(path.read_text())
        content["n-samples"]["tofu_forget_quality"]["original"] = 40
        path.write_text(json.dumps(content))
    card.fill_in(checkpoint, [f"{name}={tmp_path / 'part' / name}" for name in ("unlearned", "retain")])
    kinds = {each.metric_type for each in _card(checkpoint).data.eval_results}
    assert "novel_recall" in kinds
    assert not kinds & {"forget_quality", "ks_statistic"}


def test_what_training_knew_is_kept(checkpoint: Path, results: Path) -> None:
    before = _card(checkpoint).data.to_dict()
    card.fill_in(checkpoint, _given(results))
    after = _card(checkpoint).data.to_dict()
    assert before["license_name"] == "llama3.2"
    assert "datasets" not in after  # the miniature is not on the hub
    assert {name: after[name] for name in before} == before


def test_the_text_has_training_results_loading_limits_and_citation(checkpoint: Path, results: Path) -> None:
    card.fill_in(checkpoint, _given(results))
    text = _card(checkpoint).text
    for heading in ("Results", "Training", "How to load it", "Limits", "Citation"):
        assert text.count(f"\n## {heading}\n") == 1
    assert "| learning rate | 2e-05 |" in text
    assert "| fingerprint of the weights | f998ed78 |" in text
    assert "| started from | full |" in text  # not the folder on this machine
    assert "/home/someone" not in text
    assert "LoRA" not in text
    assert "zhang2024npo" in text
    assert first_card.CLOSING not in text
    built = tables.build(load.load(load.parse_arms(_given(results))))
    cell = next(row for row in built.main if row.key == "novel_recall").cells["unlearned"]
    assert cell is not None
    [line] = [line for line in text.splitlines() if line.startswith("| Novel-recall leak |")]
    assert formatting.text(cell.value, "share") in line
    assert formatting.text(cell.excess, "share_points", sign=True) in line
    assert "100.0 %" in line  # the full arm beside it


def test_filling_in_again_changes_nothing(checkpoint: Path, results: Path) -> None:
    path = card.fill_in(checkpoint, _given(results))
    first = path.read_text(encoding="utf-8")
    card.fill_in(checkpoint, _given(results))
    assert path.read_text(encoding="utf-8") == first


def test_the_data_that_training_named_stays(checkpoint: Path, results: Path) -> None:
    """A model that was trained on TOFU and evaluated on the miniature."""
    about = {"title": "npo", "model": None, "summary": "Made.", "settings": {}, "tags": []}
    first_card.write(checkpoint, **about, data=first_card.dataset(tofu.resolve_source("locuslab/TOFU")))
    card.fill_in(checkpoint, _given(results))
    assert _card(checkpoint).data.datasets == ["locuslab/TOFU"]


def test_a_card_for_adapters(checkpoint: Path, results: Path) -> None:
    """`unlearn --no-lora-merge` writes no model, and its checkpoint has a card too."""
    (checkpoint / "config.json").rename(checkpoint / "adapter_config.json")
    card.fill_in(checkpoint, _given(results))
    assert "These are LoRA adapters" in _card(checkpoint).text
    (checkpoint / "README.md").unlink()
    card.fill_in(checkpoint, _given(results))
    assert _card(checkpoint).data.library_name == "peft"


def test_what_the_user_wrote_is_kept(checkpoint: Path, results: Path) -> None:
    path = card.fill_in(checkpoint, _given(results))
    text = path.read_text(encoding="utf-8")
    text = text.replace("# npo\n", "# My model\n\nMy words before.\n").rstrip() + "\n\nMy words after.\n"
    path.write_text(text.replace("language: en", "language: en\nextra: kept"), encoding="utf-8")
    card.fill_in(checkpoint, [f"unlearned={results / 'full'}", f"retain={results / 'retain'}"])
    after = path.read_text(encoding="utf-8")
    assert after.count("My words before.") == after.count("My words after.") == after.count(card.BEGIN) == 1
    assert "extra: kept" in after
    assert "(D = 1.000, n = 120, log10 p = " in after  # the new results
    results_by_name = {each.metric_type: each.metric_value for each in _card(checkpoint).data.eval_results}
    assert results_by_name["novel_recall"] == 1


def test_a_card_of_the_users_own_gets_our_part_at_its_end(checkpoint: Path, results: Path) -> None:
    other = (
        "model-index:\n- name: mine\n  results:\n  - task:\n      type: text-generation\n    dataset:\n      type: mmlu"
    )
    other += "\n      name: MMLU\n    metrics:\n    - type: acc\n      value: 0.5\n"
    (checkpoint / "README.md").write_text(f"---\nlicense: mit\n{other}---\n# Mine\n\nAll my own.\n", encoding="utf-8")
    card.fill_in(checkpoint, _given(results))
    loaded = _card(checkpoint)
    assert loaded.text.strip().startswith("# Mine\n\nAll my own.\n\n<!-- lm-eval-tofu")
    assert loaded.data.license == "mit"
    assert loaded.data.model_name == "mine"
    kept = [each for each in loaded.data.eval_results if each.dataset_type == "mmlu"]
    assert [each.metric_value for each in kept] == [0.5]
    assert len(loaded.data.eval_results) > 5


def test_a_checkpoint_without_card_and_record(tmp_path: Path, results: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    card.fill_in(tmp_path, [str(results / "unlearned")])
    loaded = _card(tmp_path)
    assert "no record of its training" in loaded.text
    assert "zhang2024npo" not in loaded.text
    assert loaded.data.datasets is None
    # Without a retain arm forget quality is NaN, which the hub could not read.
    assert "forget_quality" not in {each.metric_type for each in loaded.data.eval_results}


@pytest.mark.parametrize("source", [None, "someone/other"])
def test_results_on_the_real_data_are_named_so(
    checkpoint: Path, results: Path, tmp_path: Path, source: str | None
) -> None:
    shutil.copytree(results / "unlearned", tmp_path / "real")
    [file] = (tmp_path / "real").rglob("results_*.json")
    content = json.loads(file.read_text())
    for config in content["configs"].values():
        config["metadata"]["tofu"] = source
    file.write_text(json.dumps(content))
    for samples in (tmp_path / "real").rglob("samples_*.jsonl"):  # questions that are not the miniature's
        lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            line["doc"]["question"] += " Say it."
        samples.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    record = {**RECORD, "data": {"source": "locuslab/TOFU"}}
    (checkpoint / "unlearning.json").write_text(json.dumps(record))
    card.fill_in(checkpoint, [str(tmp_path / "real")])
    data = _card(checkpoint).data
    [name] = {(each.dataset_type, each.dataset_name, each.source_url) for each in data.eval_results}
    expected = source or "locuslab/TOFU"
    assert name == (expected, f"{source or 'TOFU'} (forget10)", f"https://huggingface.co/datasets/{expected}")
    assert data.datasets == [expected]
    assert "miniature" not in _card(checkpoint).text


def _edited(folder: Path, source: Path, change: Any) -> Path:
    """A copy of results with another content of their file."""
    shutil.copytree(source, folder)
    for file in folder.rglob("results_*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        change(content)
        file.write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_the_miniature_is_known_without_its_name(checkpoint: Path, results: Path, tmp_path: Path) -> None:
    """The data came through the environment variable, so no option names them; nor does the record."""

    def unnamed(content: dict[str, Any]) -> None:
        for config in content["configs"].values():
            del config["metadata"]["tofu"]

    own = _edited(tmp_path / "own", results / "unlearned", unnamed)
    (checkpoint / "unlearning.json").write_text(json.dumps({**RECORD, "data": None}))
    card.fill_in(checkpoint, [str(own)])
    data = _card(checkpoint).data
    found = {(each.dataset_type, each.dataset_name, each.source_url) for each in data.eval_results}
    assert found == {
        ("lm-eval-tofu-mini", "TOFU miniature (forget10)", "https://pypi.org/project/lm-eval-tofu/"),
    }
    assert data.datasets is None
    assert "not TOFU itself" in _card(checkpoint).text
    for samples in own.rglob("samples_*.jsonl"):  # then the training's record decides
        samples.unlink()
    (checkpoint / "unlearning.json").write_text(json.dumps(RECORD))
    card.fill_in(checkpoint, [str(own)])
    assert {each.dataset_type for each in _card(checkpoint).data.eval_results} == {"lm-eval-tofu-mini"}


def test_metrics_have_their_unit_and_number(checkpoint: Path, results: Path, tmp_path: Path) -> None:
    shutil.copytree(results / "unlearned", tmp_path / "own")
    relearn = {
        "results": {"tofu_relearn": {"recovery_delta": 7.5, "n": 27}},
        "versions": {"tofu_relearn": VERSIONS["tofu_relearn"]},
    }
    (tmp_path / "own" / "results_9.json").write_text(json.dumps(relearn))
    card.fill_in(checkpoint, [f"unlearned={tmp_path / 'own'}", f"retain={results / 'retain'}"])
    found = {each.metric_type: each for each in _card(checkpoint).data.eval_results}
    assert found["relearn"].metric_name == "Relearning, recovery (percentage points, n = 27)"
    assert found["forget_quality"].metric_name == "Forget quality (n = 120)"
    assert found["best_of_n"].metric_name.startswith("Best-of-4 leak (n = ")
    assert found["model_utility"].dataset_config is None
    assert found["forget_quality"].dataset_config == "forget10_perturbed"


def test_the_command_gives_the_cards_figures_again(checkpoint: Path, results: Path, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for config in content["configs"].values():
            config["metadata"] |= {
                "tofu": "/data/mine",
                "pretrained": "/models/m",
                "families": "direct,paraphrased",
                "best_of_n_temperature": 0.7,
                "retain_reference": "/home/me/retain",
                "full_reference": "/home/me/full",
                "chat_template_args": {"date_string": "1 May"},
            }
            config["arm"]["system_prompt"] = "Don't ``` stop."

    card.fill_in(checkpoint, [str(_edited(tmp_path / "own", results / "unlearned", change))])
    text = _card(checkpoint).text
    command = text.partition("````bash\n")[2].partition("````")[0] if "````bash" in text else ""
    words = shlex.split(command)
    assert words[words.index("--tasks") + 1] == "tofu_*"
    assert words[words.index("--system_instruction") + 1] == "Don't ``` stop."
    assert words[words.index("--model_args") + 1] == "pretrained=PATH_OR_HUB_ID,dtype=float32"
    assert json.loads(words[words.index("--metadata") + 1]) == {
        "forget_split": "forget10",
        "tofu": "DIRECTORY_OF_THE_DATA",
        "families": "direct,paraphrased",
        "best_of_n": 4,
        "best_of_n_temperature": 0.7,
        "retain_reference": "RESULTS_OF_THE_RETAIN_ARM",
        "full_reference": "RESULTS_OF_THE_FULL_ARM",
        "chat_template_args": {"date_string": "1 May"},
    }
    assert not any(place in text for place in ("/home/me", "/data/mine", "/models/m"))


@pytest.mark.parametrize("place", ["backend", "system_instruction", "families", "template", "split"])
def test_no_word_of_a_results_file_is_run_by_the_shell(
    checkpoint: Path, results: Path, tmp_path: Path, place: str
) -> None:
    """Results may come from others: whatever they hold reaches lm_eval as the text that it is."""
    hostile = f"x'; touch {tmp_path / 'run'}; $(touch {tmp_path / 'run'}) `touch {tmp_path / 'run'}` & \"\\\n> y"

    def change(content: dict[str, Any]) -> None:
        if place == "backend":
            content["config"]["model"] = hostile
        if place == "system_instruction":
            content["system_instruction"] = hostile
        for config in content["configs"].values():
            arm = config.get("arm", {})
            if place == "backend" and arm:
                arm["backend"] = hostile
            if place == "system_instruction" and arm:
                arm["system_prompt"] = hostile
            if place in ("families", "split"):
                config["metadata"] |= {"families": hostile, "best_of_n_prompts": hostile}
            if place == "template":
                config["metadata"] |= {"chat_template_args": {hostile: hostile}}

    card.fill_in(checkpoint, [str(_edited(tmp_path / "own", results / "unlearned", change))])
    text = _card(checkpoint).text
    fence = next(line for line in text.splitlines() if line.endswith("bash")).removesuffix("bash")
    command = text.partition(f"{fence}bash\n")[2].partition(f"\n{fence}")[0]
    script = f"lm_eval() {{ printf '%s\\0' \"$@\"; }}\n{command}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert not (tmp_path / "run").exists()
    words = done.stdout.split("\0")
    assert words[0] == "--model"
    given = dict(itertools.pairwise(words))
    shown = {
        "backend": given["--model"],
        "system_instruction": given.get("--system_instruction"),
        "families": json.loads(given["--metadata"]).get("families"),
        "template": json.loads(given["--metadata"]).get("chat_template_args"),
        "split": json.loads(given["--metadata"]).get("best_of_n_prompts"),
    }[place]
    assert shown == ({hostile: hostile} if place == "template" else hostile)


def test_an_option_is_that_of_the_task_that_follows_it(checkpoint: Path, tmp_path: Path) -> None:
    made.write(tmp_path / "own", tasks=("tofu_forget_quality",), time="2026-01-01")
    made.write(tmp_path / "own", tasks=("tofu_best_of_n",), time="2026-01-02", arm={"batch_size": "3"})
    for file in (tmp_path / "own").rglob("results_2026-01-01.json"):
        content = json.loads(file.read_text())
        content["configs"]["tofu_forget_quality"]["metadata"]["best_of_n"] = 99
        file.write_text(json.dumps(content))
    card.fill_in(checkpoint, [str(tmp_path / "own")])
    text = _card(checkpoint).text
    assert '"best_of_n": 4' in text
    assert "--tasks tofu_forget_quality,tofu_best_of_n" in text
    [line] = [line for line in text.splitlines() if line.startswith("Evaluated with ")]
    versions = "lm-eval 0.4.13, transformers 5.19.0, torch 2.13.0"
    assert line.replace("\\", "") == (
        f"Evaluated with hf, float32, batch size 16, {versions} (tofu_forget_quality); "
        f"hf, float32, batch size 3, {versions} (tofu_best_of_n)."
    )


def test_retain_rows_and_system_prompt_are_shown(checkpoint: Path, results: Path) -> None:
    options = {**RECORD["options"], "retain_rows": [0, 1, 2, 7, 9, 8], "system_prompt": "Be brief."}
    (checkpoint / "unlearning.json").write_text(json.dumps({**RECORD, "options": options}))
    card.fill_in(checkpoint, _given(results))
    assert "| retain rows | 0-2,7-9 |\n| system prompt | Be brief. |\n" in _card(checkpoint).text


def test_what_merging_lost_is_shown(checkpoint: Path, results: Path) -> None:
    (checkpoint / "unlearning.json").write_text(json.dumps({**RECORD, "merge": {"update_error": 0.6861}}))
    card.fill_in(checkpoint, _given(results))
    assert "| relative error of the merged update | 0.69 |" in _card(checkpoint).text


@pytest.mark.parametrize(
    "words", [f"{card.END}\n\nMine.\n\n{card.BEGIN}\n\nMy end.", f"Mine.\n\n{card.BEGIN}\n\nMy end."]
)
def test_comments_in_another_order_lose_nothing(checkpoint: Path, results: Path, words: str) -> None:
    path = checkpoint / "README.md"
    path.write_text(f"# My model\n\n{words}\n", encoding="utf-8")
    for _ in range(2):
        card.fill_in(checkpoint, _given(results))
        text = path.read_text(encoding="utf-8")
        assert text.count("Mine.") == text.count("My end.") == text.count("\n## Results\n") == 1


def test_warns_where_the_results_are_of_another_model(
    checkpoint: Path, results: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        card.fill_in(checkpoint, _given(results))
    assert "the results are of models/npo" in caplog.text
    caplog.clear()
    made.write(tmp_path / "own", model="m", tasks=("tofu_novel_recall",))
    [file] = (tmp_path / "own").rglob("results_*.json")
    content = json.loads(file.read_text())
    content["configs"]["tofu_novel_recall"]["arm"]["model"] = str(checkpoint)
    file.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        # Found by its path, although other arms without a role stand beside it.
        card.fill_in(checkpoint, [f"mine={tmp_path / 'own'}", f"other={results / 'full'}"])
    assert "the results are of" not in caplog.text


def test_refusals_name_the_fix(
    checkpoint: Path, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        assert cli.main(["card", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.splitlines()[-1].startswith("lm-eval-tofu: error: ")
        return error

    own = str(results / "unlearned")
    before = (checkpoint / "README.md").read_bytes()
    (tmp_path / "empty").mkdir()
    assert "holds no model (config.json) and no adapters (adapter_config.json)" in refused(
        str(tmp_path / "empty"), "--results", own
    )
    assert "--results empty=" in refused(str(checkpoint), "--results", str(tmp_path / "empty"))
    assert "give its own results as unlearned=path" in refused(
        str(checkpoint), "--results", f"full={results / 'full'}", f"retain={results / 'retain'}"
    )
    shutil.copytree(results / "unlearned", tmp_path / "cut")
    file = max((tmp_path / "cut").rglob("samples_*.jsonl"))
    file.write_bytes(file.read_bytes()[:-40])
    assert f"{file}, line " in refused(str(checkpoint), "--results", str(tmp_path / "cut"))
    assert (checkpoint / "README.md").read_bytes() == before
    (checkpoint / "unlearning.json").write_text("{")
    assert "unlearning.json: not JSON" in refused(str(checkpoint), "--results", own)
    (checkpoint / "unlearning.json").write_text('{"options": ["a"]}')
    assert "'options' is no mapping" in refused(str(checkpoint), "--results", own)
    (checkpoint / "unlearning.json").write_text("{}")
    (checkpoint / "README.md").write_text("---\n- a list\n---\n")
    assert "README.md cannot be read" in refused(str(checkpoint), "--results", own)
    (checkpoint / "README.md").write_text("---\na: [b\n---\n")
    assert "README.md cannot be read" in refused(str(checkpoint), "--results", own)


def test_hostile_names_stay_text(checkpoint: Path, results: Path) -> None:
    card.fill_in(checkpoint, [f"unlearned={results / 'unlearned'}", f"<script> | *x*={results / 'full'}"])
    text = _card(checkpoint).text
    assert "<script>" not in text
    assert r"| &lt;script&gt; \| \*x\* |" in text


def test_help_of_both_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for command, option in (("report", "--sweep"), ("card", "--results")):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        assert option in capsys.readouterr().out
