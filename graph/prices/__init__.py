"""Prices: a matrix of closes, and the returns, performance and relative strength computed from it."""
