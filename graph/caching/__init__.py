"""What is kept in memory, and the generations under which it may be served."""
