"""Metrics of models, a report of them, and timings."""
