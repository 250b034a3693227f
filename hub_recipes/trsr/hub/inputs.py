"""Everything that a release is made from, read once: a finished run, its results, its dataset, and its base's tokenizer.

Cards, folders and the rehearsal take it from this record, and open no file of the run or of the dataset themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

from trsr.assets.paths import base_path
from trsr.core.catalogue import Catalogue
from trsr.core.prompts import Encoder
from trsr.dataset import contract
from trsr.recommender import scores
from trsr.recommender.compare import verdict
from trsr.recommender.examples import make_encoder, ranking_prompt
from trsr.recommender.results import Results
from trsr.recommender.run import Run
from trsr.recommender.serving import pipeline_settings
from trsr.records.provenance import Provenance
from trsr.retrieval.carried import catalogue_of_run

USERS = 3  # of the test split, whose scores are compared with those of the release


@dataclass(frozen=True, slots=True)
class ReleaseInputs:
    """What a release is made from.

    Attributes:
        run: The finished run.
        test, validation: Its results on these splits.
        verdict: On the results on the test split, in words.
        log_odds: Item id -> log-odds of the run, for each of the first USERS rows of the test split.
        provenance: Of the dataset.
        audit: Of its summaries, as `trsr audit --write` leaves it; None for data that was not audited.
        tables: Config -> splits of the dataset, without the rows for TRL.
        texts: Item id -> text, in catalogue order.
        base_config: Of the base.
        encoder: Of the run's prompts, with the base's tokenizer.
        settings: Of the pipeline, as `serving.pipeline_settings` gives them.
        catalogue: That the pipeline carries, if it does.
    """

    run: Run
    test: Results
    validation: Results
    verdict: str
    log_odds: Sequence[Mapping[str, float]]
    provenance: Provenance
    audit: Mapping[str, Any] | None
    tables: Mapping[str, DatasetDict]
    texts: Mapping[str, str]
    base_config: PreTrainedConfig
    encoder: Encoder
    settings: Mapping[str, Any]
    catalogue: Catalogue | None = None

    @classmethod
    def read(cls, folder: Path, dataset: str | None = None, retriever: Path | None = None) -> "ReleaseInputs":
        """Read the run in `folder` and its dataset.

        Args:
            dataset: Where the run's dataset is; default, where its recipe says.
            retriever: Folder of the retriever for a catalogue; without one, the release carries none.

        Raises:
            RunError: If there is no finished run or no such retriever, or the dataset is not the one that both were trained on.
            ResultsError, DataError: If something else is missing.
        """
        run = Run.read(folder).with_dataset(dataset)
        recipe = run.recipe
        test, validation = run.results("test"), run.results("validation")
        log_odds = scores.first_rows(folder / test.split, test.system, USERS)
        run.check_base()
        run.check_data("Say where the run's own is: --dataset. If that is gone, train again.")
        standing = verdict.of_evaluation(test.values, folder / test.split)
        provenance = contract.provenance(recipe.dataset, recipe.dataset_revision)
        audit = contract.audit(recipe.dataset, recipe.dataset_revision)
        tables = contract.tables(recipe.dataset, recipe.dataset_revision)
        texts = contract.texts_of(tables["items"]["train"], recipe.dataset)
        settings = pipeline_settings(recipe, validation.temperature, provenance)
        base = base_path(recipe.base)
        base_config = AutoConfig.from_pretrained(base, revision=recipe.base_revision)
        tokenizer = AutoTokenizer.from_pretrained(base, revision=recipe.base_revision)
        encoder = make_encoder(recipe, ranking_prompt(recipe, provenance), tokenizer, base_config)
        return cls(
            run,
            test,
            validation,
            standing,
            log_odds,
            provenance,
            audit,
            tables,
            texts,
            base_config,
            encoder,
            settings,
            catalogue_of_run(run, retriever) if retriever else None,
        )
