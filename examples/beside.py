"""An experiment's figures for the documents: read from its results, stored as JSON, formatted as a table."""

import json
import math
import os
import platform
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lm_eval_tofu import files

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "reproduce.md"
PACKAGES = ("lm-eval", "transformers", "torch")


def figures(arms: dict[str, Path], sweep: Path | None, minutes: float) -> dict[str, Any]:
    """What the report shows of all arms, as numbers.

    Args:
        arms: Directory of each arm's results.
        sweep: Of the runs that the audited one was selected from.
        minutes: That the whole took.

    Returns:
        Machine and versions, a row for each figure of the report's main table and of its parts, and the selected run.
    """
    from lm_eval_tofu.report import load, sweeps, tables, verdicts

    results = load.load(arms)
    content = tables.build(results, None if sweep is None else sweeps.sweep_points(sweep, results))
    found = {
        "date and machine": today_here(),
        "minutes": minutes,
        "rows": [
            {
                "key": row.key,
                "label": row.label,
                "unit": row.unit,
                "leak": row.leak,
                "arms": {name: None if cell is None else cell._asdict() for name, cell in row.cells.items()},
            }
            for row in (*content.main, *content.parts)
        ],
        "headline": [list(verdict) for verdict in verdicts.verdicts(content)],
    }
    if content.sweep is not None:
        runs = content.sweep["runs"]
        found["selected"] = {"runs": len(runs), "point": runs[0]["point"]}
    plain: dict[str, Any] = files.without_nan(json.loads(json.dumps(found, default=str)))
    return plain


def today_here() -> str:
    """Day, machine and versions, as the documents say them beside a figure."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{date.today().isoformat()}, {machine}, {packages}"


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown: a column for each arm, and the audited one's excess over the retain arm."""
    from lm_eval_tofu.report.formatting import excess_unit, span, text

    def number(value: float | None) -> float:
        return math.nan if value is None else value

    arms = list(found["rows"][0]["arms"])
    audited = [name for name in arms if name not in ("base", "full", "retain")]
    lines = [
        f"| | {' | '.join([*arms, *(f'excess of {name} over retain (95 %)' for name in audited)])} |",
        "|---" * (1 + len(arms) + len(audited)) + "|",
    ]
    for row in found["rows"]:
        cells = []
        for name in arms:
            cell = row["arms"][name]
            cells.append("–" if cell is None else text(number(cell["value"]), row["unit"]))
        for name in audited:
            cell, unit = row["arms"][name], excess_unit(row["unit"])
            excess = math.nan if cell is None or not row["leak"] else number(cell["excess"])
            between = "" if cell is None else span(number(cell["excess_low"]), number(cell["excess_high"]), unit)
            cells.append(
                "" if math.isnan(excess) else f"{text(excess, unit, sign=True)} ({between})".replace(" ()", "")
            )
        lines.append(f"| {' | '.join([row['label'], *cells])} |")
    return "\n".join(lines)


def document_text(found: dict[str, Any]) -> str:
    """What the document shows: machine, selected run, headline, table."""
    # None where a part of the experiment was not made again, so that no time of the whole is known.
    minutes = "" if found["minutes"] is None else f"; {found['minutes']:.0f} minutes for the whole"
    parts = [f"{found['date and machine']}{minutes}."]
    if "selected" in found:
        settings = ", ".join(f"{name} {value:g}" for name, value in found["selected"]["point"].items())
        parts.append(f"Selected of {found['selected']['runs']} runs: {settings}.")
    return "\n\n".join([*parts, headline(found), table(found)])


def headline(found: dict[str, Any]) -> str:
    """What the report says first of the audited arms."""
    from lm_eval_tofu.report.verdicts import Verdict

    return "\n".join(
        f"- {question} **{label}.** {words}"
        for arm, *answers in found["headline"]
        for _, question, _, label, words in Verdict(arm, *(each[:2] for each in answers[:3]), []).answers
    )


def show(marker: str, text: str, document: Path = DOCUMENT) -> None:
    """Replace what stands between the marker's two comments in a document.

    Raises:
        SystemExit: They are not there.
    """
    before, begin, rest = document.read_text(encoding="utf-8").partition(f"<!-- {marker}:begin -->\n")
    _, end, after = rest.partition(f"<!-- {marker}:end -->")
    if not (begin and end):
        sys.exit(f"{document} lacks the comments {marker}:begin and {marker}:end")
    files.write_text(document, f"{before}{begin}\n{text}\n\n{end}{after}")
