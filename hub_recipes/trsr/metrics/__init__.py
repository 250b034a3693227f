"""Ranking metrics, their significance and calibration, in numpy."""
