"""What the pages in `config/clients` tell a user to write, to be run as it stands there."""

import re
from pathlib import Path

PAGES = Path(__file__).parents[2] / "config" / "clients"
# Where a page has the sidecar listen, whose tests have the system choose ports.
ADDRESS = "127.0.0.1:4100"


def ways(page):
    """The ways that a page knows."""
    return re.findall(r"^## (.*)\n", (PAGES / f"{page}.md").read_text(), re.MULTILINE)


def lines(page, way, language="sh"):
    """The lines in a language that a page names for a way; none where it names none."""
    section = (PAGES / f"{page}.md").read_text().split(f"## {way}\n", 1)[1].split("\n## ")[0]
    return "".join(re.findall(rf"```(?:{language})\n(.*?)```", section, re.DOTALL))
