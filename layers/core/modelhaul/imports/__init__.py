"""The pipeline, in its order: submit, accept, plan, transfer, publish, finish, retry, sweep, notify."""
