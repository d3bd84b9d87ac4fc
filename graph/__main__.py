"""Entry point of `python -m graph`, which runs the `stockgraph` command."""

from graph.cli.commands import main

main()
