"""Stores: where shards live. ``registry.open_store`` finds the one that a URL's scheme names."""
