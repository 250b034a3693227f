"""Summaries by the nano base with its summarising adapter, both of which ship with the package."""

from trsr.assets.paths import NANO_SUMMARIZER, base_path, summarizer_path
from trsr.errors import EngineError
from trsr.summaries.engines.base import Sampling
from trsr.summaries.engines.transformers import TransformersEngine


class NanoEngine(TransformersEngine):
    """A small language model that needs neither network nor GPU, and knows the wording of `trsr.pretrain.nano.wording` alone."""

    batch = 64
    notice = (
        "The nano model knows the made-up worlds of this package alone: of real items it writes what none of them says. For "
        "those take extractive, transformers:MODEL or openai:MODEL."
    )

    def __init__(self, sampling: Sampling) -> None:
        if summarizer_path("nano") is None:
            raise EngineError(
                f"No adapter that summarises is in {NANO_SUMMARIZER}. Train one there: "
                f"trsr pretrain nano-summarizer --out {NANO_SUMMARIZER}"
            )
        super().__init__(base_path("nano"), None, sampling, NANO_SUMMARIZER)
        # The adapter is part of the model of that name.
        identity = {name: value for name, value in self.identity.items() if name != "adapter"}
        self.identity = {**identity, "engine": "nano", "model": "nano-summarizer"}
