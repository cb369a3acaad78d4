"""Configuration files: TOML text in, frozen dataclasses out; every mistake of a file is named at once."""
