"""Recorded full-scale runs, one JSON file for each experiment. No code."""
