"""Registry of the generated pages and documents.

`make pages` writes them, and `bench/tests/test_pages.py` compares them with the code. All machines give the same pages.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import call_counts, call_faults, costs, scale
from bench.servers import ROOT
from openapi import gateway, hub_gateway, policy_schema
from openapi.document import DOCUMENT, render_document


@dataclass(frozen=True, slots=True)
class Page:
    """`render_for_comparison` is what the tests compare with the file; None for a page that takes minutes."""

    path: Path
    render: Callable[[], str]
    render_for_comparison: Callable[[], str] | None


PAGES = {
    "openapi": Page(DOCUMENT, render_document, render_document),
    "gateway-responses": Page(gateway.GATEWAY_RESPONSES, gateway.render_responses, gateway.render_responses),
    "hub-gateway-responses": Page(
        hub_gateway.HUB_GATEWAY_RESPONSES, hub_gateway.render_responses, hub_gateway.render_responses
    ),
    "policy-schema": Page(policy_schema.SCHEMA, policy_schema.render_schema, policy_schema.render_schema),
    "calls": Page(ROOT / "docs" / "calls.md", call_counts.describe_counts, call_counts.describe_counts),
    "costs": Page(costs.PAGE, costs.render_page, costs.render_page),
    **{
        f"costs-{Path(path).stem}": Page(ROOT / path, *2 * (partial(costs.render_quote, path),))
        for path in costs.QUOTES
    },
    "faults": Page(
        call_faults.PAGE,
        call_faults.describe_faults,
        # What an outage leads to depends on the timing of threads.
        partial(call_faults.describe_faults, keep_outages=True),
    ),
    "scale": Page(ROOT / "docs" / "scale.md", scale.render_page, None),
    "scale-plot": Page(ROOT / "docs" / "scale.svg", scale.render_plot, None),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__)
    parser.add_argument("pages", nargs="*", metavar="page", help=f"one of {', '.join(PAGES)}; default: all")
    names = parser.parse_args().pages or list(PAGES)
    if unknown := set(names) - set(PAGES):
        parser.error(f"unknown page: {', '.join(sorted(unknown))}")
    for name in names:
        page = PAGES[name]
        print(f"{page.path.relative_to(ROOT)} …", file=sys.stderr, flush=True)
        page.path.write_text(page.render())


if __name__ == "__main__":
    main()
