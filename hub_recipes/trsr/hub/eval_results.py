"""Results of a run in the two forms that the Hub reads: `model-index` in a card's header, and `.eval_results/*.yaml`.

The Hub shows the second form, and lists it on the dataset's page, where the dataset is registered as a benchmark; the first
it shows of any model.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from trsr.core.history import clean
from trsr.recommender.results import REPORTED, Results, metric_name
from trsr.records.files import write_text

FOLDER = ".eval_results"
_CONFIDENCE = 0.95  # of the intervals in a results file


def model_index(
    test: Results, dataset: str, config: str, revision: str | None, *, dataset_name: str
) -> list[EvalResult]:
    """The run's own figures for `ModelCardData(eval_results=...)`.

    Args:
        dataset, config, revision: Hub id, config and commit of the evaluated dataset.
        dataset_name: For display.
    """
    return [
        EvalResult(
            task_type="text-ranking",
            task_name="Sequential recommendation",
            dataset_type=dataset,
            dataset_name=dataset_name,
            dataset_config=config,
            dataset_split=test.split,
            dataset_revision=revision,
            metric_type=name,
            metric_name=metric_name(name),
            metric_value=value,
            metric_args={"low": low, "high": high, "confidence": _CONFIDENCE},
        )
        for name, value, low, high in _figures(test)
    ]


def entries(test: Results, dataset: str, config: str, revision: str | None) -> list[EvalResultEntry]:
    """The same figures in the form of `.eval_results`: a task for each metric, `CONFIG-recall-at-3`. Arguments as above."""
    return [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=f"{config}-{name.replace('@', '-at-')}",
            value=value,
            dataset_revision=revision,
            notes=clean(
                f"{metric_name(name)} on the {test.split} split: mean of {test.n_users:,} users, {_CONFIDENCE:.0%} interval "
                f"{low} to {high}; {test.protocol}, seed {test.seed}"
            ),
        )
        for name, value, low, high in _figures(test)
    ]


def write(repo_folder: Path, found: list[EvalResultEntry]) -> None:
    """Write the entries, all of one dataset, to `.eval_results/` in the folder of a repo."""
    path = repo_folder / FOLDER / f"{found[0].dataset_id.split('/')[-1]}.yaml"
    values = eval_result_entries_to_yaml(found)
    write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000))


def _figures(test: Results) -> Iterator[tuple[str, float, float, float]]:
    """Metric, value and interval of the run itself, as cards show them."""
    for name in REPORTED:
        own = test.systems[test.system][name]
        yield name, *(round(own[part], 4) for part in ("value", "low", "high"))
