"""uv's words, as uv 0.9 and 0.13 wrote them to a file, and what becomes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prebuilt_spawner.adapters.uv_messages import Question, explain
from prebuilt_spawner.build.failure import Kind
from prebuilt_spawner.environment.requirements import requirement_name
from prebuilt_spawner.errors import IndexUnavailable, StorageFailure, UnresolvableRequest

SERVER = {"jupyter-server": "2.21.1", "jupyterlab": "4.6.6"}


def question(*requirements: str) -> Question:
    return Question(
        requirements={requirement_name(requirement): requirement for requirement in requirements},
        protected=SERVER,
        installed={**SERVER, "scipy": "1.10.0"},
        python_version="3.11.2",
        machine="x86_64",
    )


ABSENT = """\
error: No solution found when resolving dependencies
  cause: Because pandsa was not found in the package registry and you require pandsa, we can conclude that your requirements are unsatisfiable.
"""  # noqa: E501
ABSENT_09 = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because pandsa was not found in the package registry and you require
      pandsa, we can conclude that your requirements are unsatisfiable.
"""  # noqa: RUF001
SOURCE_ONLY_09 = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because all versions of docx have no usable wheels and you require docx,
      we can conclude that your requirements are unsatisfiable.

      hint: Wheels are required for `docx` because building from source is
      disabled for all packages (i.e., with `--no-build`)
"""  # noqa: RUF001
SOURCE_ONLY_BELOW = """\
error: No solution found when resolving dependencies
  cause: Because requests<=1.2.3 has no usable wheels and only the following versions of requests are available:
             requests<=1.2.3
             requests>=2
         we can conclude that requests<2 cannot be used.
         And because you require requests<2, we can conclude that your requirements are unsatisfiable.

hint: Wheels are required for `requests` because building from source is disabled for all packages (i.e., with `--no-build`)
"""  # noqa: E501
OLD_VERSIONS = """\
error: No solution found when resolving dependencies
  cause: Because all of:
             numpy<=1.9.3
             numpy>=1.10.0.post2,<=1.10.2
             numpy>=1.10.4,<=1.19.5
          have no usable wheels and only the following versions of numpy are available:
             numpy<=1.9.3
             numpy==1.10.0
             numpy>=1.10.0.post2,<=1.10.2
             numpy==1.10.3
             numpy>=1.10.4
         we can conclude that all of:
             numpy<1.10.0
             numpy>1.10.0,<1.10.3
             numpy>1.10.3,<=1.19.5
          cannot be used.
         And because all of:
             numpy==1.10.0
             numpy==1.10.3
          have no wheels with a matching Python ABI tag (e.g., `cp311`), we can conclude that numpy<=1.19.5 cannot be used.
         And because only the following versions of numpy are available:
             numpy<=1.19.5
             numpy>=1.20
         and you require numpy<1.20, we can conclude that your requirements are unsatisfiable.
"""  # noqa: E501
OTHER_PYTHON_09 = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because tensorflow==1.15.0 has no wheels with a matching Python ABI tag
      (e.g., `cp311`) and you require tensorflow==1.15, we can conclude that
      your requirements are unsatisfiable.

      hint: You require CPython 3.11 (`cp311`), but we only found wheels for
      `tensorflow` (v1.15.0) with the following Python ABI tags: `cp27m`,
      `cp35m`, `cp36m`, `cp37m`
"""  # noqa: RUF001
FORKED = """\
error: No solution found when resolving dependencies
  cause: Because pandas==2.2.0 depends on numpy{python_full_version < '3.12'}>=1.23.2,<2 and you require numpy<1.20, we can conclude that your requirements and pandas==2.2.0 are incompatible.
         And because you require pandas==2.2, we can conclude that your requirements are unsatisfiable.
"""  # noqa: E501
BESIDE_THE_SERVER_09 = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because jupyter-server==2.21.1 depends on tornado>=6.2.0 and you
      require tornado<6, we can conclude that your requirements and
      jupyter-server==2.21.1 are incompatible.
      And because you require jupyter-server==2.21.1, we can conclude that
      your requirements are unsatisfiable.
"""  # noqa: RUF001
ONE_OF = """\
error: No solution found when resolving dependencies
  cause: Because jupyterlab==4.6.6 depends on one of:
             ipykernel>=6.5.0,<6.30.0
             ipykernel>6.30.0
         and you require ipykernel<6, we can conclude that your requirements and jupyterlab==4.6.6 are incompatible.
         And because you require jupyterlab==4.6.6, we can conclude that your requirements are unsatisfiable.
"""
BASE_WOULD_BREAK = """\
error: No solution found when resolving dependencies
  cause: Because all versions of scipy depend on numpy<2 and you require scipy, we can conclude that you require numpy<2.
         And because you require numpy>=2, we can conclude that your requirements are unsatisfiable.
"""  # noqa: E501
OTHER_WORDS = """\
error: No solution found when resolving dependencies
  cause: Because something new happened with alpha, we can conclude that your requirements are unsatisfiable.
"""


@pytest.mark.parametrize(
    ("output", "requirements", "cause", "package", "message"),
    [
        (
            ABSENT,
            ["pandsa"],
            Kind.NO_SUCH_PACKAGE,
            "pandsa",
            "pandsa is not in the package index. Did you mean pandas?",
        ),
        (
            ABSENT_09,
            ["pandsa"],
            Kind.NO_SUCH_PACKAGE,
            "pandsa",
            "pandsa is not in the package index. Did you mean pandas?",
        ),
        (
            SOURCE_ONLY_09,
            ["docx"],
            Kind.SOURCE_ONLY,
            "docx",
            "docx has no wheel, only source, which this hub does not build. Did you mean python-docx? Try another "
            "package, or an older version that has a wheel, or ask the administrator.",
        ),
        (
            SOURCE_ONLY_BELOW,
            ["requests<2"],
            Kind.SOURCE_ONLY,
            "requests",
            "requests<2 has no wheel, only source, which this hub does not build. Try another package, or an "
            "older version that has a wheel, or ask the administrator.",
        ),
        (
            OLD_VERSIONS,
            ["numpy<1.20"],
            Kind.NO_FITTING_WHEEL,
            "numpy",
            "numpy<1.20 has no wheel for Python 3.11. Try another version of numpy, or another image.",
        ),
        (
            OTHER_PYTHON_09,
            ["tensorflow==1.15"],
            Kind.NO_FITTING_WHEEL,
            "tensorflow",
            "tensorflow 1.15.0 has no wheel for Python 3.11. Try another version of tensorflow, or another image.",
        ),
        (
            FORKED,
            ["pandas==2.2", "numpy<1.20"],
            Kind.CONFLICT,
            "numpy",
            "These cannot be installed together: pandas needs numpy>=1.23.2,<2, and you ask for numpy<1.20. Ask for "
            "other versions, or leave one out.",
        ),
        (
            BESIDE_THE_SERVER_09,
            ["tornado<6"],
            Kind.CONFLICT,
            "tornado",
            "These cannot be installed beside the server of this image (jupyter-server 2.21.1): jupyter-server needs "
            "tornado>=6.2.0 and you ask for tornado<6. Ask for other versions, or leave one out.",
        ),
        (
            ONE_OF,
            ["ipykernel<6"],
            Kind.CONFLICT,
            "ipykernel",
            "These cannot be installed beside the server of this image (jupyterlab 4.6.6): jupyterlab needs "
            "ipykernel>=6.5.0,<6.30.0 or >6.30.0 and you ask for ipykernel<6. Ask for other versions, or leave one "
            "out.",
        ),
        (
            BASE_WOULD_BREAK,
            ["numpy>=2"],
            Kind.CONFLICT,
            "numpy",
            "These cannot be installed together: scipy needs numpy<2, and you ask for numpy>=2 (the image comes "
            "with scipy 1.10.0). Ask for other versions, or leave one out.",
        ),
        (
            OTHER_WORDS,
            ["alpha", "beta"],
            Kind.UNRESOLVABLE,
            "",
            "alpha cannot be installed in this image. Ask for other versions, or leave some out.",
        ),
    ],
)
def test_a_derivation_becomes_a_sentence_that_names_the_offender(
    output: str, requirements: list[str], cause: Kind, package: str, message: str
) -> None:
    error = explain(output, question(*requirements))
    assert isinstance(error, UnresolvableRequest)
    assert error.message == message
    assert (error.cause, error.package) == (cause, package)
    assert (error.about, error.entry) == ("packages", package)
    assert error.detail == output


@pytest.mark.parametrize(
    ("output", "kind", "cause", "words"),
    [
        (
            "error: Failed to fetch: http://index.test/simple/beta/\n"
            "  cause: HTTP status server error (500 Internal Server Error) for url (http://index.test/simple/beta/)\n",
            IndexUnavailable,
            Kind.INDEX_BROKEN,
            "does not answer as it should",
        ),
        (
            "error: Failed to fetch: https://index.test/simple/beta/\n"
            "  cause: error sending request for url (https://index.test/simple/beta/)\n  cause: operation timed out\n",
            IndexUnavailable,
            Kind.INDEX_SILENT,
            "does not answer",
        ),
        (
            "error: Failed to fetch: https://index.test/simple/beta/\n"
            "  cause: error sending request for url (https://index.test/simple/beta/)\n"
            "  cause: client error (Connect)\n  cause: tcp connect error\n  cause: Connection refused (os error 111)\n",
            IndexUnavailable,
            Kind.INDEX_UNREACHABLE,
            "cannot be reached",
        ),
        (
            "error: Failed to fetch: https://index.test/simple/beta/\n"
            "  cause: error sending request for url (https://index.test/simple/beta/)\n"
            "  cause: client error (Connect)\n  cause: invalid peer certificate: UnknownIssuer\n",
            IndexUnavailable,
            Kind.INDEX_CERTIFICATE,
            "certificate is not trusted",
        ),
        (
            "error: Failed to fetch: https://index.test/simple/beta/\n"
            "  cause: error sending request for url (https://index.test/simple/beta/)\n"
            "  cause: client error (Connect)\n  cause: tunnel error: proxy authorization required\n",
            IndexUnavailable,
            Kind.INDEX_CREDENTIALS,
            "refused this hub's credentials",
        ),
        (
            f"{ABSENT}\nhint: An index URL (http://index.test/simple/) could not be queried due to a lack of valid "
            "authentication credentials (401 Unauthorized)\n",
            IndexUnavailable,
            Kind.INDEX_CREDENTIALS,
            "refused this hub's credentials",
        ),
        (
            f"{ABSENT}\nhint: An index (http://index.test/simple/) returned a 403 Forbidden error. Check that the "
            "index URL is correct and the credentials are valid.\n",
            IndexUnavailable,
            Kind.INDEX_CREDENTIALS,
            "refused this hub's credentials",
        ),
        (
            "error: failed to write to file: No space left on device (os error 28)\n",
            StorageFailure,
            Kind.DISK_FULL,
            "disk is full",
        ),
        (
            "error: failed to write: Permission denied (os error 13)\n",
            StorageFailure,
            Kind.STORAGE,
            "write to its disk",
        ),
        ("thread 'main' panicked", IndexUnavailable, Kind.INDEX, "could not be looked up"),
        ("", IndexUnavailable, Kind.INDEX, "could not be looked up"),
    ],
)
def test_what_no_user_can_mend_is_the_administrators(
    output: str, kind: type[Exception], cause: Kind, words: str
) -> None:
    error = explain(output, question("pandsa"))
    assert (type(error), error.cause) == (kind, cause)
    assert words in error.message
    assert "administrator" in error.message
    assert output in error.detail
    assert "index.test" not in error.message


def test_a_misspelt_name_is_looked_for_among_those_that_were_seen() -> None:
    asked = replace(question("house-tols"), seen=("house-tools",))
    text = ABSENT.replace("pandsa", "house-tols")
    assert explain(text, asked).message.endswith("Did you mean house-tools?")
    assert explain(text, question("house-tols")).message.endswith("Check the spelling.")


def test_a_long_derivation_is_read_in_a_moment() -> None:
    """Nothing in it makes the patterns take long: an index may list ten thousand versions."""
    versions = " ".join(f"alpha==1.{number}" for number in range(10_000))
    output = (
        f"error: No solution found when resolving dependencies\n cause: Because only the following versions of alpha "
        f"are available: {versions} and you require alpha>=2, we can conclude that your requirements are unsatisfiable."
    )
    assert "alpha" in explain(output, question("alpha>=2")).message
