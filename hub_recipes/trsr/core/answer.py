"""What a language model answered: the record that every engine returns."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        text: As the model wrote it, not cleaned; of a failure, what the engine says of it.
        finish_reason: As the engine reports it: `stop`, `length`, `content_filter`; empty if it does not say.
        prompt_tokens, completion_tokens: As the engine counts them.
        failure: Why there is no answer, such as `rejected (400)`; empty for an answer.
    """

    text: str
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failure: str = ""
