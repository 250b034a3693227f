"""Serve the page of the Space on this machine, for the recommender in the package, a run or a release.

Each step of the page is also an endpoint for gradio_client and, with gradio[mcp], a tool of an MCP server. A run after
`trsr retrieve fuse`, or a release with a catalogue, recommends from it; --retriever gives any of them one. For the recommender in
the package a small retriever is trained on its sample, once.

examples:
  trsr demo
  trsr demo runs/mine --retriever runs/retriever
  trsr demo trsr-quickstart/release --port 7861
"""

import argparse
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trsr.cli.numbers import port
from trsr.errors import UsageError

SAMPLE_EPOCHS = 8  # of the retriever on the sample


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        type=Path,
        help="run or release folder; the code of a release is executed (default: the recommender in the package)",
    )
    parser.add_argument(
        "--retriever",
        type=Path,
        metavar="DIR",
        help="recommend from the catalogue of this retriever, on the same dataset",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=port, default=7860, help="(%(default)s)")


def run(options: argparse.Namespace) -> None:
    _need_gradio()
    retriever = options.retriever
    if options.model is None and retriever is None:
        retriever = sample_retriever()
    demo(options.model, retriever, server_name=options.host, server_port=options.port)


def demo(folder: Path | None = None, retriever: Path | None = None, **options) -> Any:
    """Serve the page until it is stopped; with the option `prevent_thread_lock` of gradio, return at once.

    Args:
        folder: Of a run, or of a release, whose code is executed; None for the recommender and the sample in the package.
        retriever: Of a retriever on the same dataset; default, the catalogue that run or release carries, if it does.
        options: For gradio's `launch`, such as `server_port`.

    Raises:
        UsageError: If gradio is not installed, or `folder` is neither a run nor a release.
        RunError: If there is no retriever, or it was trained on another dataset.
    """
    _need_gradio()
    from trsr.dataset import contract
    from trsr.hub import spaces
    from trsr.recommender.run import Run, is_finished
    from trsr.recommender.serving import load_recommender
    from trsr.retrieval.carried import catalogue_of, catalogue_of_run, keep_weight_if_same_retriever, record_of

    release = describe(folder)
    if (dataset := release.get("dataset", "")) and Path(dataset).is_dir():
        configs = [config for config in ("items", "histories") if config in contract.configs(dataset)]
        release["dataset_caches"] = {config: contract.cache_of(dataset, config) for config in configs}
    pipe: Any = None  # None: the page loads the pipeline of the release
    if folder is None or is_finished(folder) or retriever:
        pipe = load_recommender(str(folder) if folder else None, device="cpu")
    if retriever and folder and is_finished(folder):
        pipe.catalogue = catalogue_of_run(Run.read(folder), retriever)
    elif retriever and not release.get("dataset"):
        raise UsageError(f"{folder} has no folder dataset/, which has the texts of a catalogue. Leave out --retriever.")
    elif retriever:
        pipe.catalogue = keep_weight_if_same_retriever(catalogue_of(retriever, release["dataset"]), record_of(pipe))
    space = spaces.space_folder()
    sys.path.insert(0, str(space))  # as on a Space: its files import one another by name
    return runpy.run_path(str(space / "app.py"))["launch"](release, pipe, **options)


def sample_retriever() -> Path:
    """The folder of a small retriever on the sample in the package. It is trained the first time, and kept."""
    from huggingface_hub.constants import HF_HOME

    from trsr.records.checksums import PREFIX, dataset_checksum
    from trsr.retrieval.run import train_retriever
    from trsr.retrieval.training import Settings

    # Named by the data, for another sample needs another retriever.
    name = dataset_checksum("sample", configs=("items", "histories")).removeprefix(PREFIX)[:16]
    folder = Path(HF_HOME) / "trsr" / "demo" / name
    train_retriever("sample", folder, width=64, layers=1, settings=Settings(epochs=SAMPLE_EPOCHS))
    return folder


def _need_gradio() -> None:
    if find_spec("gradio") is None:
        raise UsageError("The page needs gradio. Install it: pip install 'llm-trsr[demo]'")


def describe(folder: Path | None) -> dict[str, Any]:
    """The content of `recommender.json` for a run, a release folder, or the package. Raises ValueError as `demo`."""
    from trsr.assets.paths import NANO, base_path, dataset_path
    from trsr.dataset import contract
    from trsr.recommender.run import Run, is_finished
    from trsr.records.cards import header_of

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
        "license": header_of(card).get("license") if card.is_file() else None,
    }
    if Path(dataset).is_dir():
        terms = contract.provenance(dataset).terms
        description |= {"dataset": dataset, "dataset_license": terms.license_name or terms.license}
    return description
