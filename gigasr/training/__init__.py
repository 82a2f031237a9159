"""Training: losses, the adversarial task and the loop."""
