"""Takes a picture of a comparison's page: python examples/bakeoff/picture.py runs/bakeoff docs/bakeoff.png
Needs Chromium and `pip install playwright`."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

place, picture = Path(sys.argv[1]), sys.argv[2]
with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1000, "height": 1300}, device_scale_factor=1.5)
    page.goto((place / "report.html").resolve().as_uri())
    page.wait_for_load_state("networkidle")
    page.screenshot(path=picture, clip={"x": 0, "y": 0, "width": 1000, "height": 1500}, full_page=True)
    browser.close()
