"""Control tokens of chat templates, and blocks of reasoning, as they stand in text. Knows nothing of tokenizers."""

import re

# One token or role mark: ChatML, Llama 3 and gpt-oss; DeepSeek; Gemma; Llama 2 and Mistral; reasoning and tools.
# Written without look-around, so that Arrow's engine takes it too.
CONTROL_TOKEN = (
    r"[<＜][|｜][^<>|｜\n]{1,48}[|｜][>＞]|<\|[a-z_]{1,48}>|<[a-z_]{1,48}\|>|"
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|THINK)\]|<</?SYS>>|</?s>|"
    r"<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|"
    r"</?(?:[A-Za-z_]{1,20}:)?(?i:think|thinking|tool_call|tool_response)>|◁/?think▷"
)

# Where text that may be one is broken up. Wider than CONTROL_TOKEN: breaking up <b> does no harm, and tokens are many.
BREAKABLE = re.compile(
    r"[<＜◁](?=[^<>＜＞\s]{1,64}[>＞▷])|"
    # Letters up to the first two capitals side by side: one way to match, so that long runs take linear time.
    r"[\[［](?=/?(?:[a-z_]|[A-Z](?![A-Z]))*[A-Z]{2}[A-Za-z_]*[\]］])"
)

# A mark that opens or closes a block of reasoning in a chat template: its bracket, slash, name and bracket.
THINKING = re.compile(r"([<\[◁])(/?)((?:\w{1,20}:)?(?:think(?:ing)?|thought))([>\]▷])", re.IGNORECASE)

_NAME = r"(?:\w{1,20}:)?(?:think(?:ing)?|thought|reasoning)"
_OPENING = (
    rf"<{_NAME}>|\[THINK\]|◁think▷|<\|START_THINKING\|>|<\|begin_of_thought\|>|<\|inner_prefix\|>|"
    # gpt-oss and Gemma 4; of the former also without its control tokens, as servers leave it.
    r"<\|channel\|?>\s*(?:analysis|commentary|thought)\b(?:<\|message\|>)?|(?-i:\Aanalysis(?=[A-Z]))"
)
_CLOSING = (
    rf"</{_NAME}>|\[/THINK\]|◁/think▷|<\|END_THINKING\|>|<\|end_of_thought\|>|<\|inner_suffix\|>|"
    r"<\|channel\|>\s*final\b[^<]{0,20}<\|message\|>|<channel\|>|(?-i:assistantfinal)"
)
_MARK = re.compile(rf"(?P<opening>{_OPENING})|{_CLOSING}", re.IGNORECASE)
# What stands around the answer of a model that reasons.
_AROUND = re.compile(
    r"</?answer>|<\|(?:START_RESPONSE|END_RESPONSE|(?:begin|end)_of_solution|end|return|im_end|eot_id)\|>|</s>",
    re.IGNORECASE,
)


# What ends an answer in a chat template: </s>, <|im_end|>, <|endoftext|>, <|eot_id|>, <end_of_turn>.
_END_OF_ANSWER = re.compile(
    r"</s>|<(?:eos|pad|end_of_turn)>|<turn\|>|[<＜][|｜](?=[^<>|｜\s]{0,40}(?:end|eot|eom|eos|return))[^<>|｜\s]{1,48}[|｜][>＞]",
    re.IGNORECASE,
)


def has_reasoning(text: str) -> bool:
    """Whether a mark of a block of reasoning stands in the text."""
    return _MARK.search(text) is not None


def without_reasoning(text: str) -> str:
    """`text` without its blocks of reasoning, in any of the usual spellings.

    A block without its end takes all that follows; one without its beginning, which may have stood in the prompt, all that
    went before.
    """
    parts: list[str] = []
    start, inside = 0, False
    for mark in _MARK.finditer(text):
        if mark["opening"] is None:
            if not inside:
                parts.clear()
            inside = False
        elif not inside:
            parts.append(text[start : mark.start()])
            inside = True
        start = mark.end()
    if not start:
        return text
    if not inside:
        parts.append(text[start:])
    return _AROUND.sub("", "".join(parts)).strip()


def without_closing(text: str) -> str:
    """`text` without the control tokens that close an answer, where nothing but such tokens follows them."""
    end = len(text)
    for mark in reversed(list(_END_OF_ANSWER.finditer(text))):
        if text[mark.end() : end].strip():
            break
        end = mark.start()
    return text[:end]
