"""The page of the Space, served here: over the recommender in the package, or over a release folder. Needs no network."""

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load
from transformers import pipeline

from trsr.assets.paths import NANO, TASK, dataset_path
from trsr.dataset import contract
from trsr.errors import UsageError
from trsr.hub import spaces


def demo(folder: Path | None = None, **options) -> Any:
    """Serve the page until it is stopped, or at once return it, with gradio's `prevent_thread_lock`.

    Args:
        folder: A release folder, with `pipeline` and `dataset` in it, whose code is run; None for the recommender and
            the sample in the package.
        options: For gradio's `launch`, such as `server_port`.

    Raises:
        ValueError: If gradio is not installed, or `folder` is no release folder.
    """
    if find_spec("gradio") is None:
        raise UsageError("The page needs gradio. Install it: pip install 'llm-trsr[demo]'")
    release = describe(folder)
    pipe = pipeline(TASK, model=str(NANO / "pipeline"), device="cpu") if folder is None else None  # type: ignore[call-overload]
    space = spaces.space_folder()
    sys.path.insert(0, str(space))  # as on a Space, whose files import one another by name
    return runpy.run_path(str(space / "app.py"))["launch"](release, pipe, **options)


def describe(folder: Path | None) -> dict[str, Any]:
    """What `recommender.json` would say of a release folder, or of the package. Raises ValueError as `demo`."""
    if folder is not None and not (folder / "pipeline" / "config.json").is_file():
        raise UsageError(
            f"{folder} is no release folder: it has no pipeline/config.json. "
            "`trsr quickstart` writes one; without a folder, the recommender in the package is shown."
        )
    model = NANO if folder is None else folder.resolve()
    dataset = dataset_path("sample") if folder is None else str(model / "dataset")
    card = model / "base" / "README.md"
    found: dict[str, Any] = {
        "model": str(model / "pipeline"),
        "license": (metadata_load(card) or {}).get("license") if card.is_file() else None,
    }
    if Path(dataset).is_dir():
        terms = contract.Terms.of(contract.provenance(dataset))
        found |= {"dataset": dataset, "dataset_license": terms.license_name or terms.license}
    return found
