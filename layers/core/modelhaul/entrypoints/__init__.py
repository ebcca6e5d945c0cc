"""API and worker edges: requests in, problems out, batches."""
