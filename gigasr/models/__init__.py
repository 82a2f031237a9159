"""Weights: from which files, names and places they come, and in which forms they leave."""
