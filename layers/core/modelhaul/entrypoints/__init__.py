"""Entry points of the functions: API requests and responses, problems, batches of messages and stream records."""
