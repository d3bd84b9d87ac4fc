"""PostgreSQL: its connections, statements and tables, and the one that is embedded."""
