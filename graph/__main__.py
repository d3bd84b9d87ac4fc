"""`python -m graph`: the same as the `stockgraph` command."""

from graph.cli.commands import main

main()
