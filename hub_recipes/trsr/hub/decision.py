"""The recommender as a decision model: `decision.json` and `decision_template.jinja`, which render our ranking prompt.

With them, `pipeline("decision")` and every server of `/v1/systemone` give each candidate the same probability as our
pipeline, but without the bias, for they support a temperature alone. The state of a request is
`{"summary": text, "recent_items": [item, ...]}`, oldest first, and each candidate is a question `{"type": "noul", "instructions": item}`.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import DecisionConfig
from transformers.decision.template_utils import SPLIT

from trsr.core.field_values import ENTITIES, ID_FIELDS, UNSPACED, WINDOWS
from trsr.core.prompts import AddedTokens, Encoder
from trsr.records.files import write_json

# What `core.history.clean` drops: categories Cc and Cf, but for the two joiners, and variation selectors of ideographs.
_DROPPED = (
    ("\x00", "\x08"), ("\x0e", "\x1b"), ("\x7f", "\x84"), ("\x86", "\x9f"), ("\xad", "\xad"), ("\u0600", "\u0605"),
    ("\u061c", "\u061c"), ("\u06dd", "\u06dd"), ("\u070f", "\u070f"), ("\u0890", "\u0891"), ("\u08e2", "\u08e2"),
    ("\u180e", "\u180e"), ("\u200b", "\u200b"), ("\u200e", "\u200f"), ("\u202a", "\u202e"), ("\u2060", "\u2064"),
    ("\u2066", "\u206f"), ("\ufeff", "\ufeff"), ("\ufff9", "\ufffb"), ("\U000110bd", "\U000110bd"),
    ("\U000110cd", "\U000110cd"), ("\U00013430", "\U0001343f"), ("\U0001bca0", "\U0001bca3"),
    ("\U0001d173", "\U0001d17a"), ("\U000e0001", "\U000e0001"), ("\U000e0020", "\U000e007f"),
    ("\U000e0100", "\U000e01ef"),
)  # fmt: skip

# `clean` is core.history.clean; `line` breaks up added tokens as the encoder does, again and again, for tokens overlap. Jinja
# has no `while`: a loop that passes over the rest of its rounds, and an error where they were too few.
# Text is joined in a block of `set`, which takes linear time.
_TEXT = """\
{%- macro clean(value) -%}
{%- set kept -%}
{%- for c in value|string -%}
{%- if c.isspace() -%}{{- " " -}}{%- elif not (__DROPPED__) -%}{{- c -}}{%- endif -%}
{%- endfor -%}
{%- endset -%}
{{- kept.split()|join(" ") -}}
{%- endmacro -%}
{%- macro line(value) -%}
{%- set kept = namespace(text=clean(value), hit=false) -%}
{%- for first in __FIRSTS__ if first in kept.text -%}{%- set kept.hit = true -%}{%- endfor -%}
{%- for _ in range(__ROUNDS__) if kept.hit -%}
{%- set before = kept.text -%}
{%- for token, broken in __BROKEN__ -%}{%- set kept.text = kept.text.replace(token, broken) -%}{%- endfor -%}
{%- set kept.hit = kept.text != before -%}
{%- endfor -%}
{%- if kept.hit -%}{{- raise_exception("A text holds control tokens that overlap too often.") -}}{%- endif -%}
{{- kept.text -}}
{%- endmacro -%}
"""

# `field` is field_text, `first_words` and the like are those of core.field_values, and `item` is Item.parse.
_TEMPLATE = """\
{#- State: {"summary": text, "recent_items": [item, ...]}, oldest first, or the summary alone. Instructions: an item. -#}
{%- set entities = __ENTITIES__ -%}
{%- set windows = __WINDOWS__ -%}
__TEXT__{%- macro parts(value) -%}
{%- if value is mapping and value|length == 1 and (value|first == "$date" or (value|first)[:7] == "$number") -%}
{{- parts(value[value|first]) -}}
{%- elif value is mapping -%}
{%- for name, inner in value.items() if name|lower not in __IDS__ and name != "$oid" -%}
{%- set found = parts(inner).split("\\x00")[:-1] -%}
{%- if found -%}{{- (name ~ ": " ~ found|join(", ")).replace("\\x00", "") ~ "\\x00" -}}{%- endif -%}
{%- endfor -%}
{%- elif value is sequence and value is not string -%}
{%- for one in value -%}{{- parts(one) -}}{%- endfor -%}
{%- elif value is not none and value == value and (value|string).strip() -%}
{{- (value|string).replace("\\x00", "") ~ "\\x00" -}}
{%- endif -%}
{%- endmacro -%}
{%- macro unescape(text) -%}
{%- for piece in text.split("&") -%}
{%- set name = piece.split(";")[0] if not loop.first and ";" in piece[:9] else "" -%}
{%- set kept = namespace(code=-1, shown=entities.get(name, "")) -%}
{%- if name[:2] in ("#x", "#X") and name[2:] and not name[2:]|list|reject("in", "0123456789abcdefABCDEF")|list -%}
{%- set kept.code = name[2:]|int(-1, 16) -%}
{%- elif name[:1] == "#" and name[1:] and not name[1:]|list|reject("in", "0123456789")|list -%}
{%- set kept.code = name[1:]|int(-1) -%}
{%- endif -%}
{%- if kept.code in windows -%}{%- set kept.shown = windows[kept.code] -%}
{%- elif 0 <= kept.code < 55296 or 57344 <= kept.code < 1114112 -%}{%- set kept.shown = "%c"|format(kept.code) -%}
{%- endif -%}
{%- if kept.shown -%}{{- kept.shown ~ piece[name|length + 1:] -}}
{%- else -%}{{- ("" if loop.first else "&") ~ piece -}}{%- endif -%}
{%- endfor -%}
{%- endmacro -%}
{%- macro first_words(text, words) -%}
{%- set marked -%}
{%- for c in text -%}
{%- if c == " " -%}{{- "\\x00 \\x00" -}}{%- elif __UNSPACED__ -%}{{- "\\x00" ~ c ~ "\\x00" -}}{%- else -%}{{- c -}}{%- endif -%}
{%- endfor -%}
{%- endset -%}
{%- set pieces = marked.split("\\x00")|select|list -%}
{%- set kept = namespace(words=0, end=0) -%}
{%- for piece in pieces if kept.words < words -%}
{%- set kept.words = kept.words + (piece != " ") -%}{%- set kept.end = kept.end + piece|length -%}
{%- endfor -%}
{{- text[:kept.end].rstrip(", ") if kept.words == words and text[kept.end:] else text -}}
{%- endmacro -%}
{%- macro field(value, words, values) -%}
{%- set kept = parts(value).split("\\x00")[:-1] -%}
{%- set text = clean(unescape((kept[:values] if values else kept)|join(", "))) -%}
{{- first_words(text, words) if words else text -}}
{%- endmacro -%}
{%- macro whole(value) -%}{{- clean(parts(value).split("\\x00")[:-1]|join(", ")) -}}{%- endmacro -%}
{%- macro item(value) -%}
{%- set kept = namespace(parts=[]) -%}
{%- if value is string -%}{%- set kept.parts = [clean(value)] -%}
{%- elif value is mapping and whole(value.get("text")) -%}{%- set kept.parts = [whole(value["text"])] -%}
{%- elif value is mapping -%}
{%- for name, given in value.items() -%}
{%- set shown = "" if name.lower() in __IDS__ else field(given, __WORDS__, __VALUES__).replace(";", ",") -%}
{%- if shown -%}{%- set kept.parts = kept.parts + [clean(name).replace(";", ",").replace(":", " ") ~ ": " ~ shown] -%}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- if not kept.parts|join("") -%}{{- raise_exception("An item is text or a dict of fields, and must not be empty.") -}}{%- endif -%}
{{- line(kept.parts|join("; ")) -}}
{%- endmacro -%}
{%- set summary = state if state is string else state["summary"] -%}
{%- set recent = [] if state is string else (state["recent_items"] or [])[__RECENT__] -%}
{{- __HEAD__ -}}
{{- __INSTRUCTION__ -}}
{%- set shown = line(summary) if summary else "" -%}
{%- if shown -%}{{- __SUMMARY__ ~ shown -}}{%- endif -%}
{%- if recent -%}{{- __HEADING__ -}}{%- for one in recent -%}{{- "\\n- " ~ item(one) -}}{%- endfor -%}{%- endif -%}
{{- __CANDIDATE__ ~ item(question.instructions) ~ __CUE__ -}}
{{- __TAIL__ -}}
"""


def write(folder: Path, encoder: Encoder, temperature: float, bias: float) -> bool:
    """Write the decision files, unless `decision_config` gives None. Returns whether they were written."""
    config = decision_config(encoder, temperature)
    if config is None:
        return False
    config.save_pretrained(folder)
    if bias:
        # transformers ignores unknown settings; our own loader of adapter repos reads this one.
        path = folder / "decision.json"
        values = {**json.loads(path.read_text(encoding="utf-8")), "bias": {"noul": bias}}
        write_json(path, values)
    return True


def decision_config(encoder: Encoder, temperature: float) -> DecisionConfig | None:
    """The decision files' content for a tokenizer and a ranking prompt.

    Args:
        encoder: Gives prompt, chat frame and answer tokens.
        temperature: Divides the log-odds; fitted on validation.

    Returns:
        None where the template cannot give the token ids that the recommender was trained on: a tokenizer that writes
        its first word differently after a control token does this, or one that takes other forms of an added token for it.
    """
    labels = _labels(encoder)
    config = DecisionConfig(
        labels={"noul": labels}, temperature={"noul": temperature}, chat_template=_template(encoder)
    )
    if not labels or not all(_agree(encoder, config, *case) for case in _CASES):
        return None
    forms = unusual_forms(encoder.tokenizer, encoder.added_tokens())
    added = encoder.tokenizer.added_tokens_decoder
    added_ids = [
        [token_id for token_id in _ids(encoder, config, text, (), text) if token_id in added]
        for text in (forms, "Emma")
    ]
    return config if added_ids[0] == added_ids[1] else None


_Item = str | Mapping[str, object]
_CASES: tuple[tuple[str | None, Sequence[_Item], _Item], ...] = (
    (None, (), "title: Emma"),
    ("Likes sea stories.", ("title: The Salt Lantern; genre: sea stories",), "title: Reef & Anchor; price: 9.50"),
    ("Mostly:\nmystery", ("First", "Second\tone", "Third"), "Ünïcode — “quotes”, 書籍, 🙂\u200b!"),
    (
        None,
        (
            {"title": "A; B", "genres": ["x", None, float("nan"), ["y", " "]], "blurb": None},
            {"text": "C &amp; c", "title": "D"},
            {
                "title": "Salt &amp; Pepper &#39;n&#x27; &#146;&foo;&amp;lt;",
                "details": {"Brand": ["A", "B"], "asin": "7"},
            },
            {"title": "書籍と映画 " * 50, "since": {"$date": "2020"}},
        ),
        {"item_id": "7", "ti;t:le": "Emma", "about": "many words, " * 50, "price": float("nan"), "new": True},
    ),
)


def _agree(
    encoder: Encoder, config: DecisionConfig, summary: str | None, recent: Sequence[_Item], candidate: _Item
) -> bool:
    """Whether the template gives the same token ids as the encoder."""
    items = [encoder.prompt.item(item) for item in recent]
    ours = encoder.prefix_ids(summary, items).ids + encoder.suffix_ids(encoder.prompt.item(candidate))
    return _ids(encoder, config, summary, recent, candidate) == ours


def _ids(
    encoder: Encoder, config: DecisionConfig, summary: str | None, recent: Sequence[_Item], candidate: _Item
) -> list[int]:
    """The token ids that the template gives."""
    request = {
        "state": {"summary": summary, "recent_items": list(recent)},
        "questions": {"candidate": {"type": "noul", "instructions": candidate}},
    }
    # `prepare_inputs` adds sentinels to the tokenizer: a copy, for that of the encoder goes into the release.
    inputs, _ = config.prepare_inputs(request, copy.deepcopy(encoder.tokenizer))[0]
    return inputs["input_ids"][0].tolist()


def _labels(encoder: Encoder) -> list[str]:
    """The answer words as they follow the cue, yes first; empty if they are not single tokens without context."""
    answer_ids = [encoder.yes_id, encoder.no_id]
    for form in (" {}", "{}"):
        labels = [form.format(word) for word in (encoder.prompt.yes, encoder.prompt.no)]
        if encoder.tokenizer(labels, add_special_tokens=False)["input_ids"] == [[token_id] for token_id in answer_ids]:
            return labels
    return []


def _template(encoder: Encoder) -> str:
    prompt, head, tail = encoder.prompt, *encoder.frame()
    before = "\n\n".removesuffix(encoder.breaks)
    values = {
        "TEXT": text_macros(encoder.added_tokens()),
        "UNSPACED": _within(UNSPACED),
        "ENTITIES": _mapping(ENTITIES),
        "WINDOWS": _mapping(WINDOWS),
        "IDS": quoted(sorted(ID_FIELDS)),
        "WORDS": str(prompt.field_words),
        "VALUES": str(prompt.field_values),
        "RECENT": f"-{prompt.recent_items}:" if prompt.recent_items else ":0",
        "HEAD": quoted(head + SPLIT),
        "INSTRUCTION": quoted(prompt.instruction),
        "SUMMARY": quoted(f"\n\n{prompt.summary_heading}\n- "),
        "HEADING": quoted(f"\n\n{prompt.recent_heading}"),
        "CANDIDATE": quoted(f"{before}{SPLIT}{encoder.breaks}{prompt.candidate_heading}\n- "),
        "CUE": quoted(f"\n\n{prompt.cue}{SPLIT}"),
        "TAIL": quoted(tail),
    }
    return fill(_TEMPLATE, values)


def text_macros(tokens: AddedTokens) -> str:
    """The macros `clean` and `line` of a template, which make one line of text from outside, without these tokens."""
    broken = list(tokens)
    values = {
        "DROPPED": _within(_DROPPED),
        "FIRSTS": quoted(sorted({token[0] for token, _ in broken})),
        "BROKEN": quoted(broken),
        # One that overlaps itself takes a round for each of its characters at most, and the last one finds nothing.
        "ROUNDS": str(2 + 2 * max((len(token) for token, _ in broken), default=0)),
    }
    return fill(_TEXT, values)


def unusual_forms(tokenizer, tokens: AddedTokens) -> str:
    """A text that holds tokens overlapping themselves, and in forms that a normalizer may make the same: another case, full
    width, accents. Most tokenizers have neither: they look for tokens in the text as it is.
    """
    fast = getattr(tokenizer, "backend_tokenizer", None)
    normalizes = fast is None or fast.normalizer is not None
    normalized = {
        added_token.content
        for added_token in tokenizer.added_tokens_decoder.values()
        if added_token.normalized and normalizes
    }
    forms: list[str] = []
    for token, _ in tokens:
        forms += [token + token[size:] for size in range(1, len(token)) if token.endswith(token[:size])]
        if token in normalized:
            wide = "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in token)
            accented = "".join(f"{char}\u0301" if char.isalpha() else char for char in token)
            forms += [token.upper(), token.lower(), wide, accented]
    return " x ".join(["x", *forms])


def fill(template: str, values: Mapping[str, str]) -> str:
    """`template` with each `__NAME__` replaced."""
    for name, value in values.items():
        template = template.replace(f"__{name}__", value)
    return template


def _within(ranges: Sequence[tuple[str, str]]) -> str:
    """Whether the character `c` is in one of some ranges, for Jinja."""
    return " or ".join(f"{quoted(low)} <= c <= {quoted(high)}" for low, high in ranges)


def _mapping(values: Mapping) -> str:
    return "{" + ", ".join(f"{json.dumps(key)}: {quoted(value)}" for key, value in values.items()) + "}"


def quoted(value: str | Sequence) -> str:
    """`value` as a literal of Jinja, which reads its strings as Python does."""
    if isinstance(value, str):
        return '"' + value.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
    return "[" + ", ".join(map(quoted, value)) + "]"
