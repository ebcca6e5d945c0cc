"""The import pipeline. Its modules in order: submit, accept, plan, transfer, publish, finish, retry, sweep, notify."""
