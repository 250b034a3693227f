# /// script
# requires-python = ">=3.11"
# dependencies = ["llm-trsr"]
#
# [tool.hf-jobs]
# flavor = "cpu-upgrade"
# timeout = "2h"
# secrets = ["HF_TOKEN"]
# ///
"""Make a dataset of items and histories from raw files, on Hugging Face Jobs.

    uv build --wheel
    hf jobs uv run --namespace ORG -v ./dist:/dist -e UV_FIND_LINKS=/dist hub_recipes/jobs/build.py -- \\
        --bucket ORG/trsr dataset_scripts/tables.py --items raw/items.csv --interactions raw/log.csv --out data/NAME

The script and the files that are here are sent along; large files belong into the bucket first: `hf buckets sync ./raw
hf://buckets/ORG/trsr/raw`. The dataset is then in the bucket under data/NAME.

Hardware and time limit stand in the header; --flavor and --timeout before the script's name change them. The package
comes from the wheel in ./dist as long as it is not on PyPI. HF_TOKEN is taken from your environment as a secret: it needs
to write to the bucket. Without -- the options would be taken for those of `hf jobs`. With --dry-run before the script's
name nothing is launched; at the end, the job says what it would do.
"""

from trsr.cli.job import run

if __name__ == "__main__":
    run(None, __doc__)
