"""Render the templates of model_cards/. A missing value is an error, and values are data.

A value can neither close the YAML header nor become markup or template code. No template starts a line with a value, see
`markdown.plain`.
"""

import functools
from collections.abc import Mapping

import yaml
from jinja2 import FileSystemLoader, StrictUndefined, UndefinedError
from jinja2.sandbox import SandboxedEnvironment

from trsr.assets.paths import PACKAGE
from trsr.core.history import clean
from trsr.errors import ReleaseError
from trsr.report.markdown import Markdown, link, plain

# In the package in a wheel; at the top of the tree in a checkout.
_FOLDERS = [PACKAGE / "model_cards", PACKAGE.parent.parent / "model_cards"]


def render(template: str, values: Mapping[str, object], header: Mapping[str, object] | None = None) -> str:
    """Render model_cards/`template`.md.

    Args:
        header: Of the card, written as YAML; None for a template without one.

    Raises:
        ReleaseError: If the template uses a value that is missing or None.
    """
    if header is not None:
        values = {**values, "header": Markdown(_yaml(header))}
    try:
        return _environment().get_template(f"{template}.md").render(values)
    except (UndefinedError, AttributeError, TypeError, ValueError) as error:
        raise ReleaseError(
            f"The card {template}.md has a value that is not known: {error}. Train or evaluate the run again."
        ) from error


@functools.cache
def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(_FOLDERS),
        undefined=StrictUndefined,
        finalize=_as_markdown,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,
    )
    environment.filters["number"] = _number
    environment.filters["link"] = link
    return environment


def _as_markdown(value: object) -> object:
    """A value for a template: strings are escaped, see `plain`. Raises ValueError for None."""
    if value is None:
        raise ValueError("it is None")
    return value if isinstance(value, (Markdown, StrictUndefined, int, float)) else plain(str(value))


def _number(value, form: str) -> str:
    """Format a number with a format specification of Python."""
    return format(value + 0, form)  # `+ 0` fails for anything but a number, and names a missing value


def _yaml(header: Mapping) -> str:
    """The YAML header of a card; every text in it is reduced to one line."""

    def cleaned(value):
        if isinstance(value, Mapping):
            return {name: cleaned(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [cleaned(item) for item in value]
        return clean(value) if isinstance(value, str) else value

    return yaml.safe_dump(cleaned(header), sort_keys=False, allow_unicode=True).strip()
