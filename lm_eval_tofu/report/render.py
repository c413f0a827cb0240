"""Writes the report: `report.html`, one page that needs nothing else, `report.md`, and the figures as files."""

import argparse
import base64
import contextlib
import hashlib
import html
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_tofu import __version__, files
from lm_eval_tofu.arm import ArmSettings
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.metrics.inference import ALPHA
from lm_eval_tofu.report import audits, formatting, leaks, load, sweeps, tables
from lm_eval_tofu.report.leaks import visible
from lm_eval_tofu.report.verdicts import LEVEL, Verdict, verdicts

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"
FIGURES = "figures"

_MARKDOWN = re.compile(r"([\\`*_\[\]#|~$])")  # dollars begin mathematics on some sites
# Sites make links of bare addresses; escaping does not stop that, a character reference does.
_AUTOLINK = re.compile(r":(?=//)|www\.|@", re.IGNORECASE)
_CHARACTER = {":": "&#58;", ".": "&#46;", "@": "&#64;"}
_LONGEST_IN_MARKDOWN = 400


class Written(NamedTuple):
    """The report's files."""

    html: Path  # the page
    markdown: Path  # the same as Markdown
    warnings: list[str]  # what differs between the arms
    verdicts: list[Verdict]  # of each audited arm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `lm-eval-tofu report`."""
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULTS",
        help="results of lm_eval for one arm each, as name=path or a path; or a YAML file of `name: path`. "
        "base, full, retain and unlearned are names with a meaning",
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("report"), metavar="DIR", help="default: report")
    parser.add_argument("--sweep", type=Path, metavar="DIR", help="a sweep's directory, with its selection.json")
    parser.add_argument("--title", default="Unlearning report", help="heading (default: %(default)s)")


def run(args: argparse.Namespace) -> Written:
    """Read, compute, draw and write; see `write`."""
    return write(args.results, args.output, sweep=args.sweep, title=args.title)


def write(
    results: Sequence[str], output: Path, *, sweep: Path | None = None, title: str = "Unlearning report"
) -> Written:
    """Write the report on any number of arms.

    Args:
        results: As `lm_eval_tofu.report.load.parse_arms` takes them.
        output: Directory; an older report in it is replaced.
        sweep: A sweep's directory, or its `selection.json`.
        title: Heading.

    Raises:
        OptionError: Something cannot be read, compared or written; the message says what to do.
    """
    if output.exists() and not output.is_dir():
        raise OptionError(f"--output {output} is a file: name a directory")
    loaded = load.load(load.parse_arms(results))
    content = tables.build(loaded, None if sweep is None else sweeps.sweep_points(sweep, loaded))
    from lm_eval_tofu.report import figures

    drawn = figures.draw(content)
    values = _values(content, drawn, title)
    folder = output / FIGURES
    for name in set(figures.NAMES) - {figure.name for figure in drawn}:
        for suffix in (".svg", ".png"):
            with contextlib.suppress(OSError):  # of an older report that had more
                (folder / f"{name}{suffix}").unlink()
    for figure in drawn:
        write_output(folder / f"{figure.name}.svg", figure.svg.encode())
        write_output(folder / f"{figure.name}.png", figure.png)
    page, markdown = output / "report.html", output / "report.md"
    write_output(markdown, encoded(render("report.md.j2", values)))
    write_output(page, encoded(render("report.html.j2", values)))
    log.info("%s: %d arms, %d figures", page, len(content.results.arms), len(drawn))
    return Written(page, markdown, content.results.warnings, values["verdicts"])


def write_output(path: Path, content: bytes, option: str = "--output") -> None:
    """Write a file whole or not at all, with an error that names the option."""
    try:
        files.write_bytes(path, content)
    except OSError as error:
        raise OptionError(f"{option} {path} cannot be written ({error}): name another place") from error


def encoded(text: str) -> bytes:
    """UTF-8, with a question mark for half a character, as byte-level tokenizers can leave it."""
    return text.encode("utf-8", "replace")


def render(name: str, values: Mapping[str, Any]) -> str:
    """Fill in a template. Everything is escaped, and characters that hide or reverse text are replaced."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters["md"] = markdown_text
    shown = (formatting.text, formatting.excess, formatting.excess_unit, formatting.limits, formatting.excess_limits)
    environment.globals |= {function.__name__: function for function in shown}
    environment.globals |= {"level": LEVEL, "alpha": ALPHA, "is_nan": lambda value: value != value}
    return environment.get_template(name).render(values)


def markdown_text(value: str, longest: int = _LONGEST_IN_MARKDOWN) -> Any:
    """A text as one line of Markdown that shows exactly that text."""
    from markupsafe import Markup

    line = " ".join(leaks.shortened(visible(str(value)), longest).split())
    escaped = _MARKDOWN.sub(r"\\\1", html.escape(line, quote=False))
    return Markup(_AUTOLINK.sub(lambda match: match[0][:-1] + _CHARACTER[match[0][-1]], escaped))


def _values(content: tables.Tables, drawn: Sequence[Any], title: str) -> dict[str, Any]:
    from markupsafe import Markup

    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    results = content.results
    settings = {
        label: {
            arm.name: ", ".join(sorted({shown(run.settings) for run in arm.runs.values()} - {""})) or "–"
            for arm in results.arms
        }
        for label, shown in _SETTINGS.items()
    }
    return {
        "title": title,
        "version": __version__,
        "tables": content,
        "verdicts": verdicts(content),
        "tests": {arm.name: tables.tested(content.main, arm.name) for arm in results.audited},
        "results": results,
        "arms": [arm.name for arm in results.arms],
        "figures": drawn,
        # Our own drawings and files: the only things that are not escaped.
        "svg": {figure.name: Markup(figure.inline) for figure in drawn},
        "style": Markup(style),
        "script": Markup(script),
        "digest": digest,
        "leaks": leaks.clearest(results),
        "settings": settings,
        "counted": audits.COUNTED,
        "family_titles": {audit.task: audit.families for audit in audits.AUDITS},
    }


_SETTINGS: Mapping[str, Callable[[ArmSettings], str]] = {
    "model": lambda run: run.name,
    "weights (fingerprint)": lambda run: run.weights or "",
    "backend": lambda run: run.backend,
    "dtype": lambda run: run.weights_dtype or "not known",
    "softmax dtype": lambda run: run.softmax_dtype or "",
    "quantization": lambda run: run.quantization or "",
    "batch size": lambda run: run.batch_size or "",
    "chat template (hash)": lambda run: run.chat_template or "none",
    "template arguments": lambda run: ", ".join(f"{key}={value}" for key, value in run.chat_template_args.items()),
    "system prompt": lambda run: run.system_prompt or "none",
    "decoding": lambda run: run.decoding if run.generation else "",
    "data": lambda run: f"{run.data} ({run.data_fingerprint})",
    "versions": lambda run: ", ".join(f"{key} {value}" for key, value in run.versions.items()),
}
"""The rows of the table of conditions and their values; empty ones are left out."""
