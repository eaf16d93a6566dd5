"""The scripts that start from nothing: real processes on a PATH built here, and no network."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
FETCH: Final = ROOT / "scripts" / "fetch-criu"
FETCH_PODMAN: Final = ROOT / "scripts" / "fetch-podman"
FETCH_PLUGIN: Final = ROOT / "scripts" / "fetch-criu-plugin"
SCRIPTS: Final = sorted([*(path for path in (ROOT / "scripts").iterdir() if not path.suffix), ROOT / ".ci" / "run"])
TOOLS: Final = (
    *("awk", "bash", "cat", "chmod", "cut", "dirname", "flock", "grep", "ls", "mkdir", "mktemp", "mv", "readlink"),
    *("rm", "sed", "sh", "sha256sum", "tail", "timeout"),
)
APT: Final = ("apt-get", "dpkg", "dpkg-deb")

GOOD_CRIU: Final = '#!/bin/sh\n[ "$1" = --version ] && echo "Version: 9.9"\nexit 0\n'
BROKEN_CRIU: Final = "#!/bin/sh\nexit 1\n"
REFUSED_CRIU: Final = GOOD_CRIU.replace("exit 0", 'echo "Error (x.c:1): no such kernel"; [ "$1" != check ]')

GOOD_PODMAN: Final = "#!/bin/sh\necho podman version 9.9\n"
GOOD_CRUN: Final = "#!/bin/sh\necho crun version 9.9; echo +SECCOMP +CRIU\n"

PYPROJECT: Final = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "warmspare"
version = "0"

[dependency-groups]
one = []
both = [{include-group = "one"}]
"""
BACKEND: Final = '''\
"""A build backend that needs nothing: its wheel holds one command, which shows what it was given."""
import zipfile

FILES = {
    "shows.py": "import os, sys\\ndef main(): print(sys.argv[1:], os.environ.get('WARMSPARE_CRIU'))\\n",
    "warmspare-0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: warmspare\\nVersion: 0\\n",
    "warmspare-0.dist-info/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    "warmspare-0.dist-info/entry_points.txt": "[console_scripts]\\nwarmspare = shows:main\\n",
    "warmspare-0.dist-info/RECORD": "",
}

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "warmspare-0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        for path, text in FILES.items():
            wheel.writestr(path, text)
    return name
'''


class Bench:
    """A folder with the only programs a script will find."""

    def __init__(self, folder: Path) -> None:
        """Put the common tools there."""
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self.env = {"PATH": str(self.bin), "HOME": str(folder), "TMPDIR": str(folder), "PIP_NO_INDEX": "1"}
        self.link(*TOOLS)

    def link(self, *names: str) -> None:
        """Add programs of this machine; the test is skipped where one is missing."""
        for name in names:
            found = shutil.which(name)
            if found is None:
                pytest.skip(f"this machine has no {name}")
            (self.bin / name).symlink_to(found)

    def link_python(self) -> None:
        """Add the interpreter that runs the tests, outside of any environment."""
        (self.bin / "python3").symlink_to(Path(sys.executable).resolve())

    def write(self, name: str, text: str) -> Path:
        """Add a program of our own."""
        path = self.bin / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def run(self, script: Path, *args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a script with this PATH alone."""
        return subprocess.run(
            [script, *args], env={**self.env, **env}, capture_output=True, text=True, timeout=100, check=False
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench of its own for each test."""
    return Bench(tmp_path / "bench")


def checkout(folder: Path) -> Path:
    """A checkout with our scripts around a project that needs no package registry."""
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    (folder / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (folder / "backend.py").write_text(BACKEND, encoding="utf-8")
    return folder


def one_line(ran: subprocess.CompletedProcess[str]) -> str:
    """What it said, which must be one line on stderr and nothing on stdout."""
    assert ran.stdout == ""
    assert ran.stderr.count("\n") == 1, ran.stderr
    return ran.stderr


def apt_config(folder: Path, sources: str) -> str:
    """An APT_CONFIG under which apt has these sources and has never fetched a list."""
    (folder / "sources.list").write_text(sources, encoding="utf-8")
    (folder / "lists" / "partial").mkdir(parents=True)
    config = folder / "apt.conf"
    config.write_text(
        f'Dir::Etc::SourceList "{folder}/sources.list";\nDir::Etc::SourceParts "/dev/null";\n'
        f'Dir::State::Lists "{folder}/lists";\n',
        encoding="utf-8",
    )
    return str(config)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_parse_it(script: Path, bench: Bench) -> None:
    assert os.access(script, os.X_OK)
    ran = bench.run(bench.bin / "bash", "-n", script)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_shellcheck_finds_nothing(bench: Bench) -> None:
    bench.link("shellcheck")
    ran = bench.run(bench.bin / "shellcheck", "-x", *SCRIPTS, *(ROOT / "scripts").glob("*.sh"))
    assert ran.returncode == 0, ran.stdout


def test_a_criu_on_path_that_works_is_enough(bench: Bench, tmp_path: Path) -> None:
    criu = bench.write("criu", GOOD_CRIU)
    ran = bench.run(FETCH, tmp_path / "new" / "criu")
    assert (ran.returncode, ran.stdout) == (0, f"{criu}\n")
    assert ran.stderr == "fetch-criu: CRIU 9.9 on PATH works; nothing was fetched\n"
    assert not (tmp_path / "new").exists()


def test_a_criu_fetched_before_is_enough(bench: Bench, tmp_path: Path) -> None:
    bench.write("criu", BROKEN_CRIU)
    folder = tmp_path / "fetched"
    folder.mkdir()
    bench.write("criu.good", GOOD_CRIU).rename(folder / "criu")
    ran = bench.run(FETCH, folder)
    assert (ran.returncode, ran.stdout) == (0, f"{folder}/criu\n")
    assert ran.stderr == f"fetch-criu: CRIU 9.9 in {folder} works; nothing was fetched\n"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: others only see the version")
def test_a_fetched_criu_that_this_kernel_refuses_is_named(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "fetched"
    folder.mkdir()
    bench.write("criu.refused", REFUSED_CRIU).rename(folder / "criu")
    ran = bench.run(FETCH, folder)
    assert ran.returncode == 1
    assert "Error (x.c:1): no such kernel" in one_line(ran)


def test_without_apt_it_says_what_to_do(bench: Bench, tmp_path: Path) -> None:
    bench.write("criu", BROKEN_CRIU)
    ran = bench.run(FETCH, tmp_path / "fetched")
    assert ran.returncode == 1
    assert "no apt-get" in one_line(ran)
    assert "install CRIU 4" in ran.stderr
    assert not (tmp_path / "fetched").exists()


@pytest.mark.parametrize("script", [FETCH, FETCH_PODMAN], ids=lambda path: path.name)
def test_a_folder_of_something_else_is_left_alone(script: Path, bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "draft").touch()
    ran = bench.run(script, "--force", tmp_path / "thesis")
    assert ran.returncode == 1
    assert "holds something else" in one_line(ran)
    assert (tmp_path / "thesis" / "draft").exists()


def test_a_podman_on_path_with_a_crun_that_knows_criu_is_enough(bench: Bench, tmp_path: Path) -> None:
    podman = bench.write("podman", GOOD_PODMAN)
    bench.write("crun", GOOD_CRUN)
    ran = bench.run(FETCH_PODMAN, tmp_path / "new")
    assert (ran.returncode, ran.stdout) == (0, f"{podman}\n")
    assert ran.stderr == "fetch-podman: podman version 9.9 on PATH works; nothing was fetched\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("crun", [None, GOOD_CRUN.replace("+CRIU", ""), BROKEN_CRIU], ids=["none", "bare", "broken"])
def test_a_podman_without_such_a_crun_is_not(crun: str | None, bench: Bench, tmp_path: Path) -> None:
    bench.write("podman", GOOD_PODMAN)
    if crun:
        bench.write("crun", crun)
    ran = bench.run(FETCH_PODMAN, tmp_path / "new")
    assert ran.returncode == 1
    assert "no apt-get" in one_line(ran)
    assert "install Podman and crun" in ran.stderr


def test_a_podman_fetched_before_is_enough(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "fetched"
    (folder / "bin").mkdir(parents=True)
    bench.write("podman.good", GOOD_PODMAN).rename(folder / "bin" / "podman")
    bench.write("crun.good", GOOD_CRUN).rename(folder / "bin" / "crun")
    ran = bench.run(FETCH_PODMAN, folder)
    assert (ran.returncode, ran.stdout) == (0, f"{folder}/bin/podman\n")
    assert ran.stderr == f"fetch-podman: podman version 9.9 in {folder} works; nothing was fetched\n"


def test_a_plugin_that_is_there_alone_does_not_stand_in_the_way(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "fetched" / "plugin").mkdir(parents=True)
    ran = bench.run(FETCH, "--force", tmp_path / "fetched")
    assert "no apt-get" in one_line(ran)
    assert (tmp_path / "fetched" / "plugin").exists()


def test_a_plugin_built_before_is_enough(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "version").write_text("9.9\n")
    (tmp_path / "cuda_plugin.so").write_text("built")
    (tmp_path / "program").mkdir()
    bench.write("criu.good", GOOD_CRIU).rename(tmp_path / "program" / "criu")
    ran = bench.run(FETCH_PLUGIN, tmp_path)
    assert (ran.returncode, ran.stdout) == (0, f"{tmp_path}\n")
    assert ran.stderr == f"fetch-criu-plugin: CUDA plugin of CRIU 9.9 in {tmp_path}; nothing was fetched\n"


def test_a_plugin_is_not_built_over_something_else(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "cuda_plugin.so").touch()
    ran = bench.run(FETCH_PLUGIN, "--force", tmp_path / "thesis")
    assert ran.returncode == 1
    assert "holds something else" in one_line(ran)


@pytest.mark.parametrize(("compiler", "lacking"), [({}, "no C compiler: install"), ({"CC": "cc"}, "no apt-get")])
def test_what_a_plugin_cannot_be_built_without_is_named(
    compiler: dict[str, str], lacking: str, bench: Bench, tmp_path: Path
) -> None:
    script = checkout(tmp_path / "checkout") / "scripts" / "fetch-criu-plugin"
    ran = bench.run(script, **compiler)
    assert ran.returncode == 1
    assert lacking in one_line(ran)
    assert not (tmp_path / "checkout" / ".criu" / "plugin").exists()


@pytest.mark.parametrize("script", [FETCH, FETCH_PODMAN, FETCH_PLUGIN], ids=lambda path: path.name)
def test_too_many_arguments_are_a_usage_error(script: Path, bench: Bench) -> None:
    ran = bench.run(script, "one", "two")
    assert ran.returncode == 2
    assert "usage" in one_line(ran)


def test_no_debian_mirror(bench: Bench, tmp_path: Path) -> None:
    bench.link(*APT)
    ran = bench.run(FETCH, tmp_path / "fetched", APT_CONFIG=apt_config(tmp_path, ""))
    assert ran.returncode == 1
    assert "no Debian mirror" in one_line(ran)
    assert "ppa:criu/ppa" in ran.stderr


@pytest.mark.parametrize("release", [None, "Suite: stable\nCodename: trixie\n"], ids=["nothing", "unsigned"])
def test_a_mirror_without_a_signed_suite(release: str | None, bench: Bench, tmp_path: Path) -> None:
    os_release = Path("/etc/os-release")
    if not os_release.exists() or "\nID=debian\n" not in os_release.read_text("utf-8"):
        pytest.skip("a mirror that no `apt-get update` has seen is only taken for Debian's on Debian")
    bench.link(*APT)
    mirror = tmp_path / "mirror"
    if release is not None:
        for suite in ("forky", "trixie"):
            (mirror / "dists" / suite).mkdir(parents=True)
            (mirror / "dists" / suite / "Release").write_text(release, encoding="utf-8")
    config = apt_config(tmp_path, f"deb file:{mirror} bookworm main\n")
    ran = bench.run(FETCH, tmp_path / "fetched", APT_CONFIG=config)
    assert (ran.returncode, ran.stdout) == (1, "")
    told = ran.stderr.splitlines()
    assert [line.rpartition(" for ")[0] for line in told[::2]] == [
        f"fetch-criu: fetching CRIU of Debian {suite}" for suite in ("forky", "trixie")
    ]
    assert len(told) == 4
    assert all(("could not verify" if release else "no CRIU from the Debian mirror") in line for line in told[1::2])
    assert sorted(path.name for path in tmp_path.iterdir() if "fetched" in path.name) == []


def test_no_python_at_all(bench: Bench, tmp_path: Path) -> None:
    ran = bench.run(checkout(tmp_path / "checkout") / "scripts" / "venv")
    assert ran.returncode == 1
    assert "no Python 3.11 or newer" in one_line(ran)


def test_an_old_python_is_no_python(bench: Bench, tmp_path: Path) -> None:
    bench.write("python3", "#!/bin/sh\nexit 1\n")
    ran = bench.run(checkout(tmp_path / "checkout") / "scripts" / "venv")
    assert ran.returncode == 1
    assert "no Python 3.11 or newer" in one_line(ran)


def test_python_without_ensurepip_names_the_package(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "ensurepip.py").write_text("raise ImportError\n", encoding="utf-8")
    real = Path(sys.executable).resolve()
    bench.write("python3", f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{real}" "$@"\n')
    ran = bench.run(checkout(tmp_path / "checkout") / "scripts" / "venv")
    assert ran.returncode == 1
    package = f"python3.{sys.version_info.minor}-venv"
    assert f"apt-get install {package}" in one_line(ran)


def test_it_installs_once_and_again_only_for_something_new(bench: Bench, tmp_path: Path) -> None:
    bench.link_python()
    root = checkout(tmp_path / "checkout")
    script = root / "scripts" / "venv"
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: bench.run(script), range(2)))
    assert [ran.returncode for ran in both] == [0, 0], both
    assert sorted(ran.stderr.count("installing") for ran in both) == [0, 1]
    assert (root / ".venv" / "bin" / "warmspare").exists()

    assert "installing warmspare with the groups both" in bench.run(script, "both").stderr
    for groups in (["both"], []):
        again = bench.run(script, *groups)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")

    unknown = bench.run(script, "three")
    assert unknown.returncode == 1
    assert "no dependency group 'three'" in one_line(unknown)

    with (root / "pyproject.toml").open("a", encoding="utf-8") as project:
        project.write("# changed\n")
    assert "installing" in bench.run(script).stderr

    root = root.rename(tmp_path / "moved")
    moved = bench.run(root / "scripts" / "venv")
    assert moved.returncode == 0
    assert "making .venv" in moved.stderr


def test_check_runs_the_command_with_the_criu_found(bench: Bench, tmp_path: Path) -> None:
    bench.link_python()
    script = checkout(tmp_path / "checkout") / "scripts" / "check"
    without = bench.run(script, "--full")
    assert (without.returncode, without.stdout) == (0, "['check', '--full'] None\n")
    assert "check: going on without a working CRIU: fetch-criu: no apt-get" in without.stderr

    criu = bench.write("criu", GOOD_CRIU)
    ran = bench.run(script)
    assert (ran.stdout, ran.stderr) == (f"['check'] {criu}\n", "")
    assert bench.run(script, WARMSPARE_CRIU="/mine").stdout == "['check'] /mine\n"
    assert bench.run(script, WARMSPARE_FETCH_CRIU="0").stdout == "['check'] None\n"
