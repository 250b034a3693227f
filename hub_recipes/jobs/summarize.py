# /// script
# requires-python = ">=3.11"
# dependencies = ["llm-trsr"]
#
# [tool.hf-jobs]
# flavor = "a100-large"
# timeout = "6h"
# secrets = ["HF_TOKEN"]
# ///
"""Summarise the histories of a dataset with a language model, on Hugging Face Jobs.

    uv build --wheel
    hf jobs uv run --namespace ORG -v ./dist:/dist -e UV_FIND_LINKS=/dist hub_recipes/jobs/summarize.py -- \\
        --bucket ORG/trsr ORG/DATASET --out data/NAME --engine transformers:MODEL

The dataset with its summaries is then in the bucket under data/NAME. A job that was stopped goes on from the summaries
it had: launch it again.

Hardware and time limit stand in the header; --flavor and --timeout before the script's name change them. The package
comes from the wheel in ./dist as long as it is not on PyPI. HF_TOKEN is taken from your environment as a secret: it needs
to write to the bucket. Without -- the options would be taken for those of `hf jobs`. With --dry-run before the script's
name nothing is launched; at the end, the job says what it would do.
"""

from trsr.cli.job import run

if __name__ == "__main__":
    run("summarize", __doc__)
