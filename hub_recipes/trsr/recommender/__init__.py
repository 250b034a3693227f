"""A dataset with summaries -> an adapter that ranks, and how well it does."""
