"""Secrets."""

from typing import Protocol


class SecretStore(Protocol):
    """Secrets, such as the tokens of the sources."""

    def read_secret(self, secret_id: str) -> str:
        """Return the secret's text.

        Raises CredentialsRefusedError if the secret does not exist or access is denied, StorageUnavailableError if the
        request fails.
        """
