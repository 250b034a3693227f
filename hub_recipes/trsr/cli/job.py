"""Run a verb as a Hugging Face Job, in a working folder that is kept in a bucket and so outlasts the job.

The folder is copied to the job's disk, and back while the verb goes on. A mounted bucket would not do: it takes neither
locks nor appending, which the store of summaries and the scores of a killed evaluation need.
"""

import argparse
import os
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

NOT_COPIED = ["*.sqlite", "*.sqlite-*", "*.sqlite.kept-*"]  # a copy made while they are written to may be broken


def run(verb: str | None, about: str, arguments: Sequence[str] | None = None) -> None:
    """The command line of a job: its own options, and those of `verb`, which are checked before anything is copied.

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
    parser.add_argument("--bucket", required=True, help="where the folder is kept: ORG/NAME or ORG/NAME/FOLDER")
    parser.add_argument("--folder", type=Path, default=Path("trsr-job"), help="working folder here (%(default)s)")
    parser.add_argument("--every", type=float, default=10, help="minutes between two copies (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    options, rest = parser.parse_known_args(arguments)
    # Files are named from here, all that the verb reads and writes from the working folder.
    rest = [str(Path(one).resolve()) if Path(one).is_file() else one for one in rest if one != "--"]
    if not verb and not (rest and rest[0].endswith(".py") and Path(rest[0]).is_file()):
        parser.error("name a script first, such as dataset_scripts/tables.py")
    asked = cli.command_line().parse_args([verb, *rest]) if verb else argparse.Namespace(verb=None, script=rest)
    if options.dry_run:
        try:
            print(plan(asked, options.bucket, options.every, about))
        except TrsrError as error:
            parser.exit(2, f"error: {error}\n")
        return
    from huggingface_hub import HfApi

    # A job that is stopped still makes its last copy.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with kept(options.bucket, options.folder, options.every, HfApi()):
        os.chdir(options.folder)
        if verb:
            cli.main([verb, *rest])
        else:
            sys.argv = rest
            runpy.run_path(rest[0], run_name="__main__")


def plan(asked: argparse.Namespace, bucket: str, every: float, about: str) -> str:
    """What a job would do, as text; a recipe is read, nothing else is."""
    lines = [
        about.strip(),
        "",
        f"folder: hf://buckets/{bucket}, copied here, and back every {every:g} minutes and at the end",
        f"token: HF_TOKEN is {'set' if os.environ.get('HF_TOKEN') else 'not set'}",
        f"verb: trsr {asked.verb}" if asked.verb else "script, with its arguments:",
    ]
    lines += [f"  {name}: {value}" for name, value in vars(asked).items() if name not in ("verb", "act")]
    if asked.verb == "train":
        import yaml

        from trsr.recommender.recipe import load_recipe

        recipe = load_recipe(asked.recipe, asked.overrides)
        lines += [f"run folder: {asked.out or Path('runs') / recipe.name}", "recipe:"]
        lines += [f"  {line}" for line in yaml.safe_dump(recipe.to_dict(), sort_keys=False).splitlines()]
    return "\n".join([*lines, "dry run: nothing was done"])


@contextmanager
def kept(bucket: str, folder: Path, minutes: float, api) -> Iterator[None]:
    """Fill `folder` from the bucket, and copy it back every so many minutes and at the end, however that comes.

    Nothing is ever deleted in the bucket. One job a folder: of two, the last writer wins.

    Args:
        bucket: ORG/NAME or ORG/NAME/FOLDER; made, private, if missing.
        api: A `huggingface_hub.HfApi`.
    """
    from huggingface_hub.errors import EntryNotFoundError

    there, folder = f"hf://buckets/{bucket}", folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    api.create_bucket("/".join(bucket.split("/")[:2]), private=True, exist_ok=True)
    try:
        api.sync_bucket(there, str(folder))
    except EntryNotFoundError:
        print(f"Nothing is kept in {there} so far.")
    for copy in folder.rglob("*.sqlite.kept"):
        if not copy.with_suffix("").exists():
            copy.rename(copy.with_suffix(""))

    def copy_back() -> None:
        for path in folder.rglob("*.sqlite"):
            with closing(sqlite3.connect(path)) as base, closing(sqlite3.connect(f"{path}.kept")) as copy:
                base.backup(copy)
        api.sync_bucket(str(folder), there, exclude=NOT_COPIED, quiet=True)

    done = threading.Event()
    copier = threading.Thread(target=_repeat, args=(copy_back, done, minutes * 60), daemon=True)
    copier.start()
    try:
        yield
    finally:
        done.set()
        copier.join()
        copy_back()


def _repeat(copy_back: Callable[[], None], done: threading.Event, seconds: float) -> None:
    while not done.wait(seconds):
        try:
            copy_back()
        except Exception as error:
            # A file that is gone by now, or the network: the next copy may succeed, and the last one raises.
            print(f"Not copied to the bucket this time: {error}", file=sys.stderr)
