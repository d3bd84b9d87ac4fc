"""The caches, and the generations under which they may serve."""
