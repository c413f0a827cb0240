"""Reduces open-unlearning's logs to their numbers, which `tests/reference/open_unlearning.json` contains.

    python tools/reference_figures.py LOGS > tests/reference/open_unlearning.json

LOGS is a directory with `fixed.json` and `as_published.json`, two `TOFU_EVAL.json` of the same model (see
`tests/reference/README.md`). Texts (prompts, answers, generations) are left out; per-row values become lists in row
order.
"""

import argparse
import json
from pathlib import Path
from typing import Any

VALUES = ("avg_loss", "score", "prob", "rougeL_recall")


def reduce_log(log: dict[str, Any]) -> dict[str, Any]:
    """The numbers of one log: `agg_value` of each metric and its per-row values.

    Probabilities of single answers are left out: they are exp(-avg_loss), and their mean is the `agg_value`.
    """
    reduced: dict[str, Any] = {}
    for metric, content in log.items():
        rows = content.get("value_by_index", {})
        ordered = [rows[index] for index in sorted(rows, key=int)]
        assert list(map(str, range(len(rows)))) == sorted(rows, key=int), metric
        columns = [name for name in VALUES if ordered and name in ordered[0]]
        if "avg_loss" in columns:
            columns = ["avg_loss"]
        reduced[metric] = {"agg_value": content["agg_value"]}
        for column in columns:
            reduced[metric][column] = [_short(row[column]) for row in ordered]
    return reduced


def _short(value: Any) -> Any:
    """Nine significant digits tell every float32 from its neighbours."""
    return [_short(each) for each in value] if isinstance(value, list) else float(f"{value:.9g}")


def main() -> None:
    """Print the reduced logs as JSON, one metric a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path)
    arguments = parser.parse_args()
    blocks = []
    for name in ("fixed", "as_published"):
        log = reduce_log(json.loads((arguments.logs / f"{name}.json").read_text(encoding="utf-8")))
        lines = [
            f"  {json.dumps(metric)}: {json.dumps(content, separators=(',', ':'))}" for metric, content in log.items()
        ]
        blocks.append(f'"{name}": {{\n' + ",\n".join(lines) + "\n }")
    print("{" + ",\n ".join(blocks) + "}")


if __name__ == "__main__":
    main()
