"""Batch runs: output planning, prompts, reports, and local and Ray runs."""
