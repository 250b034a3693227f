"""`trsr VERB`: a file a verb.

A verb's docstring is its help: the first line stands in `trsr --help`, all of it in `trsr VERB --help`. `add` declares its
options, `run` acts on them, and what it needs is imported only then.
"""

import argparse
import contextlib
import os
import sys
import warnings

from trsr import __version__
from trsr.cli import (
    audit,
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
    summarize,
    train,
)
from trsr.cli.exits import Exit, ended, quiet_without_reader
from trsr.cli.outcome import Outcome
from trsr.cli.progress import readable_progress

# In the order in which they are used.
VERBS = {
    "quickstart": quickstart,
    "check": check,
    "summarize": summarize,
    "audit": audit,
    "recipes": recipes,
    "train": train,
    "evaluate": evaluate,
    "compare": compare,
    "publish": publish,
    "recommend": recommend,
    "demo": demo,
    "doctor": doctor,
    "pretrain": pretrain,
}


class _Help(argparse.RawDescriptionHelpFormatter):
    """Docstrings as they are written, verbs and what they do side by side."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=24, width=120)
        self._action_max_length = 4 + max(map(len, VERBS))  # argparse forgets that verbs are indented


def command_line() -> argparse.ArgumentParser:
    """All verbs and their options; what a verb does is the `act` of what is read."""
    parser = argparse.ArgumentParser(
        prog="trsr",
        description="LLM-TRSR: text-rich sequential recommendation with LLM summaries.",
        epilog="Examples and options of a verb: trsr VERB --help\n\nIts exit code: 0 done, 1 done and something is wrong, 2 a mistake, 3 open questions, 4 a full disk, 130 Ctrl-C.",
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"trsr {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        about = (verb.__doc__ or name).strip().replace("%", "%%")
        one = verbs.add_parser(
            name,
            help=about.splitlines()[0],
            description=about,
            formatter_class=_Help,
        )
        verb.add(one)
        one.set_defaults(act=verb.run)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run a verb. How it may end: `trsr.cli.exits`."""
    parser = command_line()
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    # Workers of tokenizers and data loaders fork; the warning about it helps nobody here.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # A bar for each file that is read or written says nothing beside those of the steps.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if not sys.warnoptions:
        # peft's and TRL's own calls, which their next versions mend.
        warnings.filterwarnings("ignore", r"`(is_)?gradient_checkpointing(_enable)?` is deprecated", FutureWarning)
    with ended(), quiet_without_reader():
        if code := _run(options):
            sys.exit(code)


def _run(options: argparse.Namespace) -> Exit:
    for_scripts = getattr(options, "json", False)
    # Whatever a verb says on its way is not for the script.
    aside = contextlib.redirect_stdout(sys.stderr) if for_scripts else contextlib.nullcontext()
    with readable_progress(), aside:
        outcome: Outcome | None = options.act(options)
    if outcome is None:
        return Exit.DONE
    if told := outcome.json() if for_scripts else outcome.text:
        print(told)
    return outcome.exit
