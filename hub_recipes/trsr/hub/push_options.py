"""Options for pushing a folder of data to the Hub."""

import argparse


def add(parser: argparse._ActionsContainer, what: str = "the dataset") -> None:
    """Add them to a parser or a group. `what`: is pushed."""
    add = parser.add_argument
    add("--push-to-hub", metavar="ORG/NAME", help=f"then push {what}: one commit")
    add("--private", action="store_true", help="with --push-to-hub: create the repo private; a public one is refused")
    add("--overwrite", action="store_true", help="with --push-to-hub: commit over what others edited on the Hub")
    add("--accept-data-licence", action="store_true", help="you have read the terms of data whose texts stay at home")
