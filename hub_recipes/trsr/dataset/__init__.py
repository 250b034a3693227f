"""Datasets: what one holds, how raw logs become one, and whether it keeps the contract."""
