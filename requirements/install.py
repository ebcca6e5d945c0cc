"""Create the virtual environments of the project from requirement files with pinned versions and hashes.

`make setup` runs this script on Python 3.13. `make check` runs it with the argument `checks`, and `make test` with the
argument `tests`, which also install the programs that only these use. An environment is updated only if its requirement
files or the interpreter changed. The packages are installed by uv. If uv is not on PATH, it is installed in an
environment of its own.
"""

import base64
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
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
CHECK_ENVIRONMENTS = {
    ".local/venvs/checkov": ("checkov.txt",),
    ".local/venvs/cfn_guard": ("cfn_guard.txt",),
}
TEST_ENVIRONMENTS = {
    ".local/venvs/hub_client_old": ("hub_client_old.txt",),
    ".local/venvs/hub_client_new": ("hub_client_new.txt",),
    ".local/venvs/aws_cli": ("aws_cli.txt",),
    ".local/venvs/model_signing": ("model_signing.txt",),
}
NODE_ENVIRONMENT = ROOT / ".local/venvs/hub_client_node"


def compute_stamp(requirements: list[Path]) -> str:
    """Return a digest of the interpreter and the requirement files of an environment."""
    digest = hashlib.sha256(sys.executable.encode())
    for path in requirements:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run(*command: str | Path) -> None:
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(f"Cannot create the environments: `{' '.join(map(str, command))}` exited with status {status}.")


def find_uv() -> Path:
    """Return the path of uv. Installs uv if it is not on PATH."""
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
    """Install exactly the packages of the requirement files, which list all dependencies, in an environment."""
    stamp, expected = environment / ".stamp", compute_stamp(requirements)
    if stamp.is_file() and stamp.read_text() == expected:
        return
    print(f"Installing {environment.relative_to(ROOT)}", flush=True)
    uv = find_uv()
    run(uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, environment)
    python = environment / "bin/python"
    options = ("--quiet", "--require-hashes", "--compile-bytecode", "--python", python)
    run(uv, "pip", "sync", *options, *requirements)
    stamp.write_text(expected)


def install_command_line() -> None:
    """Install `modelhaul` from the working tree in .venv, as editable. Its dependencies are in dev.txt."""
    environment, project = ROOT / ".venv", ROOT / "pyproject.toml"
    stamp = environment / ".modelhaul.stamp"
    expected = compute_stamp([project, REQUIREMENTS / "dev.txt"])
    if (environment / "bin/modelhaul").is_file() and stamp.is_file() and stamp.read_text() == expected:
        return
    python = environment / "bin/python"
    options = ("--quiet", "--offline", "--no-deps", "--no-build-isolation", "--python", python)
    run(find_uv(), "pip", "install", *options, "--editable", ROOT)
    stamp.write_text(expected)


def unpack_cfn_guard() -> None:
    """Unpack cfn-guard and its rules, which are in an archive in their Python package, as `package`."""
    environment = ROOT / ".local/venvs/cfn_guard"
    (archive,) = environment.glob("lib/python*/site-packages/cdklabs/cdk_validator_cfnguard/_jsii/*.jsii.tgz")
    stamp = environment / "package/.stamp"
    if stamp.is_file() and stamp.read_text() == archive.name:
        return
    shutil.rmtree(environment / "package", ignore_errors=True)
    with tarfile.open(archive) as file:
        members = [one for one in file.getmembers() if one.name.startswith(("package/bin/", "package/rules/"))]
        file.extractall(environment, members, filter="data")
    stamp.write_text(archive.name)


def provide_git_lfs() -> None:
    """Provide git-lfs for the loopback GitHub server.

    If git-lfs is not on PATH, its Debian package is unpacked in GIT_LFS. It is not installed, so that root access is
    not required; apt verifies its signature. Without git-lfs, only the GitHub tests and the GitHub sample are skipped.
    """
    if shutil.which("git-lfs") or (GIT_LFS / "usr/bin/git-lfs").is_file():
        return
    message = (
        "git-lfs not found. Install it (https://git-lfs.com) to run the GitHub tests and import the GitHub sample."
    )
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        print(message, file=sys.stderr)
        return
    print(f"Unpacking {GIT_LFS.relative_to(ROOT)}", flush=True)
    folder = GIT_LFS.with_suffix(".apt")
    shutil.rmtree(folder, ignore_errors=True)
    for directory in ("lists/partial", "cache/archives/partial"):
        (folder / directory).mkdir(parents=True)
    apt = ["apt-get", "-qq", "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
    apt += ["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="]
    steps = [[*apt, "update"], [*apt, "download", "git-lfs"]]
    if all(subprocess.run(step, cwd=folder, check=False).returncode == 0 for step in steps):
        (package,) = folder.glob("git-lfs_*.deb")
        run("dpkg-deb", "-x", package, folder / "unpacked")
        (folder / "unpacked").rename(GIT_LFS)
    else:
        print(message, file=sys.stderr)
    shutil.rmtree(folder)


def install_packages(*packages: str) -> bool:
    """Install Debian packages with apt if the user is root, as in a container. Return False if they were not
    installed.
    """
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
    """Provide Chromium and ChromeDriver for the test of the API reference page. Without them, the test is skipped."""
    if shutil.which("chromium") and shutil.which("chromedriver"):
        return
    if not install_packages("chromium", "chromium-driver"):
        print(
            "Chromium or ChromeDriver not found. Install both to run the test of the API reference page.",
            file=sys.stderr,
        )


def provide_zip_readers() -> None:
    """Provide the programs that the tests compare the ZIP reader with. The tests of a missing program are skipped."""
    programs = {"unzip": ("unzip",), "7zip": ("7zz", "7z"), "libarchive-tools": ("bsdtar",)}
    missing = [package for package, names in programs.items() if not any(map(shutil.which, names))]
    if missing and not install_packages(*missing):
        names = ", ".join(missing)
        print(f"{names} not found. Install them to run the tests that compare ZIP readers.", file=sys.stderr)


def provide_node_client() -> None:
    """Unpack the JavaScript client of the Hub and its dependencies in NODE_ENVIRONMENT. npm downloads the packages;
    this function checks their hashes. Without Node.js and npm, the tests of the client are skipped.
    """
    requirements = REQUIREMENTS / "hub_client_node.txt"
    stamp, expected = NODE_ENVIRONMENT / ".stamp", hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == expected:
        return
    if not shutil.which("node") or not shutil.which("npm"):
        print("Node.js or npm not found. Install both to run the tests of the JavaScript client.", file=sys.stderr)
        return
    print(f"Installing {NODE_ENVIRONMENT.relative_to(ROOT)}", flush=True)
    shutil.rmtree(NODE_ENVIRONMENT, ignore_errors=True)
    packages = [line.split() for line in requirements.read_text().splitlines() if not line.startswith("#")]
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, *(package for package, _ in packages)]
        if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
            sys.exit("Cannot download the JavaScript client of the Hub: npm failed.")
        for package, integrity in packages:
            name, _, version = package.rpartition("@")
            archive = Path(folder) / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
            digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
            if f"sha512-{digest}" != integrity:
                sys.exit(f"The SHA-512 of {package} is {digest}, which is not the one in {requirements.name}.")
            unpack_node_package(archive, NODE_ENVIRONMENT / "node_modules" / name)
    stamp.write_text(expected)


def unpack_node_package(archive: Path, folder: Path) -> None:
    """Unpack an archive of npm, whose files are in one folder of any name."""
    with tempfile.TemporaryDirectory() as unpacked, tarfile.open(archive) as file:
        file.extractall(unpacked, filter="data")
        (content,) = Path(unpacked).iterdir()
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(content, folder)


if __name__ == "__main__":
    if sys.version_info[:2] != (3, 13):
        sys.exit(f"Python 3.13 is required, but this is Python {platform.python_version()}.")
    for name, files in ENVIRONMENTS.items():
        install_environment(ROOT / name, [REQUIREMENTS / file for file in files])
    install_command_line()
    provide_git_lfs()
    if "checks" in sys.argv[1:]:
        for name, files in CHECK_ENVIRONMENTS.items():
            install_environment(ROOT / name, [REQUIREMENTS / file for file in files])
        unpack_cfn_guard()
    if "tests" in sys.argv[1:]:
        provide_chromium()
        provide_zip_readers()
        for name, files in TEST_ENVIRONMENTS.items():
            install_environment(ROOT / name, [REQUIREMENTS / file for file in files])
        provide_node_client()
