"""A local Hub for tests: the real clients speak to it over HTTP."""

from tests.hub.server import Hub, Record, environment
from tests.hub.state import User

__all__ = ["Hub", "Record", "User", "environment"]
