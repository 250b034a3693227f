# /// script
# requires-python = ">=3.11"
# dependencies = ["llm-trsr"]
#
# [tool.hf-jobs]
# flavor = "a10g-large"
# timeout = "4h"
# secrets = ["HF_TOKEN"]
# ///
"""Rank the released candidates with a finished run and measure, on Hugging Face Jobs.

    uv build --wheel
    hf jobs uv run --namespace ORG -v ./dist:/dist -e UV_FIND_LINKS=/dist hub_recipes/jobs/evaluate.py -- \\
        --bucket ORG/trsr runs/NAME

The results are then in the bucket under runs/NAME/test. A job that was stopped goes on from the users it had scored.

Hardware and time limit stand in the header; --flavor and --timeout before the script's name change them. The package
comes from the wheel in ./dist as long as it is not on PyPI. HF_TOKEN is taken from your environment as a secret: it needs
to write to the bucket. Without -- the options would be taken for those of `hf jobs`. With --dry-run before the script's
name nothing is launched; at the end, the job says what it would do.
"""

from trsr.cli.job import run

if __name__ == "__main__":
    run("evaluate", __doc__)
