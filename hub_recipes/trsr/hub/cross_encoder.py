"""The recommender as a CrossEncoder of sentence-transformers, without code of ours: adapter, tokenizer and three small files.

The query is what the prompt says of a user, summary and recent items, and the document a candidate; its score is the log-odds
of yes. The chat template puts the rest of the prompt around both, and takes them as text: a control token in them is broken up
by a space, and a candidate is always one line.
"""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

from trsr.core.history import Item, newest
from trsr.core.prompts import AddedTokens, Encoder, RankingPrompt
from trsr.core.saving import save_tokenizer, write_json
from trsr.errors import ReleaseError
from trsr.hub.decision import fill, quoted, text_macros, unusual_forms

LIBRARY = "sentence-transformers"
LOWEST = "6.2"  # of the library: the version that the files are written for

_TEMPLATE = """\
{#- Roles: query, the summary and the recent items, and document, a candidate. -#}
__TEXT__
{%- set query = messages|selectattr("role", "equalto", "query")|map(attribute="content")|first -%}
{%- set document = messages|selectattr("role", "equalto", "document")|map(attribute="content")|first -%}
{{- __HEAD__ -}}
{%- if query|trim -%}
{{- "\\n\\n" -}}
{%- for one in query.split("\\n") -%}{{- ("" if loop.first else "\\n") ~ line(one) -}}{%- endfor -%}
{%- endif -%}
{{- __CANDIDATE__ ~ line(document) ~ __CUE__ -}}
"""
_ANSWERED = {"method": "forward", "method_output_name": "logits"}
_MODULES = (
    ("", "sentence_transformers.base.modules.transformer.Transformer"),
    ("1_LogitScore", "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"),
)


def write(folder: Path, encoder: Encoder) -> None:
    """Write the files of a CrossEncoder, but for the adapter, into `folder`.

    Raises:
        ReleaseError: If the template cannot give the token ids that the recommender was trained on, or cannot keep control
            tokens out of a text.
    """
    tokenizer = copy.deepcopy(encoder.tokenizer)  # that of the encoder goes into other repos
    tokenizer.chat_template = template(encoder)
    if not all(_agree(encoder, tokenizer, *case) for case in _CASES):
        raise ReleaseError(
            "This tokenizer writes the words of a prompt differently where it is one text, so no chat template gives the token ids "
            "that the recommender was trained on: leave out --cross-encoder."
        )
    forms = unusual_forms(tokenizer, _tokens(encoder))
    if _added_ids(tokenizer, forms) != _added_ids(tokenizer, "title: Emma"):
        raise ReleaseError(
            "This tokenizer makes its added tokens of other letters too, so no chat template keeps them out of a text: leave out "
            "--cross-encoder."
        )
    if encoder.limit:
        tokenizer.model_max_length = encoder.limit
    # The document stands at the end of a prompt: of one that is too long, the beginning goes.
    save_tokenizer(folder, tokenizer, truncation_side="left")
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": kind} for number, (path, kind) in enumerate(_MODULES)
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8", newline="\n")
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "text-generation",
            "modality_config": {"text": _ANSWERED, "message": {**_ANSWERED, "format": "flat"}},
            "module_output_name": "causal_logits",
        },
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.linear.Identity", "prompts": {}},
    )
    (folder / "1_LogitScore").mkdir()
    write_json(
        folder / "1_LogitScore" / "config.json",
        {"true_token_id": encoder.yes_id, "false_token_id": encoder.no_id, "module_input_name": "causal_logits"},
    )


def query(prompt: RankingPrompt, summary: str | None, recent: Sequence[Item]) -> str:
    """What a CrossEncoder is given as the query of a user. `recent`: all that the prompt shows, oldest first."""
    return prompt.prefix(summary, recent).removeprefix(prompt.instruction).strip("\n")


def template(encoder: Encoder) -> str:
    """The chat template. It breaks up special tokens in text too: what it renders is encoded as a whole."""
    prompt, (head, tail) = encoder.prompt, encoder.frame()
    values = {
        "TEXT": text_macros(_tokens(encoder)),
        "HEAD": quoted(head + prompt.instruction),
        "CANDIDATE": quoted(f"\n\n{prompt.candidate_heading}\n- "),
        "CUE": quoted(f"\n\n{prompt.cue}{tail}"),
    }
    return fill(_TEMPLATE, values)


def _tokens(encoder: Encoder) -> AddedTokens:
    return AddedTokens(token.content for token in encoder.tokenizer.added_tokens_decoder.values())


def _added_ids(tokenizer, text: str) -> list[int]:
    """The ids of added tokens where `text` stands for the user and for the candidate."""
    messages = [{"role": role, "content": text} for role in ("query", "document")]
    added = tokenizer.added_tokens_decoder
    return [token_id for token_id in tokenizer.apply_chat_template(messages)["input_ids"] if token_id in added]


_CASES: tuple[tuple[str | None, Sequence[str], str], ...] = (
    (None, (), "title: Emma"),
    ("Likes sea stories.", ("title: The Salt Lantern; genre: sea stories",), "title: Reef & Anchor; price: 9.50"),
    ("Mostly:\nmystery", ("First", "Second\tone", "Third"), "Ünïcode — “quotes”, 書籍, 🙂\u200b!"),
)


def _agree(encoder: Encoder, tokenizer, summary: str | None, recent: Sequence[str], candidate: str) -> bool:
    """Whether the template gives the same token ids as the encoder."""
    items = [Item.parse(text) for text in newest(recent, encoder.prompt.recent_items)]
    messages = [
        {"role": "query", "content": query(encoder.prompt, summary, items)},
        {"role": "document", "content": candidate},
    ]
    ids = tokenizer.apply_chat_template(messages)["input_ids"]
    return ids == encoder.prefix_ids(summary, items).ids + encoder.suffix_ids(Item.parse(candidate))
