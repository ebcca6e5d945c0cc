"""The read API for Hub clients: snapshots of imported models, and the responses to requests for them."""
