"""Files to pictures and back: depth, alpha, profiles, metadata, frames."""
