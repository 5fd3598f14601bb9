"""A person with a browser, as a program: `python -m harness.visitor SIMULATOR_URL USER < WHAT_SIDEKEY_PRINTED`.

Opens the link in it and agrees to everything.
"""

import re
import sys
from pathlib import Path

from harness.browser import Browser
from harness.simulator import Hosts, Simulator


def main() -> None:
    simulator_url, user = sys.argv[1:]
    [link] = re.findall(r"https?://[^\s\"]+/connect/[^\s\"]+", sys.stdin.read())
    person = Simulator(simulator_url, Hosts("", Path(), [])).person(user)
    with Browser(person) as browser:
        page = browser.dance(link)
    assert page.status_code == 200, f"{page.url}: {page.status_code} {page.text}"


if __name__ == "__main__":
    main()
