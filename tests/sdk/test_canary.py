"""What looks for secrets finds them: the search of every other test can fail."""

import base64
import sys
import urllib.parse

import pytest

import canary
from processes import running

LEAKS = [canary.KEY, canary.KEY[: len(canary.KEY) // 2], canary.KEY[len(canary.KEY) // 2 :], repr(canary.KEY)]
LEAKS += [urllib.parse.quote(canary.KEY, safe=""), "".join(f"%{byte:02X}" for byte in canary.KEY.encode())]
LEAKS += [
    encode(f"{before}{canary.KEY}:after".encode()).decode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode)
    for before in ("", "x", "xy", "user:")
]


@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_secret_is_found_in_every_form(leak):
    with pytest.raises(AssertionError, match="in an output"):
        canary.search("an output", f"before {leak} after")
    canary.search("an output", "tide canary: Authorization: Bearer [secret]")


def test_a_process_that_says_a_secret_fails_its_test():
    with pytest.raises(AssertionError, match="in what python"):
        with running([sys.executable, "-c", f"print('said', {canary.KEY!r})"]) as process:
            process.says("(said)")
