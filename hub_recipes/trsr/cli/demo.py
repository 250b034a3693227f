"""Serve the page of the Space on this machine, for the recommender in the package, a run or a release.

Each step of the page is also an endpoint for gradio_client and, with gradio[mcp], a tool of an MCP server.

examples:
  trsr demo
  trsr demo runs/mine
  trsr demo trsr-quickstart/release --port 7861
"""

import argparse
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trsr.errors import UsageError


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        type=Path,
        help="run or release folder; the code of a release is executed (default: the recommender in the package)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="(%(default)s)")


def run(options: argparse.Namespace) -> None:
    demo(options.model, server_name=options.host, server_port=options.port)


def demo(folder: Path | None = None, **options) -> Any:
    """Serve the page until it is stopped; with the option `prevent_thread_lock` of gradio, return at once.

    Args:
        folder: Of a run, or of a release, whose code is executed; None for the recommender and the sample in the package.
        options: For gradio's `launch`, such as `server_port`.

    Raises:
        ValueError: If gradio is not installed, or `folder` is neither a run nor a release.
    """
    if find_spec("gradio") is None:
        raise UsageError("The page needs gradio. Install it: pip install 'llm-trsr[demo]'")
    from trsr.hub import spaces
    from trsr.recommender.run import is_finished
    from trsr.recommender.serving import load_recommender

    release = describe(folder)
    pipe = None  # None: the page loads the pipeline of the release
    if folder is None or is_finished(folder):
        pipe = load_recommender(str(folder) if folder else None, device="cpu")
    space = spaces.space_folder()
    sys.path.insert(0, str(space))  # as on a Space: its files import one another by name
    return runpy.run_path(str(space / "app.py"))["launch"](release, pipe, **options)


def describe(folder: Path | None) -> dict[str, Any]:
    """The content of `recommender.json` for a run, a release folder, or the package. Raises ValueError as `demo`."""
    from huggingface_hub import metadata_load

    from trsr.assets.paths import NANO, base_path, dataset_path
    from trsr.dataset import contract
    from trsr.recommender.run import Run, is_finished

    if folder is not None and is_finished(folder):
        recipe = Run.read(folder).recipe
        model, base, dataset = folder.resolve(), Path(base_path(recipe.base)), dataset_path(recipe.dataset)
    elif folder is not None and not (folder / "pipeline" / "config.json").is_file():
        raise UsageError(
            f"{folder} is no finished run and no release folder: it has neither run.json nor pipeline/config.json. "
            "`trsr quickstart` writes both; without a folder, the recommender in the package is shown."
        )
    else:
        release_folder = NANO if folder is None else folder.resolve()
        model, base = release_folder / "pipeline", release_folder / "base"
        dataset = dataset_path("sample") if folder is None else str(release_folder / "dataset")
    card = base / "README.md"
    description: dict[str, Any] = {
        "model": str(model),
        "license": (metadata_load(card) or {}).get("license") if card.is_file() else None,
    }
    if Path(dataset).is_dir():
        terms = contract.provenance(dataset).terms
        description |= {"dataset": dataset, "dataset_license": terms.license_name or terms.license}
    return description
