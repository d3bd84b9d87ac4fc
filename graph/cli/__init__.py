"""The `stockgraph` command."""
