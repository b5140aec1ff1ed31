"""What a machine is given beside the program: unit, completions, manual pages, and the recipe of its image."""

import importlib.machinery
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import TIDEGATE

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "config" / "systemd" / "tidegate.service"
# The most that systemd may hold against the unit, of 10.
EXPOSURE = 2.0


def said(*arguments):
    done = subprocess.run([TIDEGATE, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands():
    """The program's commands, as its help lists them."""
    listed = said("help").split("Commands:\n")[1].split("\n\n")[0]
    return [line.split()[0] for line in listed.splitlines() if re.match(r"  \w", line)]


# === The unit ===


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault_in_the_unit(tmp_path):
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/tidegate", str(TIDEGATE)))
    told = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert told.returncode == 0 and "Unknown" not in told.stderr, told.stderr
    told = subprocess.run(["systemd-analyze", "security", "--offline=yes", unit], capture_output=True, text=True)
    assert float(re.search(r"exposure level.*: ([\d.]+)", told.stdout).group(1)) <= EXPOSURE, told.stdout


def test_the_unit_waits_longer_than_the_program_lets_calls_finish():
    text = UNIT.read_text()
    grace = int(re.search(r"TERMINATION_GRACE_PERIOD_SECONDS=(\d+)", text).group(1))
    assert int(re.search(r"TimeoutStopSec=(\d+)", text).group(1)) > grace


# === Completions and manual pages ===


def test_bash_completes_commands_flags_and_values(tmp_path):
    (tmp_path / "tidegate").write_text(said("completions", "bash"))
    script = f"""
        source {tmp_path}/tidegate
        complete_() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _tidegate tidegate "${{@: -1}}" "${{@: -2:1}}"; echo "${{COMPREPLY[@]}}"; }}
        complete_ tidegate pro
        complete_ tidegate proxy --ups
        complete_ tidegate env --way p
    """
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["proxy", "--upstream", "proxy"], done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_takes_its_completions_and_finds_every_command_in_them(shell):
    text = said("completions", shell)
    assert all(re.search(rf"\b{command}\b", text) for command in commands())
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr


def test_every_command_has_a_manual_page_with_every_flag_of_its_help():
    names = commands()
    assert {"proxy", "check", "completions", "man"} <= set(names)
    assert "tidegate\\-proxy(1)" in said("man")
    for command in (name for name in names if name != "help"):
        page = said("man", command).replace("\\-", "-")
        assert page.splitlines()[2].startswith(f".TH tidegate-{command} 1"), command
        flags = re.findall(r"^ +(?:-\w, )?(--[\w-]+)", said("help", command), re.M)
        for flag in flags:
            assert flag in page, f"{command} {flag}"


def test_a_page_of_a_command_that_does_not_exist_is_refused():
    done = subprocess.run([TIDEGATE, "man", "nothing"], capture_output=True, text=True)
    assert done.returncode == 2 and "there is no command `nothing`" in done.stderr


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_groff_takes_a_page_without_a_word():
    done = subprocess.run(["groff", "-man", "-ww", "-z"], input=said("man", "proxy"), capture_output=True, text=True)
    assert done.stderr == ""


def test_sleep_waits_and_refuses_what_is_no_time():
    assert said("sleep", "1ms") == ""
    assert subprocess.run([TIDEGATE, "sleep", "soon"], capture_output=True).returncode == 2


# === The image ===


@pytest.mark.parametrize("file", ["Dockerfile", "config/examples/ecs/Dockerfile"])
def test_hadolint_finds_no_fault_in_a_recipe(file):
    done = subprocess.run(["hadolint", ROOT / file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_recipe_keeps_to_what_it_promises():
    text = (ROOT / "Dockerfile").read_text()
    rust = re.search(r"^rust-version = \"([\d.]+)\"", (ROOT / "Cargo.toml").read_text(), re.M).group(1)
    assert re.search(rf"^ARG RUST_IMAGE=rust:{re.escape(rust)}\b", text, re.M)
    builds = re.findall(r"cargo build .*", text)
    assert len(builds) == 2 and all("--locked" in build and "-unknown-linux-musl" in build for build in builds)
    assert sum("--no-default-features" in build for build in builds) == 1
    last = text.split("FROM scratch AS empty")[1]
    assert "USER 65532:65532" in last and "ca-certificates.crt" in last and "RUN" not in last


def test_what_the_recipe_copies_is_all_that_a_build_needs(tmp_path):
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in kept:
        source, copy = ROOT / name, tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("target"))
        else:
            shutil.copy(source, copy)
    asked = ["cargo", "metadata", "--locked", "--offline", "--no-deps", "--format-version=1"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    packages = json.loads(done.stdout)["packages"]
    for package in packages:
        targets = [target for target in package["targets"] if {"bin", "lib"} & set(target["kind"])]
        assert targets and all(Path(target["src_path"]).exists() for target in targets), package["name"]
    for source in tmp_path.rglob("*.rs"):
        for path in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', source.read_text()):
            assert (source.parent / path).exists(), f"{source.name} takes in {path}"


# === Licences ===


def test_every_crate_of_the_program_has_a_licence_that_may_be_there():
    loader = importlib.machinery.SourceFileLoader("licences", str(ROOT / "docs" / "licences"))
    licences = importlib.util.module_from_spec(importlib.util.spec_from_loader("licences", loader))
    loader.exec_module(licences)
    found = licences.crates("--offline")
    assert len(found) > 100
    assert [crate["name"] for crate in found if not (crate["license"] or crate["license_file"])] == []
    # A few bring no text along; what they are under is named all the same.
    assert sum(bool(licences.texts(crate)) for crate in found) > 0.9 * len(found)
    sidecar = {crate["name"] for crate in licences.crates("--offline", "--no-default-features")}
    assert "goose" not in sidecar and "goose" in {crate["name"] for crate in found}
