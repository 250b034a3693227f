"""Recommend from a whole catalogue: item vectors from text and ids, and a causal model of the user over them."""
