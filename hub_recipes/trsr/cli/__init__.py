"""The command line `trsr VERB`; each verb is a module of this package.

The docstring of a verb is its help: `trsr --help` shows the first line, `trsr VERB --help` all of it. `add` declares the
options, `run` acts on them and imports what it needs.
"""

import argparse
import contextlib
import os
import sys
import warnings

from trsr import __version__
from trsr.cli import (
    audit,
    base,
    check,
    compare,
    demo,
    doctor,
    evaluate,
    pretrain,
    publish,
    quickstart,
    recipes,
    recommend,
    retrieve,
    summarize,
    train,
    train_summarizer,
    verify,
)
from trsr.cli.exits import Exit, exit_codes_for_errors, exit_quietly_on_broken_pipe
from trsr.cli.outcome import Outcome
from trsr.cli.progress import readable_progress

# In the usual order of use.
VERBS = {
    "quickstart": quickstart,
    "check": check,
    "summarize": summarize,
    "audit": audit,
    "recipes": recipes,
    "base": base,
    "train": train,
    "evaluate": evaluate,
    "train-summarizer": train_summarizer,
    "retrieve": retrieve,
    "compare": compare,
    "publish": publish,
    "verify": verify,
    "recommend": recommend,
    "demo": demo,
    "doctor": doctor,
    "pretrain": pretrain,
}


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keep the line breaks of docstrings, and show each verb and its summary on one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=24, width=120)
        self._action_max_length = 4 + max(map(len, VERBS))  # argparse does not count the indentation of verbs


def command_line() -> argparse.ArgumentParser:
    """The parser of all verbs and their options; it sets `act` to the `run` of the chosen verb."""
    parser = argparse.ArgumentParser(
        prog="trsr",
        description="LLM-TRSR: text-rich sequential recommendation with LLM summaries.",
        epilog="Examples and options of a verb: trsr VERB --help\n\nExit codes: 0 success, 1 problems found, 2 user error, 3 summaries incomplete, 4 disk full, 70 bug, 130 Ctrl-C.",
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"trsr {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        about = (verb.__doc__ or name).strip().replace("%", "%%")
        verb_parser = verbs.add_parser(
            name,
            help=about.splitlines()[0],
            description=about,
            formatter_class=_Help,
        )
        verb.add(verb_parser)
        verb_parser.set_defaults(act=verb.run)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run a verb. For its exit codes see `trsr.cli.exits`."""
    parser = command_line()
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    # Data loaders fork after tokenizers have used threads, which is harmless here but causes a warning.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # No progress bar for each file: the steps have bars of their own.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if not sys.warnoptions:
        # Calls inside peft and TRL, which their next versions replace.
        warnings.filterwarnings("ignore", r"`(is_)?gradient_checkpointing(_enable)?` is deprecated", FutureWarning)
    with exit_codes_for_errors(), exit_quietly_on_broken_pipe():
        if code := _run(options):
            sys.exit(code)


def _run(options: argparse.Namespace) -> Exit:
    for_scripts = getattr(options, "json", False)
    # With --json, stdout holds the JSON object alone; all other output goes to stderr.
    redirect = contextlib.redirect_stdout(sys.stderr) if for_scripts else contextlib.nullcontext()
    with readable_progress(), redirect:
        outcome: Outcome | None = options.act(options)
    if outcome is None:
        return Exit.SUCCESS
    if text := outcome.json() if for_scripts else outcome.text:
        print(text)
    return outcome.exit
