"""Loads pages in headless Chromium: `python -m lab.bench.page_loads PIN URL...`.

The first load warms the program up; each later one prints its seconds on a line. Each has a fresh profile.
"""

from __future__ import annotations

import argparse
import json

from lab.audit.browser import Browser


def main() -> None:
    """Load the pages in turn and print what each took, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pin", help="of the key of the pages' server")
    parser.add_argument("url", nargs="+")
    options = parser.parse_args()
    with Browser(pin=options.pin) as browser:
        browser.version()
        for url in options.url:
            print(json.dumps(browser.load(url)), flush=True)


if __name__ == "__main__":
    main()
