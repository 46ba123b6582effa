"""What the report's page says of a search."""

FILE = "search.json"
