"""`trsr audit`: what the summaries of a dataset say about their histories, measured without a model."""
