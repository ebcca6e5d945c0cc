"""Make the project's environments from the pinned, hashed requirement files.

Run by `make setup` on Python 3.13; with the argument `tests`, by `make test`, also for what only these need. An
environment is touched only when its requirement files or the interpreter changed. uv does the work; where it is
missing, it is installed beside the environments.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
GIT_LFS = ROOT / ".local/tools/git-lfs"
UV_ENVIRONMENT = ROOT / ".local/venvs/uv"
ENVIRONMENTS = {
    ".venv": ("dev.txt", "sample_model.txt"),
    ".local/venvs/ministack": ("ministack.txt",),
    ".local/venvs/sam": ("sam.txt",),
    ".local/venvs/giftless": ("giftless.txt",),
}


def compute_stamp(requirements: list[Path]) -> str:
    """A digest of what an environment is made from."""
    digest = hashlib.sha256(sys.executable.encode())
    for path in requirements:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run(*command: str | Path) -> None:
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(f"the environments could not be made: {' '.join(map(str, command))} ended with {status}")


def find_uv() -> Path:
    if found := shutil.which("uv"):
        return Path(found)
    uv = UV_ENVIRONMENT / "bin/uv"
    if not uv.is_file():
        print("Installing uv", flush=True)
        run(sys.executable, "-m", "venv", "--clear", UV_ENVIRONMENT)
        pip = (UV_ENVIRONMENT / "bin/python", "-m", "pip", "install", "-qq", "--disable-pip-version-check")
        run(*pip, "--require-hashes", "--only-binary=:all:", "-r", REQUIREMENTS / "uv.txt")
    return uv


def install_environment(environment: Path, requirements: list[Path]) -> None:
    """Make the environment hold exactly the packages of the files, which name all dependencies."""
    stamp, wanted = environment / ".stamp", compute_stamp(requirements)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"Installing {environment.relative_to(ROOT)}", flush=True)
    uv = find_uv()
    run(uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, environment)
    python = environment / "bin/python"
    options = ("--quiet", "--require-hashes", "--compile-bytecode", "--python", python)
    run(uv, "pip", "sync", *options, *requirements)
    stamp.write_text(wanted)


def install_command_line() -> None:
    """Put `modelhaul` into .venv, from the working tree. What it needs to be built and run is in dev.txt."""
    environment, project = ROOT / ".venv", ROOT / "pyproject.toml"
    stamp = environment / ".modelhaul.stamp"
    wanted = compute_stamp([project, REQUIREMENTS / "dev.txt"])
    if (environment / "bin/modelhaul").is_file() and stamp.is_file() and stamp.read_text() == wanted:
        return
    python = environment / "bin/python"
    options = ("--quiet", "--offline", "--no-deps", "--no-build-isolation", "--python", python)
    run(find_uv(), "pip", "install", *options, "--editable", ROOT)
    stamp.write_text(wanted)


def provide_git_lfs() -> None:
    """git-lfs for the loopback GitHub: the system's, else Debian's, unpacked here and not installed (apt checks its
    signature, and nobody need be root). Without it everything but GitHub's tests and samples works.
    """
    if shutil.which("git-lfs") or (GIT_LFS / "usr/bin/git-lfs").is_file():
        return
    words = "git-lfs is missing: install it (https://git-lfs.com) for the tests and the sample of GitHub."
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        print(words, file=sys.stderr)
        return
    print(f"Unpacking {GIT_LFS.relative_to(ROOT)}", flush=True)
    folder = GIT_LFS.with_suffix(".apt")
    shutil.rmtree(folder, ignore_errors=True)
    for needed in ("lists/partial", "cache/archives/partial"):
        (folder / needed).mkdir(parents=True)
    apt = ["apt-get", "-qq", "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
    apt += ["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="]
    steps = [[*apt, "update"], [*apt, "download", "git-lfs"]]
    if all(subprocess.run(step, cwd=folder, check=False).returncode == 0 for step in steps):
        (package,) = folder.glob("git-lfs_*.deb")
        run("dpkg-deb", "-x", package, folder / "unpacked")
        (folder / "unpacked").rename(GIT_LFS)
    else:
        print(words, file=sys.stderr)
    shutil.rmtree(folder)


def install_packages(*packages: str) -> bool:
    """Installs Debian's packages where this is a machine of root's, such as a container; False if it did not."""
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return False
    print(f"Installing {', '.join(packages)} for the tests", flush=True)
    install = ["install", "--yes", "--no-install-recommends", *packages]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    steps = (["apt-get", "-qq", *arguments] for arguments in (["update"], install))
    return all(
        subprocess.run(step, check=False, env=environment, stdout=subprocess.DEVNULL).returncode == 0 for step in steps
    )


def provide_chromium() -> None:
    """Chromium and its driver for the test of the API's page. Without them that one test is skipped."""
    if shutil.which("chromium") and shutil.which("chromedriver"):
        return
    if not install_packages("chromium", "chromium-driver"):
        print("Chromium and its driver are missing: install both for the test of the API's page.", file=sys.stderr)


def provide_zip_readers() -> None:
    """The programs that our ZIP reader is compared with. Without one its tests are skipped."""
    programs = {"unzip": ("unzip",), "7zip": ("7zz", "7z"), "libarchive-tools": ("bsdtar",)}
    missing = [package for package, names in programs.items() if not any(map(shutil.which, names))]
    if missing and not install_packages(*missing):
        print(f"Install {', '.join(missing)} for the tests that compare ZIP readers.", file=sys.stderr)


if __name__ == "__main__":
    if sys.version_info[:2] != (3, 13):
        sys.exit("Python 3.13 is needed, as in .python-version.")
    for name, files in ENVIRONMENTS.items():
        install_environment(ROOT / name, [REQUIREMENTS / file for file in files])
    install_command_line()
    provide_git_lfs()
    if "tests" in sys.argv[1:]:
        provide_chromium()
        provide_zip_readers()
