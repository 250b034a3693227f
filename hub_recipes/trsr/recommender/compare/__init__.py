"""Compare systems on the same candidates: from their scores to tables, paired tests, slices and pictures."""
