"""Render the templates in model_cards/. Strict: a missing value fails the render."""

from collections.abc import Mapping
from pathlib import Path

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

_HERE = Path(__file__).parent
# Beside the package in a wheel; at the top of the tree in a checkout.
_FOLDERS = [_HERE / "model_cards", _HERE.parent.parent / "model_cards"]


def render(template: str, values: Mapping[str, object]) -> str:
    """Fill model_cards/`template`.md.

    Raises:
        jinja2.UndefinedError: If the template names a value that is not given.
    """
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(_FOLDERS), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    return environment.get_template(f"{template}.md").render(values)
