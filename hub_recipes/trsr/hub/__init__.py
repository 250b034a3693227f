"""A recommender -> repos on the Hub: what each of them holds, whether it may go, and how it gets there."""
