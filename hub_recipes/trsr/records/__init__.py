"""Records of runs and datasets: provenance, checksums, versions, costs, and atomic writes."""
