"""Models: find, load, save and export weights."""
