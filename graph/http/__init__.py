"""GraphQL over HTTP, and GraphiQL for browsers."""
