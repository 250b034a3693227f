"""The language models that write summaries."""
