"""The `stockgraph` command line."""
