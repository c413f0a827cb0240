"""Stands for a run in the tests of the queue: notes that it began, takes a while, writes results in lm_eval's form."""

import json
import os
import sys
import time
from pathlib import Path

from lm_eval_tofu.unlearn import child

folder = Path(sys.argv[1])
sweep = folder.parent.parent
child.end_with_parent()
point = json.loads((folder / "run.json").read_text())["point"]
with (sweep / "begun").open("a") as file:
    file.write(f"{folder.name} {os.getpid()}\n")
time.sleep(float(json.loads((sweep / "sweep.json").read_text())["training"].get("pause", 0)))
fails = sweep / "fail"
if fails.exists() and folder.name in fails.read_text():
    sys.exit("the disk is full")
(folder / "model").mkdir(exist_ok=True)
results = folder / "results" / "model"
results.mkdir(parents=True)
quality = {"forget_quality,none": point["beta"] / 10, "ks_statistic,none": 1 - point["beta"]}
content = {"tofu_forget_quality": quality, "tofu_model_utility": {"model_utility,none": point["epochs"] / 100}}
(results / "results_1.json").write_text(json.dumps({"results": content}))
