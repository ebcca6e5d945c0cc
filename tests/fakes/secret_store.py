import threading

from modelhaul.domain.errors import CredentialsRefusedError


class InMemorySecretStore:
    def __init__(self, secrets: dict[str, str] | None = None) -> None:
        self._lock = threading.Lock()
        self._secrets = dict(secrets or {})

    def put_secret(self, secret_id: str, text: str) -> None:
        with self._lock:
            self._secrets[secret_id] = text

    def read_secret(self, secret_id: str) -> str:
        with self._lock:
            try:
                return self._secrets[secret_id]
            except KeyError:
                raise CredentialsRefusedError("The configured secret cannot be read.") from None
