"""Read the tokens of the sources from their configured secrets."""

from collections.abc import Callable

from modelhaul.domain.errors import CredentialsRefusedError

# The stack parameters with the ARNs of the secrets.
GITHUB_PARAMETER = "GitHubTokenSecret"
HUB_PARAMETER = "HuggingFaceTokenSecret"


def read_token(read_secret: Callable[[], str | None] | None, parameter: str) -> str | None:
    """Return the token, None without a configured secret. `parameter` is the secret's stack parameter, for messages.

    Raises CredentialsRefusedError, also for text that is not a token, and StorageUnavailableError.
    """
    try:
        token = ((read_secret() if read_secret else None) or "").strip()
    except CredentialsRefusedError as error:
        # `from None`: stack traces must not show the name of a secret.
        raise CredentialsRefusedError(f"{error.detail} Stack parameter: {parameter}.") from None
    if token.isascii() and token.isprintable() and " " not in token:
        return token or None
    raise CredentialsRefusedError(
        f"The secret in {parameter} does not contain a valid token. It must contain the token only."
    )
