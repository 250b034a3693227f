"""Write the part of a retriever that makes item vectors from texts as a SentenceTransformer, which needs no code of ours.

Its modules are those of the model that reads the texts and, behind them, the two layers that the retriever has trained. A user's
vector is not exported: it comes from a whole history, by a network that sentence-transformers does not have.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trsr.assets.paths import base_path
from trsr.dataset import contract
from trsr.errors import ReleaseError, UsageError
from trsr.hub.processes import printed_by
from trsr.progress import loading
from trsr.records.files import whole_folder
from trsr.retrieval.network import Ensemble
from trsr.retrieval.pretrained import INSTALL, TOKENS, HiddenStateVectors, SentenceVectors
from trsr.retrieval.retriever import ITEMS, VECTORS, Retriever

CHECKED = 200  # items that are embedded in a fresh process
EXACT = 1e-5  # largest difference of a vector's element, as a part of the largest one, between two programs in fp32
HALF = 0.1  # the same where the retriever's model computed in 16 bits, and what is written here in fp32
_EMBED = """
import json, sys
from sentence_transformers import SentenceTransformer
texts = json.load(open(sys.argv[2], encoding="utf-8"))
print(json.dumps(SentenceTransformer(sys.argv[1], device="cpu").encode(texts).tolist()))
"""


def export(folder: Path, source: str, out: Path, revision: str | None = None) -> dict[str, Any]:
    """Write a SentenceTransformer and, in the same folder, the catalogue's vectors; nothing is left behind where it fails.

    Args:
        folder: Of the retriever.
        source: Folder or Hub id of the dataset that it was trained on.
        out: Folder to write; new or empty.

    Returns:
        `out`; `checked`, how many items were embedded in a fresh process; `difference`, the largest of an element of their
        vectors from the retriever's; `items` of the catalogue; and `in_index`, how many of them have the vector of their text in
        the index: to the others the retriever adds what it has learnt of their ids.

    Raises:
        UsageError: If the retriever is an ensemble, no model reads its texts, `out` holds something, or sentence-transformers is missing.
        ReleaseError: If a fresh process cannot load what was written, or gets other vectors from it.
        RunError, DataError, LoadError: As `Retriever.load`, `check_data` and `embed`.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty. Choose another --out.")
    retriever = Retriever.load(folder)
    retriever.check_data(source, revision)
    maker = retriever.text
    if isinstance(retriever.network, Ensemble):
        raise UsageError(
            f"{folder} is an ensemble: export the members whose vectors come from a model, each for itself."
        )
    if not isinstance(maker, (SentenceVectors, HiddenStateVectors)):
        raise UsageError(
            f"The item vectors of {folder} come from {'TF-IDF' if maker else 'ids alone'}, and a SentenceTransformer reads texts with a "
            "model. Train one with --vectors transformers:MODEL or sentence-transformers:MODEL."
        )
    texts = contract.texts(source, revision)
    shown = list(texts.values())[:CHECKED]
    wanted = retriever.embed(shown)
    with whole_folder(out) as draft:
        exact = _write(retriever, maker, draft)
        for file in (VECTORS, ITEMS):
            (draft / file).write_bytes((folder / file).read_bytes())
        scale = float(np.abs(wanted).max())
        difference = float(np.abs(_embedded(draft, shown) - wanted).max())
        limit = (EXACT if exact else HALF) * scale
        if not difference <= limit:
            raise ReleaseError(
                f"Loaded in a fresh process, the SentenceTransformer gives other vectors than the retriever: they differ by "
                f"{difference:.3g}, and rounding makes {limit:.3g} at most. Nothing is written."
            )
    # The retriever knows an item that nobody met by its text alone.
    by_text_alone = (
        retriever.record["counts"]["items_without_interactions"] if retriever.network.shape.ids else len(texts)
    )
    return {
        "out": str(out),
        "checked": len(shown),
        "difference": difference,
        "in_index": by_text_alone,
        "items": len(texts),
    }


def _write(retriever: Retriever, maker: SentenceVectors | HiddenStateVectors, draft: Path) -> bool:
    """Write the model, in fp32. Returns whether the one that the retriever reads texts with computes in fp32 too."""
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
    except ImportError as error:
        raise UsageError(f"A SentenceTransformer needs sentence-transformers: {INSTALL}") from error
    with loading(maker.model):
        if isinstance(maker, SentenceVectors):
            reader = list(SentenceTransformer(maker.model, revision=maker.revision, device="cpu"))
        else:
            states = {"method": "forward", "method_output_name": "last_hidden_state"}
            pinned = {"revision": maker.revision} if maker.revision else {}
            model = Transformer(
                base_path(maker.model),
                model_kwargs={**pinned},
                processor_kwargs={**pinned},
                config_kwargs={**pinned},
                max_seq_length=TOKENS,
                modality_config={"text": states},
                module_output_name="token_embeddings",
            )
            model.tokenizer.padding_side = "right"
            model.tokenizer.chat_template = None  # with one, a text would be read as a message
            reader = [model, Pooling(model.get_embedding_dimension(), "mean")]
    dtypes = {value.dtype for module in reader for value in module.parameters()}
    tower: Any = retriever.network.item
    center = Dense(len(tower.center), len(tower.center), activation_function=nn.Identity())
    hidden = Dense(tower.text[0].in_features, tower.text[0].out_features, activation_function=nn.GELU())
    last = Dense(tower.text[3].in_features, tower.text[3].out_features, activation_function=nn.Identity())
    with torch.no_grad():
        # A layer of its own: folded into the next one, a centre far from 0 would cost digits.
        center.linear.weight.copy_(torch.eye(len(tower.center)))
        center.linear.bias.copy_(-tower.center)
        hidden.linear.weight.copy_(tower.text[0].weight / tower.spread)
        hidden.linear.bias.copy_(tower.text[0].bias)
        last.linear.load_state_dict(tower.text[3].state_dict())
    whole = SentenceTransformer(modules=[*reader, center, hidden, last], device="cpu", similarity_fn_name="dot")
    whole.float().save_pretrained(str(draft))
    return dtypes <= {torch.float32}


def _embedded(folder: Path, texts: list[str]) -> np.ndarray:
    """Vectors (texts, width) that a SentenceTransformer gives in a process without this package."""
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "texts.json"
        file.write_text(json.dumps(texts), encoding="utf-8", newline="\n")
        failed = "The SentenceTransformer cannot be loaded as it is installed here"
        vectors = printed_by([sys.executable, "-c", _EMBED, folder, file], file.parent, failed)
    return np.array(vectors, np.float32)
