"""Train a base from scratch for one dataset: it learns the items and their order in histories.

A language model of a few million parameters that has never seen the items cannot rank them by their titles. This one is
trained on the histories of a dataset, like a sequential recommender, but with the prompts of `core.prompts`. Adapters are
then fine-tuned on it as on any other base.
"""
