"""Settings as TOML: frozen models, strict about every key."""
