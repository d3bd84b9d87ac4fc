"""stockgraph: stocks and the groups that hold them, as a GraphQL graph over PostgreSQL."""
