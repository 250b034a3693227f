"""NDCG@k of scored candidates, for `evaluate.load`; the mathematics is in ranking_metrics.py beside it."""

import datasets
import evaluate

from .ranking_metrics import padded, per_user

_DESCRIPTION = """\
NDCG@k: the discounted gain (1 / log2(rank + 1) for each chosen candidate among the k highest scores) over that of the best order, averaged over users. 1 is best.

Made for recommenders that score each candidate of a user. Ties count half: the value is the exact expectation when tied
candidates are put in random order, so a scorer that gives every candidate the same score gets exactly chance, and none
gains by the order in which its candidates are listed.
"""

_CITATION = """\
@article{zheng2024harnessing,
  title = {Harnessing Large Language Models for Text-Rich Sequential Recommendation},
  author = {Zheng, Zhi and Chao, Wenshuo and Qiu, Zhaopeng and Zhu, Hengshu and Xiong, Hui},
  journal = {arXiv preprint arXiv:2403.13325},
  year = {2024}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: A list of scores a user, one a candidate, higher is better. Users may have different numbers of them.
    references: A list of labels a user, in the order of the scores: 1 for a candidate that was chosen, 0 for another.
        Each user has at least one of both.
    k: Cut-off, a whole number from 1; 10 if left out.

Returns:
    ndcg_at_k: From 0 to 1, the mean over users.

Examples:
    The first user's choice stands second; the second user's shares the first place with another candidate.

    >>> metric = evaluate.load("ORG/ndcg_at_k")
    >>> metric.compute(predictions=[[0.9, 0.7, 0.1], [0.2, 0.5, 0.5, 0.1]], references=[[0, 1, 0], [0, 0, 1, 0]], k=3)
    {'ndcg_at_k': 0.7231973151785931}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class NDCGAtK(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    # Not int64: it would cut 0.9 to 0, where the check refuses it.
                    "references": datasets.Sequence(datasets.Value("float64")),
                }
            ),
            reference_urls=["https://arxiv.org/abs/2403.13325"],
        )

    def _compute(self, predictions, references, k=10):
        values = per_user(*padded(predictions, references), at=[k])[f"ndcg@{k}"]
        return {"ndcg_at_k": float(values.mean())}
