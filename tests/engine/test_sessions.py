"""What runs in a session is exactly the image, whatever its user tries; packages can be tried until it stops."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import docker
import pytest
import requests
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from ..crafted_wheels import build_wheel
from .hub import ADMIN_TOKEN, Hub, changed_base
from .programs import IN_A_KERNEL, INSTALLED_FILES

ADVICE = ("Hub Control Panel", "stop this server", "start it again", "prebuilt-try")
AUTHORIZED = {"Authorization": f"token {ADMIN_TOKEN}"}
WHEEL = "/home/jovyan/demo_pkg-1.0-py3-none-any.whl"
# Beside the virtual environment of the other tests.
OTHER_BASES = {"system": "PREBUILT_SPAWNER_TEST_BASE_SYSTEM", "conda": "PREBUILT_SPAWNER_TEST_BASE_CONDA"}

INSTALLERS = [
    "pip install $W",
    "pip3 install $W",
    "python3 -m pip install $W",
    "python3 -Im pip --no-input install $W",
    "pip install --user $W",
    "pip install --user --break-system-packages $W",
    "pip install --break-system-packages $W",
    "pip install --target=$SITE $W",
    "pip install -t $SITE --upgrade $W",
    "PIP_TARGET=$SITE pip install $W",
    "pip install --force-reinstall --no-deps six",
    "pip uninstall -y six",
    "uv pip install $W",
    "uv pip uninstall six",
]
"""Each has to give the advice."""
OTHER_MEANS = [
    "uv pip install --python $(command -v python3) --break-system-packages $W",
    "uv pip install --target $SITE $W",
    "pip --python $(command -v python3) install --break-system-packages $W",
    "python3 -S -m pip install --break-system-packages $W",
    "cp $W $SITE/",
    "touch $SITE/sitecustomize.py",
    "echo 'evil = 1' >> $SITE/six.py",
    "rm -f $SITE/six.py",
    "mv $SITE/six.py $SITE/seven.py",
    "chmod u+w $SITE/six.py",
    "ln -sf /bin/true $(readlink -f $(command -v python3))",
    "cp /bin/true $(command -v python3)",
    "rm -f $(command -v python3)",
    "mkdir $SITE/evil",
    "mount -o remount,rw /",
    "mount -t tmpfs none $SITE",
    "unshare -r mount -t tmpfs none $SITE",
    "su -c 'touch $SITE/evil.py'",
    "sudo -n touch $SITE/evil.py",
]
"""Each has to fail."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A server that runs, with six and uv in its image."""

    kind: str
    hub: Hub
    user: str

    def sh(self, command: str) -> tuple[int, str]:
        """Run a shell command as the notebook user, in the environment of the server."""
        return self.hub.execute(self.user, "sh", "-c", command)

    def python(self, program: str) -> str:
        status, output = self.hub.execute(self.user, "python3", "-c", program)
        assert status == 0, output
        return output.strip()

    def in_kernel(self, name: str, code: str) -> str:
        """What code prints that is run in a kernel."""
        return self.python(IN_A_KERNEL.format(name=name, code=code))

    def ask(self, method: str, path: str) -> Any:
        """What the server answers through the proxy."""
        url = f"{self.hub.url}/user/{self.user}/{path}"
        answer = requests.request(method, url, headers=AUTHORIZED, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def kernels(self) -> dict[str, str]:
        """What JupyterLab's launcher shows, by the kernels' names."""
        specs = self.ask("GET", "api/kernelspecs")["kernelspecs"]
        return {name: spec["spec"]["display_name"] for name, spec in specs.items()}

    def in_terminal(self, line: str, until: str) -> str:
        """What a new terminal of JupyterLab shows of a line that is typed into it, up to these words."""
        name = self.ask("POST", "api/terminals")["name"]
        url = f"{self.hub.url}/user/{self.user}/terminals/websocket/{name}".replace("http", "ws", 1)
        return asyncio.run(asyncio.wait_for(_typed(HTTPRequest(url, headers=AUTHORIZED), line, until), 60))

    def bring_wheel(self) -> None:
        """Put a wheel into the home."""
        content = base64.b64encode(build_wheel("demo-pkg", "1.0")[1])
        self.python(f"import base64; open({WHEEL!r}, 'wb').write(base64.b64decode({content!r}))")


async def _typed(terminal: HTTPRequest, line: str, until: str) -> str:
    connection = await websocket_connect(terminal)
    shown = ""
    while until not in shown:
        message = await connection.read_message()
        assert message is not None, shown
        kind, *rest = json.loads(message)
        if kind == "setup":
            await connection.write_message(json.dumps(["stdin", f"{line}\r"]))
        shown += rest[0] if kind == "stdout" else ""
    connection.close()
    while await connection.read_message() is not None:
        pass
    return shown


@pytest.fixture(scope="module", params=["venv", *OTHER_BASES])
def session(request: pytest.FixtureRequest, make_hub: Callable[..., Hub], base: str) -> Session:
    """One on each kind of base."""
    kind: str = request.param
    hub = make_hub(base=os.environ[OTHER_BASES[kind]] if kind in OTHER_BASES else base)
    hub.start()
    made = Session(kind=kind, hub=hub, user=hub.user(f"{kind}user"))
    outcome = hub.start_server(made.user, {"packages": ["six", "uv"]})
    assert outcome.ready, outcome
    made.bring_wheel()
    return made


def test_nothing_changes_the_environment(session: Session) -> None:
    """No installer, no file operation and no way to be root changes a file of the interpreter or its packages; pip and
    uv say what to do instead, also in a notebook and in a terminal. The server is healthy all the while."""
    before = session.python(INSTALLED_FILES)
    assert "six" in before
    site = session.python("import os, six; print(os.path.dirname(six.__file__))")
    settings = f"W={WHEEL}; SITE={site}; "
    for command in INSTALLERS:
        status, output = session.sh(settings + command)
        assert status != 0, (command, output)
        assert all(words in output for words in ADVICE), (command, output)
        assert "Traceback" not in output, (command, output)
    for command in OTHER_MEANS:
        status, output = session.sh(settings + command)
        assert status != 0, (command, output)
    magic = session.in_kernel("python3", f"%pip install {WHEEL}")
    assert all(words in magic for words in ADVICE), magic
    assert "Traceback" not in magic, magic
    shown = session.in_terminal(f"pip install {WHEEL}; echo status $?", until="status 1")
    assert all(words in shown for words in ADVICE), shown
    assert session.python(INSTALLED_FILES) == before
    assert session.hub.becomes_healthy(session.user)


def test_conda_and_mamba_give_the_advice_too(session: Session) -> None:
    """Where they are there, for what would change the image; what only looks is theirs."""
    names = [name for name in ("conda", "mamba") if session.sh(f"command -v {name}")[0] == 0]
    assert bool(names) == (session.kind == "conda")
    for name in names:
        for command in ("install -y six", "remove six", "update --all", "-v install --channel x six", "uninstall six"):
            status, output = session.sh(f"{name} {command}")
            assert status != 0, (name, command)
            assert all(words in output for words in ADVICE), (name, command, output)
        assert session.sh(f"{name} list")[0] == 0


def test_a_users_own_packages_do_not_shadow_the_images(session: Session) -> None:
    """Neither for programs, nor in a kernel, nor in a terminal."""
    session.python(
        "import os, sys, sysconfig\n"
        "site = os.path.expanduser('~/.local/lib/python{}.{}/site-packages'.format(*sys.version_info[:2]))\n"
        "os.makedirs(site, exist_ok=True)\n"
        "for name in ('six', 'homemade'):\n"
        "    open(os.path.join(site, name + '.py'), 'w').write('__version__ = \"shadow\"\\n')\n"
    )
    program = "import six, importlib.util; print(six.__version__, importlib.util.find_spec('homemade'))"
    for found in (
        session.python(program),
        session.in_kernel("python3", program),
        session.hub.execute(session.user, "bash", "-lc", f'python3 -c "{program}"')[1].strip(),
    ):
        version, _, homemade = found.partition(" ")
        assert version[0].isdigit()
        assert homemade == "None"


def test_what_does_not_change_the_image_is_left_to_the_tools(session: Session) -> None:
    """Looking, downloading, other folders, and environments of the user's own, with pip and with uv."""
    home = "/home/jovyan/mine"
    for command in (
        "pip list",
        "pip show six",
        "pip --version",
        "pip install --help",
        f"pip install --no-deps --target {home}/there {WHEEL} && test -e {home}/there/demo_pkg",
        f"uv venv {home}/env && uv pip install --offline --python {home}/env/bin/python {WHEEL}",
        f". {home}/env/bin/activate && uv pip uninstall demo-pkg && uv pip install --offline {WHEEL}",
        f"unset VIRTUAL_ENV; cd {home} && uv venv && uv pip install --offline {WHEEL} && ls .venv/lib/*/*/demo_pkg",
        "uv pip list",
        'python3 -c \'import sys; assert sys.argv[1:] == ["pip", "install"]\' pip install',
    ):
        status, output = session.sh(command)
        assert status == 0, (command, output)
        assert "Hub Control Panel" not in output, (command, output)


def test_a_package_can_be_tried_until_the_server_stops(session: Session) -> None:
    """One command makes an environment in memory that has the image's packages and the new one, with a kernel in the
    launcher; it adds to it under the same name, and is gone after a stop, kernel included."""
    program = "import demo_pkg, six, sys; print(demo_pkg.__version__, six.__name__, sys.prefix)"
    kernels = session.kernels()
    status, output = session.hub.execute(session.user, "bash", "-lc", f"prebuilt-try {WHEEL} --no-index")
    assert status == 0, output
    assert 'The kernel "Try: packages" is in' in output
    assert session.kernels() == {**kernels, "try-packages": "Try: packages"}
    assert session.in_kernel("try-packages", program) == "1.0 six /tmp/prebuilt-try/packages"
    assert session.python("import importlib.util as u; print(u.find_spec('demo_pkg'))") == "None"
    # A terminal's pip in it is its own, and no advice's business.
    environment = "/tmp/prebuilt-try/packages"
    assert session.sh(f"{environment}/bin/pip uninstall -y demo-pkg")[0] == 0
    assert session.sh(f"prebuilt-try {WHEEL} --no-index")[0] == 0
    assert session.in_kernel("try-packages", program).startswith("1.0 six")
    status, output = session.in_kernel("try-packages", f"%pip install --no-index --force-reinstall {WHEEL}"), ""
    assert "Successfully installed demo-pkg-1.0" in status

    session.hub.stop_server(session.user)
    assert session.hub.start_server(session.user, body={}).ready
    assert session.kernels() == kernels
    assert session.sh(f"test -e {environment}")[0] != 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "PACKAGE"),
        ("--name ../../home six", "a name begins with a letter or digit"),
        ("--name kept six --name", "expected one argument"),
        ("no-such-package-anywhere --no-index", "No matching distribution found"),
    ],
)
def test_a_try_that_fails_says_why_and_leaves_nothing(session: Session, arguments: str, words: str) -> None:
    """In a sentence, with no kernel and no folder left."""
    environments = "ls -A /tmp/prebuilt-try"
    kernels = session.kernels()
    status, output = session.sh(f"prebuilt-try --name failing {arguments}")
    assert status != 0
    assert words in output, output
    assert "Traceback" not in output, output
    assert session.kernels() == kernels
    assert "failing" not in session.sh(environments)[1]


def test_a_base_that_cannot_live_read_only_fails_at_once_and_the_trait_turns_it_off(
    make_hub: Callable[..., Hub], client: docker.APIClient, base: str, run: str
) -> None:
    """The user is told that it is the administrator's, whose log names the folder and both settings; with either of
    them it starts."""
    name = f"prebuilt-spawner-test/{run}-writes:1"
    hook = "/usr/local/bin/before-notebook.d/50-write.sh"
    folder = "/srv/state"
    made = f"mkdir {folder} && chmod 777 {folder} && echo 'echo x > {folder}/it || exit 7' > {hook} && chmod 755 {hook}"
    changed_base(client, base, name, made, run)
    hub = make_hub(base=name, settings="c.PrebuiltSpawner.http_timeout = 120\n")
    hub.start()
    user = hub.user("writer")
    outcome = hub.start_server(user, {})
    assert (outcome.ready, outcome.status) == (False, 503), outcome
    assert "wants to write where nothing can be written" in outcome.message
    for words in (folder, "Read-only file system", "c.PrebuiltSpawner.scratch", "c.PrebuiltSpawner.immutable = False"):
        assert words in hub.log()
    for setting in (f"scratch = {{'/tmp': 0, {folder!r}: 1 << 20}}", "immutable = False"):
        hub.stop()
        hub.configure(f"c.PrebuiltSpawner.{setting}\n")
        hub.start()
        assert hub.start_server(user, {}).ready
        # Also without packages.
        advised = hub.execute(user, "pip", "install", "--no-index", "six")[1]
        assert ("Hub Control Panel" in advised) is ("immutable" not in setting), advised
        hub.stop_server(user)
