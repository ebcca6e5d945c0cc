"""`python -m bench.console_image`: take the screenshot docs/console.png of the dashboard's widget.

The image depends on the fonts of the machine, so no test compares it.
"""

import io
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver.common.by import By

from bench.servers import ROOT
from tests import console
from tests.browsers import WidgetPage, open_browser
from tests.fakes.deployment import Deployment

IMAGE = ROOT / "docs" / "console.png"
WIDTH = 1200  # pixels
COLORS = 256


def take_screenshot() -> bytes:
    """Return a PNG of the widget with imports at all stages."""
    deployment = Deployment()
    deployment.clock.now = datetime.now(UTC).timestamp()
    console.fill_tables(deployment.tables)
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as folder,
        open_browser(Path(folder)) as browser,
        console.serve_console() as server,
    ):
        console.connect_console(deployment, patch)
        browser.set_window_size(WIDTH, 1800)
        WidgetPage(browser).open(server.url)
        return browser.find_element(By.ID, "widget").screenshot_as_png


def main() -> None:
    with Image.open(io.BytesIO(take_screenshot())) as image:
        image.convert("RGB").quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            IMAGE, optimize=True
        )
    print(f"{IMAGE.relative_to(ROOT)}: {IMAGE.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
