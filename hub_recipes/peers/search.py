"""Search a peer's settings by optuna, on validation alone; what was tried is kept, so that a killed search goes on."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers.fitted import Budget
from trsr.errors import EvaluationError, TrainError

if TYPE_CHECKING:
    import optuna

RANDOM = 3  # trials after the defaults before the sampler begins to learn
PROPOSALS = 20  # for each trial: settings that were tried already are proposed again, and not fitted again


@dataclass(frozen=True, slots=True)
class Trial:
    """Settings that were tried.

    Attributes:
        value: What validation said; higher is better. None where the training diverged.
        about: Costs and what fitting found out, in JSON's types; of a training that diverged `cpu_seconds` and `error`.
    """

    settings: dict[str, Any]
    value: float | None
    about: Mapping[str, Any]


def search(
    storage: Path,
    name: str,
    space: Mapping[str, Sequence],
    budget: Budget,
    seed: int,
    evaluate: Callable[[dict[str, Any]], Trial],
) -> list[Trial]:
    """Try settings: the defaults, a few at random, then those of a tree-structured Parzen estimator.

    A search that goes on proposes what an uninterrupted one would have.

    Args:
        storage: SQLite file with all studies.
        name: Of the study. It has to name the data: a study of that name is gone on with.
        space: Setting -> values; the first one is the default.

    Returns:
        All trials, in their order. Those that diverged do not count as one of `budget.trials`, but their CPU seconds do.
    """
    if not space:  # nothing to choose: such peers need no optuna
        return [evaluate({})]
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{storage.resolve()}", study_name=name, direction="maximize", load_if_exists=True
    )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)  # left by a killed process
    wanted = min(budget.trials, math.prod(map(len, space.values())))
    for _ in range(PROPOSALS * wanted):
        tried = _tried(study)
        spent = sum(trial.about["cpu_seconds"] for trial in tried) / 60
        if sum(trial.value is not None for trial in tried) >= wanted:
            break
        if tried and budget.cpu_minutes and spent >= budget.cpu_minutes:
            break
        pruned = [
            trial.params for trial in study.get_trials(states=(TrialState.PRUNED,))
        ]  # that diverged, or came again
        if not (tried or pruned or study.get_trials(states=(TrialState.WAITING,))):  # one may wait since a kill
            study.enqueue_trial({setting: values[0] for setting, values in space.items()})
        proposed = len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))
        # A new sampler for each trial: its draws do not hang on when the process began.
        study.sampler = optuna.samplers.TPESampler(seed=1000 * seed + proposed, n_startup_trials=1 + RANDOM)
        trial = study.ask()
        settings = {setting: trial.suggest_categorical(setting, values) for setting, values in space.items()}
        if settings in [*(before.settings for before in tried), *pruned]:
            study.tell(trial, state=TrialState.PRUNED)
            continue
        began = _cpu_seconds()
        try:
            result = evaluate(settings)
        except (EvaluationError, TrainError) as error:  # a training that diverged: the next proposal is another
            print(f"{name}: {settings}: {error}", flush=True)
            trial.set_user_attr("about", {"cpu_seconds": round(_cpu_seconds() - began, 2), "error": str(error)})
            study.tell(trial, state=TrialState.PRUNED)
            continue
        trial.set_user_attr("about", dict(result.about))
        study.tell(trial, result.value)
    return _tried(study)


def _tried(study: "optuna.Study") -> list[Trial]:
    """Trials that were fitted: those of settings that came again were not."""
    return [
        Trial(dict(trial.params), trial.value, trial.user_attrs["about"])
        for trial in study.get_trials()
        if trial.state.name in ("COMPLETE", "PRUNED") and "about" in trial.user_attrs
    ]


def _cpu_seconds() -> float:
    """Of this process and of those of its children that have ended. Windows keeps no account of children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
