"""Train a summariser for ranking: sample summaries, keep those under which a ranker finds the next item, fine-tune on them.

`sample` draws several summaries a user, `select` keeps the best, `fine_tune` trains an adapter on what was kept, `run` is
the whole path from a finished run to a folder with the adapter.
"""
