"""Training data: captioned samples of folders and shards, and low-res images made, and damaged, from them."""
