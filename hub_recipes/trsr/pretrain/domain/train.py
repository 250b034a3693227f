"""Train a domain base: tokenizer, then a small Llama, on the users of a dataset with recurrent summaries."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from datasets import Dataset
from transformers import set_seed

from trsr.core.history import Item, newest
from trsr.core.prompts import Encoder, RankingPrompt
from trsr.dataset import contract
from trsr.dataset.sequences import training_splits
from trsr.pretrain.domain.batch import collate, forward
from trsr.pretrain.domain.rows import Rows, training_users
from trsr.pretrain.domain.tokenizer import superword_tokenizer
from trsr.pretrain.scratch import (
    CONTEXT,
    RankingTrainer,
    arguments,
    claim_folders,
    finished,
    fit,
    llama,
    load_or_train_tokenizer,
    save,
)
from trsr.records.checksums import dataset_checksum
from trsr.records.files import beside, one_writer
from trsr.report.templates import render

READ = 1500  # users whose prompts the tokenizer is trained on


@one_writer
def train_domain(
    source: str,
    out: Path,
    *,
    revision: str | None = None,
    seed: int = 0,
    steps: int = 5000,
    rows: int = 8,
    negatives: int = 4,
    vocab_size: int = 10_240,
    hidden: int = 128,
    layers: int = 4,
    heads: int = 4,
    learning_rate: float = 2e-3,
    work: Path | None = None,
) -> dict[str, object]:
    """Train and write a base that knows a dataset's items.

    Training uses histories and targets of training users, and histories without targets of all others, as is usual for
    sequential recommenders; where a user stands in several splits, the training split alone.

    Args:
        source: Folder or Hub id with the config `recurrent`.
        out: Folder to write.
        steps: Optimiser steps of `rows` users each.
        negatives: Negatives per positive.
        work: Folder for checkpoints; a killed run goes on from the newest one, and a finished one is not run again.

    Returns:
        The content of `training.json`.

    Raises:
        DataError: If the dataset has no recurrent summaries, or does not state their block size.
    """
    provenance = contract.provenance(source, revision)
    splits = {split: contract.read(source, "recurrent", split, revision) for split in contract.SPLITS}
    block_size = provenance.summaries.block_size
    texts = contract.texts(source, revision)
    for split, table in splits.items():
        contract.check_ids(table, texts, split)
    prompt = RankingPrompt(recent_items=10)
    work = work or beside(out, "-checkpoints")
    learnt_splits = training_splits(splits)
    claim_folders(
        out,
        work,
        model="domain",
        **({"splits": list(learnt_splits)} if len(learnt_splits) < len(splits) else {}),
        dataset=dataset_checksum(source, revision, ("items", "recurrent")),
        seed=seed,
        steps=steps,
        rows=rows,
        negatives=negatives,
        vocab_size=vocab_size,
        hidden=hidden,
        layers=layers,
        heads=heads,
        learning_rate=learning_rate,
    )
    if (done := finished(out, work)) is not None:
        return done
    learnt_from = training_users(learnt_splits, block_size)
    tokenizer = load_or_train_tokenizer(
        work, lambda: superword_tokenizer(_prompts(splits["train"], texts, prompt), vocab_size)
    )
    set_seed(seed)
    model = llama(tokenizer, hidden, layers, heads)
    encoder = Encoder(tokenizer, prompt, context=CONTEXT)
    trainer = RankingTrainer(
        model,
        arguments(work, steps=steps, rows=rows, learning_rate=learning_rate, seed=seed),
        data_collator=lambda batch: collate(batch, tokenizer.pad_token_id),
        train_dataset=Rows(learnt_from, texts, encoder, length=steps * rows, negatives=negatives, seed=seed),
        forward=forward,
        yes=encoder.yes_id,
        no=encoder.no_id,
        text_weight=0.3,
    )
    record = fit(trainer)
    about = {
        "command": f"trsr pretrain domain --dataset {_display_name(source)} --seed {seed} --steps {steps}",
        "data": provenance.terms.name,
        "splits": list(learnt_splits),
        "share_text": provenance.terms.share_text,
        "parameters": model.num_parameters(),
        "rows": steps * rows,
        "candidates_a_row": 1 + negatives,
        **record,
    }
    model.set_attn_implementation("sdpa")
    header = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["llm-trsr"],
        **provenance.terms.header(),
    }
    card = render("domain", {**about, "name": provenance.terms.name}, header)
    save(model, tokenizer, about, card, out, work)
    return about


def _display_name(source: str) -> str:
    """A dataset's id, or the name of its folder without the path, which is private."""
    return Path(source).resolve().name if Path(source).is_dir() else source


def _prompts(rows: Dataset, texts: Mapping[str, str], prompt: RankingPrompt) -> Iterator[str]:
    items = {item_id: Item.parse(text) for item_id, text in texts.items()}
    for row in rows.select(range(min(READ, len(rows)))):
        recent = [items[item_id] for item_id in newest(row["history"], prompt.recent_items)]
        yield prompt.prefix(row["summary"], recent) + prompt.suffix(items[row["target"]])
    for item in items.values():
        yield from [prompt.suffix(item)] * 3
    # Repeated until each answer, with the space before it, is one token.
    yield from [f" {prompt.yes}", f" {prompt.no}"] * len(texts)
