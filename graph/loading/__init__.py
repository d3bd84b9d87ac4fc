"""Files of holdings and prices: how they are found, read, checked and written to the database."""
