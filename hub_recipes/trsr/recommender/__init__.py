"""Train and evaluate recommenders: from a dataset with summaries to an adapter, its scores and results."""
