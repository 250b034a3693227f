"""A base from scratch for one dataset: it knows the items by name, and who chose what after what.

A language model of a few million parameters that has never seen the items cannot rank them by their titles. This one is
trained on the histories of a dataset's users, as sequential recommenders are, but reads and asks in the prompts of
`core.prompts`: adapters are then fine-tuned on it as on any other base.
"""
