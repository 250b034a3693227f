"""Transformers of RecTools over item ids, as peers: early stopping on validation, the best epoch kept.

RecTools is kept up, runs on current torch, and has public benchmarks (https://github.com/blondered/bert4rec_repro; eSASRec, RecSys
2025). It has no GRU4Rec: here torch's GRU stands in its SASRec in place of the attention.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from pytorch_lightning import seed_everything
from rectools.models import BERT4RecModel, HSTUModel, SASRecModel
from rectools.models.nn.transformers.base import TransformerModelBase
from rectools.models.nn.transformers.ligr import LiGRLayers
from rectools.models.nn.transformers.net_blocks import TransformerLayersBase
from rectools.models.nn.transformers.similarity import DistanceSimilarityModule
from torch import nn

from peers.fitted import METRIC, Budget, Fitted, figure, over_known
from peers.interactions import dataset
from peers.material import Material

LONGEST = 50  # items of a sequence that a network sees, from its end
COVERED = 0.95  # of the sequences, whole; they are all padded to one length, which is what costs on a CPU
KINDS = ("sasrec", "esasrec", "sasrec-features", "hstu", "bert4rec", "gru4rec")


class Gru(TransformerLayersBase):
    """A GRU in RecTools' place for transformer blocks (Hidasi et al., arXiv 1511.06939)."""

    def __init__(self, n_blocks: int, n_factors: int, n_heads: int, dropout_rate: float, **kwargs: Any) -> None:
        super().__init__()
        self.gru = nn.GRU(n_factors, n_factors, n_blocks, batch_first=True)
        self.norm = nn.LayerNorm(n_factors)

    def forward(self, seqs, timeline_mask, attn_mask, key_padding_mask, **kwargs):
        return self.norm(self.gru(seqs * timeline_mask)[0])  # (users, items, factors)


class SampledScores(DistanceSimilarityModule):
    """Scores of sampled items, as RecTools gives them, taken from one matrix product with all items.

    RecTools copies the vectors of 257 items for each position. With some thousand items, a matrix product with all of them gives the
    same scores in less time and memory.
    """

    def _get_pos_neg_logits(self, session_embs, item_embs, candidate_item_ids):
        # (users, positions, factors), (items, factors), (users, positions, sampled) -> (users, positions, sampled)
        return self._get_full_catalog_logits(session_embs, item_embs).gather(-1, candidate_item_ids)


def model_of(kind: str, longest: int, settings: dict[str, Any]) -> TransformerModelBase:
    """A model of RecTools that is not fitted yet."""
    options: dict[str, Any] = {"n_blocks": 2, "n_heads": 2, "session_max_len": longest, "deterministic": True}
    match kind:
        case "esasrec":
            options |= {"transformer_layers_type": LiGRLayers, "loss": "sampled_softmax", "n_negatives": 256}
            options |= {"similarity_module_type": SampledScores}
        case "gru4rec":
            options |= {"n_blocks": 1, "transformer_layers_type": Gru, "use_pos_emb": False}
        case "hstu":
            # Its scores are cosines: a temperature, here the paper's, spreads them. Datasets hold no times.
            options |= {"relative_time_attention": False, "lightning_module_kwargs": {"logits_t": 0.05}}
    model_class = {"bert4rec": BERT4RecModel, "hstu": HSTUModel}.get(kind, SASRecModel)
    return model_class(**options | settings)


def peer(kind: str) -> Callable[[Material, dict[str, Any], int, Budget], Fitted]:
    """A peer by its name in KINDS."""

    def fit(material: Material, settings: dict[str, Any], seed: int, budget: Budget) -> Fitted:
        warnings.filterwarnings("ignore")
        for name in ("pytorch_lightning", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        seed_everything(seed, workers=True, verbose=False)
        longest = int(np.quantile([len(items) for items in material.sequences], COVERED, method="higher"))
        model = model_of(kind, min(LONGEST, longest), settings)
        fields = None
        if kind == "sasrec-features":
            fields = {name: dict(zip(material.texts, values, strict=True)) for name, values in material.fields.items()}
        interactions = dataset(material.sequences, fields)
        best: dict[str, Any] = {}
        for epoch in range(1, budget.epochs + 1):
            model.fit_partial(interactions, min_epochs=1, max_epochs=1)
            fitted = Fitted(scorer(model, material))
            reached = figure(fitted, material.validation, material)
            if not best or reached > best["figure"]:
                weights = {name: value.clone() for name, value in model.torch_model.state_dict().items()}
                best = {"figure": reached, "epoch": epoch, "weights": weights}
            elif epoch - best["epoch"] >= budget.patience:
                break
        model.torch_model.load_state_dict(best["weights"])
        return Fitted(fitted.score, {"epoch": best["epoch"], "epochs": epoch, METRIC: round(best["figure"], 5)})

    return fit


def scorer(model: TransformerModelBase, material: Material) -> Callable:
    """Scores over the catalogue by a model's own forward."""
    prepared = model.data_preparator
    known_ids = prepared.get_known_item_ids().tolist()
    columns = torch.from_numpy(prepared.get_known_items_sorted_internal_ids())

    @torch.no_grad()
    def score(histories: Sequence[Sequence[str]]) -> np.ndarray:
        inputs = prepared.transform_dataset_u2i(dataset(histories), list(range(len(histories))))
        body = model.torch_model.eval()
        items = body.item_model.get_all_embeddings()
        similarities = []
        for batch in prepared.get_dataloader_recommend(inputs, model.recommend_batch_size):
            users = body.encode_sessions(batch, items)[:, -1:]  # (users, 1, factors), after the last item
            similarities.append(body.similarity_module(users, items)[:, 0, columns])
        scores = np.empty((len(histories), len(known_ids)), np.float32)
        scores[inputs.user_id_map.external_ids.astype(int)] = torch.cat(similarities).numpy()
        return scores

    return over_known(score, known_ids, material)
