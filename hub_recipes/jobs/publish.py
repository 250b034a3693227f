# /// script
# requires-python = ">=3.11"
# dependencies = ["llm-trsr"]
#
# [tool.hf-jobs]
# flavor = "cpu-upgrade"
# timeout = "1h"
# secrets = ["HF_TOKEN"]
# ///
"""Publish a finished run, on Hugging Face Jobs: dry unless --push is given.

    uv build --wheel
    hf jobs uv run --namespace ORG -v ./dist:/dist -e UV_FIND_LINKS=/dist hub_recipes/jobs/publish.py -- \\
        --bucket ORG/trsr runs/NAME --namespace ORG --push

Leave --push away to see in the job's log what would be published.

Hardware and time limit stand in the header; --flavor and --timeout before the script's name change them. The package
comes from the wheel in ./dist as long as it is not on PyPI. HF_TOKEN is taken from your environment as a secret: it needs
to write to the bucket and to ORG's repos. Without -- the options would be taken for those of `hf jobs`. With --dry-run before the script's
name nothing is launched; at the end, the job says what it would do.
"""

from trsr.cli.job import run

if __name__ == "__main__":
    run("publish", __doc__)
