"""A local Hub for tests: the real clients speak to it over HTTP, and any of their requests can be made to fail.

Serves what it takes to create, fill, gate, tag and load repos, to open pull requests and to collect. What it does not
serve it answers with 501. Leaves out: xet, multipart uploads, pages of long lists, .gitignore, what the Hub reads from
cards, lists of repos and commits, deleting and moving repos, discussions, merging, Spaces that run, the dataset viewer.
Every date is the same.
"""

from tests.hub.clients import environment
from tests.hub.server import Hub, Record
from tests.hub.state import User

__all__ = ["Hub", "Record", "User", "environment"]
