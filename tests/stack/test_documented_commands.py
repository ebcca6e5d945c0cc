"""The commands of the README, of `make run` and of the quickstart on AWS, typed in a terminal in their order.

The transcripts are in .local/artifacts, for a reader who checks that the texts and the output are clear.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rich.cells import cell_len

from local.processes import is_running
from local.stack import CREDENTIALS, ENVIRONMENTS, LOCAL, NETWORK_VARIABLES, ROOT, LocalStack
from tests.stack.conftest import wait_until
from tests.terminal import COLUMNS, PROMPT, Execution, Terminal
from tests.upstream.repositories import COMMAND_LINE, GITHUB_MINILM, GITHUB_SMALL, SMALL

# Each test starts a stack.
pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]

TIMEOUT = 600.0  # seconds; only so that a broken command does not hang the tests
_LONGEST_WORD = 40  # characters; longer words are URLs, keys and digests, which must not be broken
_ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# Patterns of commands, and what their output must contain.
EXPECTED = (
    (r"make run", r"^DONE 13/13 files 100 %|already running"),
    (r"make up", r"^The stack is running\."),
    (r"curl -\w*i\b", r"^HTTP/1.1 20[01] "),
    (r"curl .*/upload/(?:huggingface|github)", rf"^location: /v1/upload/tasks/{_ID}$"),
    (r"curl .*/upload/local\?", rf"^location: /v1/upload/local/{_ID}$"),
    (r"curl .*/upload/local\?", rf'^link: </v1/upload/tasks/{_ID}>; rel="status"$'),
    (r"curl .*/upload/tasks", r'"task_status"'),
    (r"until |aws s3 cp .*/outcomes/", r'"task_status": ?"DONE"'),
    (r"modelhaul (?:hf|github|zip) ", rf"\({_ID}\)$"),
    (r"modelhaul (?:ls|show)", r"bert"),
    (r"modelhaul get ", r"^Downloaded and verified "),
    (r"modelhaul status ", r"DONE|ready"),
    (r"hf download ", r"/"),
)


class Session:
    """Terminals in the folder of the repository, with a transcript. `task_id` is the last task in the output of a
    command, and `problems` is what a reader would ask about.
    """

    def __init__(self, transcript: Path, home: Path) -> None:
        transcript.parent.mkdir(parents=True, exist_ok=True)
        transcript.unlink(missing_ok=True)
        self._transcript = transcript
        self._home = home
        self._terminals: list[Terminal] = []
        self.task_id = ""
        self.problems: list[str] = []

    def open_terminal(self) -> Terminal:
        programs = [folder for folder in os.environ["PATH"].split(os.pathsep) if not Path(folder).is_relative_to(ROOT)]
        # With the interpreter of .venv first, `make` has nothing to install.
        path = os.pathsep.join([str(Path(sys.base_prefix) / "bin"), *programs])
        network = {name: os.environ[name] for name in NETWORK_VARIABLES if name in os.environ}
        environment = {"HOME": str(self._home), "LANG": "C.UTF-8", "PATH": path, **network}
        self._terminals.append(Terminal(ROOT, environment))
        return self._terminals[-1]

    def close(self) -> None:
        for terminal in self._terminals:
            terminal.close()

    def run(self, terminal: Terminal, command: str) -> Execution:
        terminal.type(command)
        return self.check(terminal.wait_for_end(timeout=TIMEOUT))

    def check(self, execution: Execution, expected_status: int = 0) -> Execution:
        """Write a command to the transcript. Add it to the problems unless it ended with the documented output."""
        self.write(execution)
        self.task_id = next(iter(re.findall(rf"(?:Task |/tasks/)({_ID})", execution.output)), self.task_id)
        command = re.sub(r"\\?\n *", " ", execution.command)
        expected = [output for pattern, output in EXPECTED if re.match(pattern, command)]
        flags = re.MULTILINE | re.IGNORECASE
        missing = [output for output in expected if not re.search(output, execution.output, flags)]
        if execution.status != expected_status or missing:
            self.problems.append(f"{execution.command}: exit status {execution.status}, not in the output: {missing}")
        if execution.lines and execution.lines[-1].endswith(PROMPT.rstrip()):
            self.problems.append(f"{execution.command}: no line break before the prompt")
        if not re.match(r"hf |aws ", command):  # whose texts are not those of the project
            self.problems += [f"{execution.command}: wide line: {line}" for line in find_wide_lines(execution.lines)]
        return execution

    def write(self, execution: Execution) -> None:
        summary = (
            f"[exit status {execution.status} after {execution.duration:.1f} s, "
            f"{execution.longest_pause:.1f} s without output]\n"
        )
        with self._transcript.open("a", encoding="utf-8") as file:
            print(PROMPT + execution.command, *execution.lines, summary, sep="\n", file=file)


def read_commands(text: str) -> list[str]:
    """Return the shell commands in the fenced blocks of a Markdown text that have no language."""
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return split_commands("".join(blocks).splitlines())


def read_printed_commands(lines: Sequence[str]) -> list[str]:
    """Return the commands that `make run` prints: they are indented by two spaces, their other lines by more."""
    first = lines.index("Commands to try in another terminal, in the folder of the repository.")
    return split_commands([line.removeprefix("  ") for line in lines[first:] if line.startswith("  ")])


def split_commands(lines: Sequence[str]) -> list[str]:
    """Return the commands of a block. A line that starts with a space continues the line before it."""
    commands: list[str] = []
    for line in lines:
        if line.startswith(" "):
            commands[-1] += f"\n{line}"
        else:
            commands.append(line)
    return commands


def read_section(document: str, heading: str) -> str:
    text = (ROOT / document).read_text(encoding="utf-8")
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def find_wide_lines(lines: Sequence[str]) -> list[str]:
    """Return the lines that a terminal breaks in the middle of a sentence."""
    return [
        line
        for line in lines
        if cell_len(line) > COLUMNS and not line.startswith("{") and max(map(len, line.split())) <= _LONGEST_WORD
    ]


def replace_all(text: str, replacements: dict[str, str]) -> str:
    for old, new in replacements.items():
        text = text.replace(old, new)
    return text


@pytest.fixture
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
    session = Session(LOCAL / "artifacts" / f"{request.node.name}.txt", tmp_path)
    yield session
    session.close()


@pytest.fixture
def local(request: pytest.FixtureRequest) -> Iterator[LocalStack]:
    """A stack that the documented commands start."""
    local = LocalStack(f"{request.node.name.removeprefix('test_')}-{os.getpid()}")
    yield local
    local.stop()


@pytest.fixture
def aws() -> Path:
    """The folder of the AWS CLI."""
    folder = ENVIRONMENTS / "aws_cli" / "bin"
    if not (folder / "aws").is_file():
        pytest.skip("the AWS CLI is not installed (`make test` installs it)")
    return folder


def test_readme(session: Session, local: LocalStack, tmp_path: Path) -> None:
    started, other = session.open_terminal(), session.open_terminal()
    (make_run,) = read_commands(read_section("README.md", "Local trial"))
    options = f"UPSTREAM=loopback STACK={local.name}"

    started.type(f"{make_run} {options}")
    running = started.wait_for("The stack is running.", timeout=TIMEOUT)
    session.write(running)
    session.problems += find_wide_lines(running.lines)
    for command in read_printed_commands(running.lines):
        session.run(other, command)
    replacements = {
        "google-bert/bert-base-uncased": COMMAND_LINE,
        "OWNER/REPOSITORY@v1.0": f"{GITHUB_SMALL}@third",
        "zip models.zip": f"zip {local.folder}/sample.zip --name readme",
        "--to bert": f"--to {tmp_path}/bert",
    }
    for command in read_commands(read_section("README.md", "Usage")):
        session.run(other, replace_all(command, replacements))

    again = session.check(other.run(f"{make_run} {options}", timeout=TIMEOUT), expected_status=2)
    assert "is already running" in again.output
    processes = [process for record in local.processes.read() for process in record.list_session()]
    assert len(processes) > 2, "MiniStack, its functions and the Hub"
    started.interrupt()
    ended = session.check(started.wait_for_end(timeout=TIMEOUT), expected_status=130)
    assert "Stopped." in ended.lines
    assert [process for process in processes if is_running(process)] == []
    assert not local.folder.exists()
    assert session.problems == []


@pytest.mark.skipif("LONG_TESTS" not in os.environ, reason="takes minutes: set LONG_TESTS=1")
def test_quickstart(session: Session, local: LocalStack, aws: Path, tmp_path: Path) -> None:
    """The local stack is in the place of the one that `make deploy` deploys."""
    commands = read_commands((ROOT / "docs" / "quickstart-aws.md").read_text(encoding="utf-8"))
    deployment = commands.index("make deploy")
    terminal = session.open_terminal()
    for command in commands[:deployment]:
        session.run(terminal, command)
    session.run(terminal, f"make up UPSTREAM=loopback STACK={local.name}")
    state = json.loads(local.state_path.read_text())
    variables = {**CREDENTIALS, "AWS_ENDPOINT_URL": state["aws_endpoint_url"], "PATH": f"{aws}:$PATH"}
    for name, value in variables.items():
        terminal.run(f"export {name}={value}", timeout=TIMEOUT)
    archive = local.folder / "sample.zip"
    owner, _, name = GITHUB_SMALL.partition("/")
    replacements = {
        "$(out ApiUrl)": state["api_url"],
        "OWNER/REPOSITORY@main": GITHUB_MINILM,
        '"OWNER"': f'"{owner}"',
        '"REPOSITORY"': f'"{name}"',
        '{"model_tag": "sentence-transformers/all-MiniLM-L6-v2"}': json.dumps({"model_tag": SMALL}),
        "zip models.zip": f"zip {archive} --name quickstart",
        "@models.zip": f"@{archive}",
        "cp models.zip": f"cp {archive}",
        "/models.zip": "/others.zip",
        "--to all-MiniLM-L6-v2": f"--to {tmp_path}/all-MiniLM-L6-v2",
    }
    for command in commands[deployment + 1 :]:
        typed = replace_all(command, {**replacements, "TASK_ID": session.task_id})
        if "/outcomes/" in command:
            # The page says to read the file again until the import has ended.
            wait_until(lambda: re.search("DONE|FAILED", terminal.run(typed, timeout=TIMEOUT).output) is not None)  # noqa: B023
        session.run(terminal, typed)
    assert session.problems == []
