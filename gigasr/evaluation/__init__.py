"""Metrics of models, reports, and timings."""
