"""GraphQL over HTTP, and the pages for a browser."""
