"""What apt on this machine reads: the mirrors that it uses, so that no host name stands in this repository."""

from __future__ import annotations

import subprocess
from typing import NamedTuple


class Repository(NamedTuple):
    """One component of one suite on one mirror."""

    origin: str
    uri: str
    suite: str
    component: str

    def line(self, options: str = "") -> str:
        """The one-line form of sources.list; ``options`` goes into its brackets."""
        return " ".join(["deb", *([f"[{options}]"] if options else []), self.uri, self.suite, self.component])


def distribution_repositories() -> list[Repository]:
    """Debian's or Ubuntu's own repositories among those that apt reads here, third parties left out."""
    targets = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
            "Created-By: Packages",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = {Repository(*target.split("|")) for target in targets.splitlines()}
    return sorted(r for r in found if r.origin in ("Debian", "Ubuntu") and r.component in ("main", "universe"))
