"""The templates of model_cards/, filled in strictly: a missing value fails the render, and values are data.

They can neither close the header nor become markup or template code. In a template a value never opens a line, see `plain`.
"""

import functools
from collections.abc import Mapping

import yaml
from jinja2 import FileSystemLoader, StrictUndefined, UndefinedError
from jinja2.sandbox import SandboxedEnvironment

from trsr.assets.paths import PACKAGE
from trsr.core.history import clean
from trsr.errors import ReleaseError
from trsr.report.markdown import Markdown, plain

# Beside the package in a wheel; at the top of the tree in a checkout.
_FOLDERS = [PACKAGE / "model_cards", PACKAGE.parent.parent / "model_cards"]


def render(template: str, values: Mapping[str, object]) -> str:
    """Fill model_cards/`template`.md.

    Raises:
        ReleaseError: If the template names a value that is not given, or is None.
    """
    try:
        return _environment().get_template(f"{template}.md").render(values)
    except (UndefinedError, AttributeError, TypeError, ValueError) as error:
        raise ReleaseError(
            f"The card {template}.md has a value that is not known: {error}. Train or evaluate the run anew."
        ) from error


@functools.cache
def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(_FOLDERS),
        undefined=StrictUndefined,
        finalize=_shown,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,
    )
    environment.filters["number"] = _number
    return environment


def _shown(value: object) -> object:
    """A value as Markdown shows it."""
    if value is None:
        raise ValueError("it is None")
    return value if isinstance(value, (Markdown, StrictUndefined, int, float)) else plain(str(value))


def _number(value, form: str) -> str:
    """A number in a format of Python's."""
    return format(value + 0, form)  # the sum fails for what is no number, and names what is missing


def yaml_header(header: Mapping) -> str:
    """The header of a card, each text in it one line."""

    def cleaned(value):
        if isinstance(value, Mapping):
            return {name: cleaned(one) for name, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [cleaned(one) for one in value]
        return clean(value) if isinstance(value, str) else value

    return yaml.safe_dump(cleaned(header), sort_keys=False, allow_unicode=True).strip()
