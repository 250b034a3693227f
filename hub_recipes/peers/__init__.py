"""Peers of LLM-TRSR, of other libraries where there is one: fitted on the same data, tuned alike, measured by the same code."""
