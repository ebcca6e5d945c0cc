"""Secrets."""

from typing import Protocol


class SecretStore(Protocol):
    def read_secret(self, secret_id: str) -> str:
        """The secret's text. Raises CredentialsRefusedError if it is not there or not ours to read,
        StorageUnavailableError if there is no answer.
        """
