"""The addresses of the local stack. tests/stack/test_documented_commands.py tests `make run` and `make up`."""

from urllib.parse import urljoin

import pytest
import requests

from tests.stack.conftest import Stack
from tests.upstream.repositories import SMALL

# Its first test starts a stack.
pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


def test_location_resolves_against_the_address_of_the_api(stack: Stack) -> None:
    answer = stack.submit(SMALL, ignore_patterns=["location"])  # another selection is another model
    assert answer.status_code == 201
    for location in (answer.headers["Location"], "/v1/docs"):
        assert stack.http.get(urljoin(answer.url, location), timeout=30).status_code == 200
    assert requests.get(urljoin(stack.state.hub_url, "/hf/api/whoami-v2"), timeout=30).status_code == 401
