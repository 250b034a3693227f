"""The language model that ships with the package: its base and the adapter that summarises, made from nothing but seeds.

`worlds` and `games` make up what is read, `curriculum` asks it as rankings, `lessons` as summaries in the words of `wording`;
`base` and `summarizer` train.
"""
