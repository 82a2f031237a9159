"""Image files: reading and writing depth, alpha, profiles, metadata and frames."""
