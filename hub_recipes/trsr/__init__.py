"""LLM-TRSR: text-rich sequential recommendation with language models (arXiv 2403.13325).

`import trsr` makes `transformers.pipeline("text-rich-recommendation")` known, and imports neither torch nor transformers
itself.
"""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.util import find_spec

__version__ = "0.1.0"

# Public name -> module; resolved on first use.
_PUBLIC = {
    "ExtractiveSummarizer": "trsr.core.extractive",
    "Item": "trsr.core.history",
    "ModelSummarizer": "trsr.core.generation",
    "RankingPrompt": "trsr.core.prompts",
    "Scorer": "trsr.core.scoring",
    "TextRichRecommendationPipeline": "trsr.core.pipeline",
    "load_recipe": "trsr.recommender.recipe",
    "summarize": "trsr.core.summarize",
}
__all__ = ["__version__", *_PUBLIC]

_PIPELINES = "transformers.pipelines"


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'trsr' has no attribute {name!r}")


class _RegisterLater(MetaPathFinder):
    """Registers the task when transformers.pipelines is imported, once, and gets out of the way."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != _PIPELINES:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


class _Registering(Loader):
    def __init__(self, loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module) -> None:
        self._loader.exec_module(module)
        importlib.import_module("trsr.register").register()


if _PIPELINES in sys.modules:
    importlib.import_module("trsr.register").register()
else:
    sys.meta_path.insert(0, _RegisterLater())
