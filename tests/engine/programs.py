"""Programs that tests run inside a session, with the session's own Python and nothing of the tests."""

INSTALLED_FILES = """
import hashlib, os, subprocess, sys, sysconfig
places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
places |= {path for path in sys.path if os.path.isdir(path)} | {os.path.dirname(sys.executable)}
files = {os.path.realpath(sys.executable)}
for place in places:
    files |= {os.path.join(folder, name) for folder, _, names in os.walk(place) for name in names}
for path in sorted(files):
    if os.path.isfile(path):
        with open(path, "rb") as file:
            print(path, oct(os.stat(path).st_mode), hashlib.sha256(file.read()).hexdigest())
freeze = [sys.executable, "-m", "pip", "--disable-pip-version-check", "freeze", "--all"]
print(subprocess.run(freeze, check=True, capture_output=True, text=True).stdout)
"""
"""Prints path, mode and SHA-256 of every file of the interpreter, its programs and its packages, and `pip freeze`."""

IN_A_KERNEL = """
from subprocess import DEVNULL
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name={name!r}, startup_timeout=60, stdout=DEVNULL, stderr=DEVNULL)
def show(message):
    content = message["content"]
    said = "\\n".join(content.get("traceback", ())) or content.get("text")
    print(said or content.get("data", {{}}).get("text/plain", ""))
try:
    client.execute_interactive({code!r}, timeout=60, output_hook=show)
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
"""
"""Prints what code prints, returns or raises in a new kernel; to be formatted with `name` and `code`."""
