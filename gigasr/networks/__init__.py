"""The paper's networks and their building blocks."""
