"""Samples: their keys, their encodings, their schema."""
