"""Sample several summaries a user with the base of a run as it is, in the way in which the run's dataset was summarised.

Only the last question of a user is sampled: the merge of the hierarchical strategy, the last update of the recurrent one (for
a history of one block, the block). The summaries before it are those of the dataset. It is the simplest choice that is
right: all samples of a user answer one prompt, so that what the ranker says of them is due to the answer alone, and the
prompt is one that the summariser meets in use. A whole chain that is sampled would not say which of its answers was good. The
price: an adapter trained on recurrent summaries sees few prompts of kind `block`, and one trained on hierarchical ones none.
"""

from collections.abc import Mapping, Sequence

from tqdm.auto import tqdm

from trsr.assets.paths import base_path
from trsr.core.summarize import Steps, SummaryRequest, SummaryResult, steps
from trsr.core.summary_prompts import SummaryPrompts
from trsr.errors import DataError, TrainError
from trsr.recommender.recipe import Recipe
from trsr.recommender.summary_origin import summarizer_kind
from trsr.records.provenance import SummaryProvenance
from trsr.summaries.engines.base import ATTEMPTS, Sampling
from trsr.summaries.engines.transformers import TransformersEngine
from trsr.summaries.run import ParsedItems
from trsr.summaries.scheduler import Scheduler
from trsr.summaries.store import Store


def sampling_engine(recipe: Recipe, summaries: SummaryProvenance, temperature: float, seed: int) -> TransformersEngine:
    """The base of a recipe, without adapters, with the prompts, penalties and longest answer of the training summaries.

    Raises:
        TrainError: If this base did not write the training summaries.
    """
    if recipe.summary == "none" or summarizer_kind(recipe, summaries) != "base-model":
        raise TrainError(
            f"The summaries of {recipe.dataset} that the run was trained with are not those of its base: how to ask the base "
            f"is not known. Summarise with it, and train a ranker on that: trsr summarize {recipe.dataset} "
            f"--engine transformers:{base_path(recipe.base)} --out DIR"
        )
    penalties = {name: summaries.sampling.get(name, 1.0) for name in ("repetition_penalty", "answer_penalty")}
    sampling = Sampling(summaries.sampling["max_new_tokens"], temperature, seed, **penalties)
    engine = TransformersEngine(base_path(recipe.base), recipe.base_revision, sampling)
    engine.prompts = SummaryPrompts.from_dict(summaries.prompts)
    return engine


def last_question(row: Mapping, items: ParsedItems, method: str, block_size: int) -> SummaryRequest:
    """What the last summary of a user answers, given the summaries before it. The target and the negatives are not read.

    Args:
        row: Of `recurrent` or `hierarchical`.
        method: Which of them.

    Raises:
        DataError: If the row has no block summaries, or more than blocks.
    """
    summaries = row["block_summaries"]
    blocks = items.blocks(row["history"], block_size)[-len(summaries) :]
    if not 0 < len(summaries) == len(blocks):
        raise DataError(
            f"User {row['user_id']!r} has {len(summaries)} block summaries for {len(blocks)} blocks of {block_size} items. "
            "Summarise the dataset again."
        )
    [question] = next(steps(blocks, method, summaries[:-1] if method == "recurrent" else summaries))
    return question


def sample(
    questions: Sequence[SummaryRequest], engine: TransformersEngine, store: Store, samples: int
) -> list[list[str]]:
    """Answer each question `samples` times; what the store holds is not asked again.

    Args:
        engine: Sample n has its seed + ATTEMPTS * n, so that no second try repeats the draw of another sample.

    Returns:
        The different summaries of each question, in the order of the samples. Answers that are no summaries are left out
        after ATTEMPTS tries: nothing here is written by the extractive summarizer.
    """
    drawn: list[list[str]] = [[] for _ in questions]
    first_seed = engine.sampling.seed
    with tqdm(total=samples * len(questions), desc="sample", unit="summary", mininterval=1) as bar:
        for number in range(samples):
            engine = engine.reseeded(first_seed + ATTEMPTS * number)
            # Rejected answers are no reason to stop: a user keeps the samples that are summaries.
            scheduler = Scheduler(engine, store, bar.update, keep_going=True)
            scheduler.run((_alone(question) for question in questions), lambda result: None)
            keys = [engine.request(question).key for question in questions]
            answers = store.get(keys)
            for summaries, key in zip(drawn, keys, strict=True):
                accepted = next((attempt.text for attempt in answers.get(key, ()) if not attempt.problem), None)
                if accepted is not None and (summary := engine.prompts.summary(accepted)) not in summaries:
                    summaries.append(summary)
    return drawn


def _alone(question: SummaryRequest) -> Steps:
    """A strategy of one question."""
    [summary] = yield [question]
    return SummaryResult((), summary)
