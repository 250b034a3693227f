"""The same recommender in forms that other engines take: one set of weights, base and adapter merged, and that as GGUF.

A GGUF file is written by llama.cpp's own converter, in a process of its own; it is named by the user.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from trsr.assets.paths import base_path
from trsr.core.modeling import PROMPT_FILE
from trsr.errors import ReleaseError
from trsr.hub import cross_encoder, licences
from trsr.hub.inputs import ReleaseInputs
from trsr.hub.processes import cause_of
from trsr.progress import without_bars

GGUF_TYPES = ("f32", "f16", "bf16", "q8_0")  # that the converter writes
SECONDS = 3600  # until the converter is given up


@dataclass(frozen=True, slots=True)
class Copies:
    """What a release holds beside the adapter.

    Attributes:
        cross_encoder: For sentence-transformers.
        merged: Base and adapter as one model.
        gguf: Types of the GGUF files, of GGUF_TYPES.
        converter: llama.cpp's `convert_hf_to_gguf.py`, or the checkout that it lies in.

    Raises:
        ReleaseError: If a type is unknown, or GGUF files are wished, and the converter is not there.
    """

    cross_encoder: bool = False
    merged: bool = False
    gguf: tuple[str, ...] = ()
    converter: Path | None = None

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.gguf if kind not in GGUF_TYPES]:
            raise ReleaseError(f"--gguf takes some of {', '.join(GGUF_TYPES)}, got {', '.join(unknown)}.")
        if self.gguf and not (self.converter and self._script().is_file()):
            raise ReleaseError(
                f"GGUF files are written by llama.cpp's own converter, and {self.converter or 'none'} is given. Say where its "
                "convert_hf_to_gguf.py is: --gguf-converter PATH. A checkout of llama.cpp holds it, and the source archive of "
                "llama-cpp-python, in vendor/llama.cpp."
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of repo, of `repos.COPIES`."""
        wished = {"cross-encoder": self.cross_encoder, "merged": self.merged, "gguf": bool(self.gguf)}
        return tuple(kind for kind, wish in wished.items() if wish)

    def _script(self) -> Path:
        assert self.converter is not None
        return self.converter / "convert_hf_to_gguf.py" if self.converter.is_dir() else self.converter

    def check_licence(
        self, read: Callable[[], str | None], base: str, accepted: bool, brings_base: bool = False
    ) -> None:
        """Raise ReleaseError where weights of a base would be published that may not be passed on as they please.

        Args:
            read: Gives the licence of the base; called only where it matters.
            brings_base: Whether the release holds the base itself, as one does whose base is in a folder.
        """
        merged = self.merged or self.gguf
        if not (merged or brings_base) or accepted or (licence := read()) in licences.FREE:
            return
        what = "Merged weights are those of the base too" if merged else "The release would hold the base itself"
        elsewhere = "" if merged else ", or name the base by its id on the Hub (base=ORG/NAME), which leaves it there"
        raise ReleaseError(
            f"{what}, {base}, and its licence ({licence or 'it states none'}) sets terms for passing weights on. Read it; with "
            f"--accept-base-licence they are published, under that licence{elsewhere}."
        )

    def write(self, draft: Path, inputs: ReleaseInputs, name: str) -> dict[str, Any]:
        """Write the folders of all copies into `draft`, which holds those of adapter and pipeline.

        Args:
            name: Of GGUF files, which end in `-TYPE.gguf`.

        Returns:
            What their cards show: `dtype` of merged weights, and names of `gguf` files.

        Raises:
            ReleaseError: If one cannot be made.
        """
        if self.cross_encoder:
            (draft / "cross-encoder").mkdir()
            for file in ("adapter_config.json", "adapter_model.safetensors"):
                shutil.copyfile(inputs.run.adapter / file, draft / "cross-encoder" / file)
            cross_encoder.write(draft / "cross-encoder", inputs.encoder)
        if not (self.merged or self.gguf):
            return {}
        with tempfile.TemporaryDirectory(dir=draft) as temporary:
            merged = draft / "merged" if self.merged else Path(temporary) / "merged"
            dtype = _merge(merged, draft / "pipeline", inputs)
            if self.gguf:
                (draft / "gguf").mkdir()
            files = {kind: f"{name}-{kind}.gguf" for kind in self.gguf}
            for kind, file in files.items():
                _convert(self._script(), merged, draft / "gguf" / file, kind)
        return {"dtype": dtype, "gguf": sorted(files.values())}


def _merge(folder: Path, pipeline: Path, inputs: ReleaseInputs) -> str:
    """Write base and adapter as one model, with the tokenizer of `pipeline` and its decision files.

    Returns:
        Its precision, that of the base.
    """
    recipe = inputs.run.recipe
    dtype = inputs.base_config.get_text_config().dtype or torch.float32
    with without_bars():
        # Added in fp32, and rounded once.
        model = AutoModelForCausalLM.from_pretrained(
            base_path(recipe.base), revision=recipe.base_revision, dtype=torch.float32
        )
        merged = PeftModel.from_pretrained(model, inputs.run.adapter).merge_and_unload()
        merged.to(dtype).save_pretrained(folder)
    for path in pipeline.iterdir():
        if path.name.startswith("tokenizer") or path.suffix == ".jinja" or path.name in (PROMPT_FILE, "decision.json"):
            shutil.copyfile(path, folder / path.name)
    return str(dtype).removeprefix("torch.")


def _convert(script: Path, merged: Path, file: Path, kind: str) -> None:
    """Run the converter."""
    try:
        process = subprocess.run(
            [sys.executable, script, merged.resolve(), "--outtype", kind, "--outfile", file.resolve()],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ReleaseError(
            f"{script} was still converting to {kind} after {SECONDS:,} s, and was stopped. Leave out --gguf {kind}, or convert the "
            "weights that --merged writes by hand."
        ) from None
    if process.returncode or not file.is_file():
        raise ReleaseError(f"{script} does not convert this model: {cause_of(process)}")
