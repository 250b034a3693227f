"""LLM-TRSR: text-rich sequential recommendation with language models (arXiv 2403.13325).

`import trsr` makes `transformers.pipeline("text-rich-recommendation")` known, and imports neither torch nor transformers
itself.
"""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder

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


class _RegisterOnImport(MetaPathFinder):
    """Registers the task whenever `transformers.pipelines` is executed, and leaves the finding to the finders after it.

    It stays: a spec may be asked for without an import, and a reload needs the task again. There is no plainer way:
    transformers takes tasks by a call alone, and importing it here, to make that call, would take seconds and torch.
    """

    def find_spec(self, fullname, path=None, target=None):
        if fullname != _PIPELINES or self not in sys.meta_path:
            return None
        others = sys.meta_path[sys.meta_path.index(self) + 1 :]
        specs = (other.find_spec(fullname, path, target) for other in others if hasattr(other, "find_spec"))
        spec = next(filter(None, specs), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


class _Registering(Loader):
    """A loader that registers the task after executing the module; in all else the loader that it is given."""

    def __init__(self, loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module) -> None:
        self._loader.exec_module(module)
        importlib.import_module("trsr.registration").register()


# One is enough, also when this module is executed again.
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__qualname__ != _RegisterOnImport.__qualname__]
sys.meta_path.insert(0, _RegisterOnImport())
if _PIPELINES in sys.modules:
    importlib.import_module("trsr.registration").register()
