"""Closes in memory, and what is computed from them."""
