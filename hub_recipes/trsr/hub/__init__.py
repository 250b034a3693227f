"""Publish a recommender on the Hub: assemble its repos, check them, and push them."""
