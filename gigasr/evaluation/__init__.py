"""Figures, a report of them, and times."""
