"""`trsr check`: whether a dataset keeps the contract, and what in it would spoil training or evaluation."""
