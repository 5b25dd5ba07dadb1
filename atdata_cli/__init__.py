"""Shard datasets into WebDataset tars in any store, and publish them."""

__version__ = "0.1.0"
