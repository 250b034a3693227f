"""What is written down of a run: versions, checksums, costs."""
