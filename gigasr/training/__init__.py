"""Training: data, losses, the game and its loop."""
