# /// script
# requires-python = ">=3.11"
# dependencies = ["llm-trsr"]
#
# [tool.hf-jobs]
# flavor = "a100-large"
# timeout = "8h"
# secrets = ["HF_TOKEN"]
# ///
"""Fine-tune by recipe, on Hugging Face Jobs.

    uv build --wheel
    hf jobs uv run --namespace ORG -v ./dist:/dist -e UV_FIND_LINKS=/dist hub_recipes/jobs/train.py -- \\
        --bucket ORG/trsr qwen3-0.6b-goodbooks dataset=data/NAME --out runs/NAME

The run is then in the bucket under runs/NAME. A job that was stopped goes on from its last checkpoint: launch it again.
A recipe of your own is sent along: name its file, as from here.

Hardware and time limit stand in the header; --flavor and --timeout before the script's name change them. The package
comes from the wheel in ./dist as long as it is not on PyPI. HF_TOKEN is taken from your environment as a secret: it needs
to write to the bucket. Without -- the options would be taken for those of `hf jobs`. With --dry-run before the script's
name nothing is launched; at the end, the job says what it would do.
"""

from trsr.cli.job import run

if __name__ == "__main__":
    run("train", __doc__)
