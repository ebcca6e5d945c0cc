"""The generated pages and documents match the code."""

import pytest

from bench.pages import PAGES


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if page.render_for_comparison])
def test_generated_page_matches_the_code(name: str) -> None:
    page = PAGES[name]
    assert page.render_for_comparison is not None
    assert page.path.read_text() == page.render_for_comparison(), f"run `make pages PAGES={name}` and review the change"
