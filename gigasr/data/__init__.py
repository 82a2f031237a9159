"""Training data: captioned samples, and low-res images made from them."""
