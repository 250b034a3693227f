"""Run a verb as a Hugging Face Job. Its working folder is synced with a bucket, so that it outlives the job.

The folder is copied to the disk of the job, and back while the verb runs. A mounted bucket does not work: it supports
neither locks nor appending, which the summary store and the partial scores of an evaluation need.
"""

import argparse
import os
import re
import runpy
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from trsr import cli
from trsr.errors import TrsrError

NOT_COPIED = ["*.sqlite", "*.sqlite-*", "*.sqlite.kept-*"]  # a copy of a database that is being written may be corrupt


def run(verb: str | None, about: str, arguments: Sequence[str] | None = None) -> None:
    """Run the command line of a job: its own options, and those of `verb`, which are parsed before anything is copied.

    Args:
        verb: Of `trsr`; None runs a script, such as those of dataset_scripts/, with the arguments that follow its name.
        about: The job's docstring, shown by --help and --dry-run.
    """
    parser = argparse.ArgumentParser(
        description=about,
        epilog=f"All other arguments are those of: {f'trsr {verb}' if verb else 'the script, named first'}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--bucket", required=True, help="bucket that the folder is synced with: ORG/NAME or ORG/NAME/FOLDER"
    )
    parser.add_argument("--folder", type=Path, default=Path("trsr-job"), help="working folder here (%(default)s)")
    parser.add_argument("--every", type=float, default=10, help="minutes between two copies (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
    options, verb_arguments = parser.parse_known_args(arguments)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(/.+)?", options.bucket):
        parser.error(f"--bucket takes ORG/NAME or ORG/NAME/FOLDER, got {options.bucket!r}")
    # Arguments that name existing files are relative to the current folder, all other paths to the working folder.
    verb_arguments = [_from_here(argument) for argument in verb_arguments if argument != "--"]
    if not verb and not (verb_arguments and verb_arguments[0].endswith(".py") and Path(verb_arguments[0]).is_file()):
        parser.error("name a script first, such as dataset_scripts/tables.py")
    verb_options = (
        cli.command_line().parse_args([verb, *verb_arguments])
        if verb
        else argparse.Namespace(verb=None, script=verb_arguments)
    )
    if options.dry_run:
        try:
            print(plan(verb_options, options.bucket, options.every, about))
        except TrsrError as error:
            parser.exit(2, f"error: {error}\n")
        return
    from huggingface_hub import HfApi

    # A job that is stopped still makes its last copy.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with synced_folder(options.bucket, options.folder, options.every, HfApi()):
        os.chdir(options.folder)
        if verb:
            cli.main([verb, *verb_arguments])
        else:
            sys.argv = verb_arguments
            runpy.run_path(verb_arguments[0], run_name="__main__")


def _from_here(argument: str) -> str:
    """An argument, VALUE or --OPTION=VALUE, with the whole path of VALUE if that is a file here.

    A word without separator and suffix stays a word, though a file may be called so.
    """
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    if Path(value).name == value and not Path(value).suffix:
        return argument
    # Not Path.is_file, which raises an error for a text that is too long for a name.
    return f"{option}{equals}{Path(value).resolve()}" if os.path.isfile(value) else argument


def plan(verb_options: argparse.Namespace, bucket: str, every: float, about: str) -> str:
    """Describe what a job would do. Reads the recipe of `train`, and no other file."""
    lines = [
        about.strip(),
        "",
        f"folder: hf://buckets/{bucket}, copied here, and back every {every:g} minutes and at the end",
        f"token: HF_TOKEN is {'set' if os.environ.get('HF_TOKEN') else 'not set'}",
        f"verb: trsr {verb_options.verb}" if verb_options.verb else "script, with its arguments:",
    ]
    lines += [f"  {name}: {value}" for name, value in vars(verb_options).items() if name not in ("verb", "act")]
    if verb_options.verb == "train":
        import yaml

        from trsr.recommender.recipe import load_recipe

        recipe = load_recipe(verb_options.recipe, verb_options.overrides)
        lines += [f"run folder: {verb_options.out or Path('runs') / recipe.name}", "recipe:"]
        lines += [f"  {line}" for line in yaml.safe_dump(recipe.to_dict(), sort_keys=False).splitlines()]
    return "\n".join([*lines, "dry run: nothing was done"])


@contextmanager
def synced_folder(bucket: str, folder: Path, minutes: float, api) -> Iterator[None]:
    """Copy the bucket to `folder`; copy the folder back every `minutes` minutes and at the end, also after an error.

    Nothing is ever deleted in the bucket. Use one job per folder: of two, the last writer wins.

    Args:
        bucket: ORG/NAME or ORG/NAME/FOLDER; created as private if missing.
        api: A `huggingface_hub.HfApi`.
    """
    from huggingface_hub.errors import EntryNotFoundError

    remote, folder = f"hf://buckets/{bucket}", folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    api.create_bucket("/".join(bucket.split("/")[:2]), private=True, exist_ok=True)
    try:
        api.sync_bucket(remote, str(folder))
    except EntryNotFoundError:
        print(f"{remote} is empty so far.")
    for copy in folder.rglob("*.sqlite.kept"):
        if not copy.with_suffix("").exists():
            copy.rename(copy.with_suffix(""))

    def copy_back() -> None:
        for path in folder.rglob("*.sqlite"):
            with closing(sqlite3.connect(path)) as base, closing(sqlite3.connect(f"{path}.kept")) as copy:
                base.backup(copy)
        api.sync_bucket(str(folder), remote, exclude=NOT_COPIED, quiet=True)

    stop = threading.Event()
    copier = threading.Thread(target=_repeat, args=(copy_back, stop, minutes * 60), daemon=True)
    copier.start()
    try:
        yield
    finally:
        stop.set()
        copier.join()
        copy_back()


def _repeat(copy_back: Callable[[], None], stop: threading.Event, seconds: float) -> None:
    while not stop.wait(seconds):
        try:
            copy_back()
        except Exception as error:
            # A file was removed meanwhile, or the network failed: the next copy may succeed; the last one raises.
            print(f"Not copied to the bucket this time: {error}", file=sys.stderr)
