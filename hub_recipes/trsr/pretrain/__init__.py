"""Train bases from scratch: the nano model in the package, and domain bases for one dataset."""
