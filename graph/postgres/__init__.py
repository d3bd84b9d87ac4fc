"""PostgreSQL: connections, statements, tables, and the embedded server."""
