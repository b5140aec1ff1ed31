"""The static program needs nothing of a system: it runs in a root with nothing else in it, as in its image."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from processes import has_network_of_its_own

# `tests/run --long` builds it; so does anybody who says where it is.
STATIC = os.environ.get("TIDEGATE_STATIC")
PROGRAM = Path(__file__).with_name("empty_root.py")


@pytest.mark.skipif(not STATIC, reason="no static build (tests/run --long makes one, TIDEGATE_STATIC names one)")
@pytest.mark.skipif(not has_network_of_its_own("chroot"), reason="a network of its own is not to be had here (root, unshare -nm, ip)")
def test_the_static_program_runs_in_an_empty_root(tmp_path, capsys):
    static = Path(STATIC).absolute()
    linked = subprocess.run(["ldd", static], capture_output=True, text=True)
    assert "statically linked" in linked.stdout + linked.stderr or linked.returncode != 0
    # Whoever runs it is another user, who must come so far.
    tmp_path.chmod(0o755)
    tmp_path.parent.chmod(0o755)
    tmp_path.parent.parent.chmod(0o755)
    command = ["unshare", "-nm", sys.executable, PROGRAM, static, tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    with capsys.disabled():
        print("\n" + ran.stdout.strip())
