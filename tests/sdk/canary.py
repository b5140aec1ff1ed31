"""Secrets that tests plant, and the search for them in all that a process says and writes."""

import base64
import os

# What a secret is known by; those of clients hold it too. Its base64 has letters and digits alone.
MARK = "tidecanary"
KEY = f"{MARK}-of-a-provider/+={MARK}"
# What every process under test finds in its environment, unless its test says otherwise.
ENVIRONMENT = {name: KEY for name in ("AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY")}


def forms():
    """The mark as it stands, with every byte encoded, and in base64 wherever it begins."""
    yield from (MARK, MARK.encode().hex())
    percent = "".join(f"%{byte:02x}" for byte in MARK.encode())
    yield from (percent, percent.upper())
    for shift, start in enumerate((0, 2, 3)):
        text = base64.b64encode(b"x" * shift + MARK.encode()).decode().rstrip("=")
        # The first characters tell of what stands before, the last of what follows.
        yield text[start:-1]


def search(name, output):
    """Fails where a secret stands in an output. `TIDEGATE_CANARY_COUNT` names a list of all that were searched."""
    if path := os.environ.get("TIDEGATE_CANARY_COUNT"):
        with open(path, "a") as searched:
            searched.write(f"{name}\n")
    found = [form for form in forms() if form in output]
    assert not found, f"a secret ({found[0]}) in {name}"
