"""Train the language model that ships with the package: a base and a summarising adapter, on synthetic data alone.

`worlds` and `games` generate the data, `curriculum` makes ranking prompts of it, and `lessons` summarisation prompts with
answers in the wording of `wording`; `base` and `summarizer` train.
"""
