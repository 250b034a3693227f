"""What long work shows: one bar a step, not one for each model that is loaded nor a line for each figure that is logged."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tqdm.auto import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback
from transformers.utils import logging

from trsr.core.modeling import check_name
from trsr.errors import LoadError, TrsrError

SHOWN = ("loss", "eval_loss", "eval_recall@3", "eval_mrr@10")  # figures beside the bar of a training


@contextmanager
def without_bars() -> Iterator[None]:
    """Let transformers load models without a bar for each."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Load a model without a bar. Raises LoadError where transformers cannot, in place of its ValueError."""
    check_name(model)
    try:
        with without_bars():
            yield
    except TrsrError:
        raise
    except (ValueError, ImportError) as error:
        raise LoadError(f"The model {model} cannot be loaded: {' '.join(str(error).split())}") from error


def show_training(trainer: Trainer, name: str) -> None:
    """Let a Trainer show one bar, called `name`, with its newest figures."""
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(_TrainingBar(name))


class _TrainingBar(TrainerCallback):
    def __init__(self, name: str) -> None:
        self._name = name
        self._figures: dict[str, str] = {}
        self._bar: tqdm | None = None
        self._others = ExitStack()

    def on_train_begin(self, args, state, control, **kwargs):
        self._others.enter_context(without_bars())  # of checkpoints, which are written on the way
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self._name,
            unit="step",
            mininterval=1,
            disable=not state.is_world_process_zero,
        )

    def on_step_end(self, args, state, control, **kwargs):
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        self._figures |= {name: f"{logs[name]:.4g}" for name in SHOWN if name in (logs or {})}
        if self._bar is not None:
            self._bar.set_postfix(self._figures, refresh=False)

    def on_train_end(self, args, state, control, **kwargs):
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._others.close()
