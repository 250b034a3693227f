"""Bases trained from scratch: the nano model in the package, and one that knows a dataset's items."""
