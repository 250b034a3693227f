"""Several systems on the same candidates: from their score files to tables, tests, slices and pictures."""
