"""Indexes: where datasets are announced, so that others find them by name."""
