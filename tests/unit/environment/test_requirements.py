"""Tests of `prebuilt_spawner.environment.requirements`."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from prebuilt_spawner.environment.pasted import entries_of
from prebuilt_spawner.environment.requirements import (
    MAX_REQUEST_CHARACTERS,
    MAX_REQUIREMENTS,
    merge_requirements,
    parse_requirements,
    requirement_name,
)
from prebuilt_spawner.errors import MalformedRequest
from tests.pastes import LINE_PIECES, PIECES

pieces = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=10).map("".join)
lines = st.lists(st.sampled_from(LINE_PIECES + PIECES), max_size=12).map("".join)

names = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,8}[A-Za-z0-9])?", fullmatch=True).filter(
    lambda name: (
        not name.lower().endswith((".whl", ".egg", ".zip", ".tgz", ".tar", ".txt", ".toml", ".yml", ".yaml"))
        and ".tar." not in name.lower()
    )
)
versions = st.from_regex(
    r"(1!)?[0-9]{1,2}(\.[0-9]{1,2}){1,3}((a|b|rc)[0-9])?(\.post[0-9])?(\.dev[0-9])?", fullmatch=True
)
specifiers = st.one_of(
    st.builds("{}{}".format, st.sampled_from([">=", "<=", "==", "!=", "<", ">", "~="]), versions),
    st.builds("{}{}.*".format, st.sampled_from(["==", "!="]), st.from_regex(r"[0-9](\.[0-9]){0,2}", fullmatch=True)),
    st.builds("==={}".format, versions),
)
atoms = st.sampled_from(
    [
        "python_version<'3.8'",
        'os_name == "nt"',
        "'linux' in sys_platform",
        "platform.machine=='x'",
        "python_version not in '2.7'",
    ]
)
markers = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds("{} and {}".format, inner, inner),
        st.builds("{} or {}".format, inner, inner),
        st.builds("({})".format, inner),
    ),
    max_leaves=4,
)
requirement_texts = st.builds(
    lambda name, extras, versions, marker: (
        name + (f"[{','.join(extras)}]" if extras else "") + ",".join(versions) + (f" ; {marker}" if marker else "")
    ),
    names,
    st.lists(names, max_size=3),
    st.lists(specifiers, max_size=2),
    st.one_of(st.just(""), markers),
)


def refusal(request) -> str:
    """The message with which a request is refused; it must be short and printable."""
    with pytest.raises(MalformedRequest) as caught:
        parse_requirements(request)
    message = caught.value.message
    assert len(message) < 400
    assert message.isprintable()
    message.encode()
    return message


def outcome(request) -> tuple[str, ...] | str:
    """The requirements, or the message with which they are refused; any other exception is a failure."""
    try:
        return parse_requirements(request)
    except MalformedRequest as error:
        return error.message


def check_outcome(request) -> None:
    """Canonical requirements that are read again as themselves, or a short printable message."""
    result = outcome(request)
    if isinstance(result, str):
        assert result.isprintable()
        assert len(result) < 400
    else:
        check_canonical(result)
        assert parse_requirements(result) == result


def check_canonical(requirements: tuple[str, ...]) -> None:
    """What holds for whatever is accepted."""
    assert isinstance(requirements, tuple)
    assert list(requirements) == sorted(set(requirements))
    for requirement in requirements:
        assert not requirement.startswith("-")
        assert all(" " <= character <= "~" for character in requirement)
        parsed = Requirement(requirement)
        assert parsed.url is None
        assert requirement_name(requirement) == parsed.name


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("pandas", "pandas"),
        ("  XlsxWriter\t", "xlsxwriter"),
        ("Python_DOCX >= 1.0", "python-docx>=1"),
        ("a.b_-c", "a-b-c"),
        ("foo [B_x, a] (>=1.0 , <2.0)", "foo[a,b-x]<2,>=1"),
        ("foo[b,a,B]", "foo[a,b]"),
        ("foo[]", "foo"),
        ("foo>=1,>=1.0", "foo>=1"),
        ("foo==1.0-ALPHA.1", "foo==1a1"),
        ("foo==v1.00.0", "foo==1"),
        ("foo==1.0+Ubuntu-1", "foo==1+ubuntu.1"),
        ("foo~=1.10", "foo~=1.10"),
        ("foo~=1.10.0", "foo~=1.10.0"),
        ("foo==1.0.*", "foo==1.0.*"),
        ("foo!=v1.00.*", "foo!=1.0.*"),
        ("foo===1.0", "foo===1.0"),
        ("foo === 1.0-Local", "foo===1.0-local"),
        ("foo ;python_version<'3.8'", 'foo; python_version < "3.8"'),
        ("foo; (os.name=='nt')", 'foo; os_name == "nt"'),
    ],
)
def test_every_spelling_of_a_requirement_has_one_canonical_form(written, canonical):
    """The list form and the text form give the same canonical string."""
    assert parse_requirements([written]) == (canonical,)
    assert parse_requirements(written) == (canonical,)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("", ()),
        ("\n \n\t\n# nothing\n", ()),
        ("Python_DOCX >= 1.0\n# reports\nXlsxWriter", ("python-docx>=1", "xlsxwriter")),
        ("\ufeffb\r\na\r\n", ("a", "b")),
        ("a\rb", ("a", "b")),
        ("foo \\\n >=1, \\\r\n <2\nbar", ("bar", "foo<2,>=1")),
        ("foo \\", ("foo",)),
        ("foo  # für später 😀\n#bar", ("foo",)),
        ("foo # the next line is not part of this comment \\\nbar", ("bar", "foo")),
        ("foo \\\n# end\n>=1", None),
        ("foo#bar", None),
    ],
)
def test_text_is_read_as_a_requirements_file(written, canonical):
    """Comments, blank lines, continuations, line ends and a byte-order mark are read as pip reads them."""
    if canonical is None:
        refusal(written)
    else:
        assert parse_requirements(written) == canonical


def test_a_list_and_a_text_with_the_same_requirements_are_the_same_request():
    """Form and order mean nothing."""
    assert parse_requirements(["xlsxwriter", "python-docx>=1"]) == parse_requirements("Python.Docx>=1.0\nXLSXWRITER\n")


def test_equal_wishes_merge():
    """Wishing twice for the same is wishing once."""
    assert parse_requirements(["foo>=1", "Foo >= 1.0", "foo[a]>=1", "foo[A] >=1"]) == ("foo[a]>=1",)


def test_different_wishes_for_one_name_merge_when_a_version_is_both():
    """Versions add up and extras unite, for each marker by itself."""
    assert parse_requirements(["foo>=1", "foo[b]<2", "foo[a]; os_name=='nt'"]) == (
        'foo[a]; os_name == "nt"',
        "foo[b]<2,>=1",
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("pandas==1.0", "pandas==2.0"),
        ("pandas<2", "pandas>=2"),
        ("pandas==1.*", "pandas==2.1"),
        ("pandas~=1.2", "pandas<1.2"),
        ("pandas===1.0", "pandas==1.1"),
        ("pandas===1.0", "pandas===1.0.0"),
        ("pandas==1", "pandas!=1"),
    ],
)
def test_contradicting_wishes_are_refused_with_both_named(one, other):
    """Whichever comes first, also from two groups."""
    for request in ([one, other], [other, one]):
        message = refusal(request)
        for wish in parse_requirements([one]) + parse_requirements([other]):
            assert f"'{wish}'" in message
    with pytest.raises(MalformedRequest):
        merge_requirements(parse_requirements([one]), parse_requirements([other]))


def test_contradicting_wishes_under_different_markers_are_kept():
    """Which of them holds is for the resolver to say."""
    assert len(parse_requirements(["foo==1; os_name=='nt'", "foo==2; os_name=='posix'"])) == 2


def test_one_wish_that_nothing_can_satisfy_is_refused():
    """It is refused at once, not by the resolver."""
    assert "'foo>2,<1'" in refusal(["foo>2,<1"])


@pytest.mark.parametrize(
    "entry",
    [
        "https://example.org/x-1.0.tar.gz",
        "git+https://example.org/x.git",
        "evil @ https://example.org/evil.whl",
        "evil@file:///etc/passwd",
        "./local",
        "../x",
        "/srv/x",
        "~/x",
        ".",
        "sub/folder",
        "x-1.0-py3-none-any.whl",
        "x.tar.gz",
        "requirements.txt",
        "-e .",
        "--editable=.",
        "-e git+https://example.org/x",
        "--index-url=https://example.org",
        "-i https://example.org",
        "-r other.txt",
        "-c constraints.txt",
        "-",
        "--",
        "foo --hash=sha256:" + "0" * 64,
        "foo;$(reboot)",
        ";$(reboot)",
        "$(reboot)",
        "`reboot`",
        "foo; rm -rf",
        "${HOME}",
        "foo==${VERSION}",
        "$HOME",
        "%PATH%",
        "%conda install pandas",
        "foo_",
        "_foo",
        "foo[a_]",
        "foo[a",
        "foo==",
        "foo===",
        "foo===/etc/passwd",
        "foo===1|2",
        "foo=1",
        "foo>=1.*",
        "foo==abc",
        "foo;",
        "foo; python_version",
        "foo; extra == 'x'",
        "foo; 'x' in extras",
        "foo; 'dev' in dependency_groups",
        "foo; 'a' == 'b'",
        "foo; sys_platform ~= '1.0'",
        "foo; os_name == '\\x00'",
        "foo; " + "(" * 21 + "os_name == 'nt'" + ")" * 21,
        "foo; " + "(" * 480,
        "pandas😀",
        "pаndas",  # noqa: RUF001 - the second letter is Cyrillic
        "pandas\u202e",
        "pandas\u00a0>=1",
        "\ud83d",
        "x" * 501,
    ],
)
def test_what_is_no_requirement_by_name_is_refused_and_named(entry):
    """In a list and in a text; the message holds the offender's beginning, and the error the offender."""
    for request in ([entry], entry, f"numpy\n{entry}\n"):
        message = refusal(request)
        if entry.isprintable():
            assert entry[:40] in message
        with pytest.raises(MalformedRequest) as caught:
            parse_requirements(request)
        assert (caught.value.about, caught.value.entry) == ("packages", entry.strip(" \t"))


@pytest.mark.parametrize(
    "entry",
    [
        *("pip install pandas", "!pip install pandas", "python3 -m pip install pandas", "uv pip install pandas"),
        *("uv add pandas", "$ pip install pandas", "numpy pandas", "numpy, pandas", "pan das", "'pandas'", "pandas,"),
        *("numpy # pandas", "numpy --pre", "pandas && numpy", "pip install pandas && pip install numpy"),
    ],
)
def test_an_entry_of_a_list_is_not_taken_apart(entry):
    """What a text may hold, a list may not."""
    assert f"'{entry}'" in refusal([entry])


@pytest.mark.parametrize(
    "entry", ["", "  ", "pan\ndas", "numpy\npandas", "numpy\rpandas", "pan\x00das", "pan\x1b[31mdas", "#x"]
)
def test_an_entry_of_a_list_is_one_requirement(entry):
    """No line break, no comment, no control character, and not nothing."""
    refusal(["numpy", entry])


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x0b", "\x0c", "\x1b", "\x1c", "\x7f"])
def test_a_control_character_in_a_text_is_shown_by_its_code_point(character):
    """Even in a comment: the text is shown to people later."""
    assert f"U+{ord(character):04X}" in refusal(f"numpy\npan{character}das")
    assert f"U+{ord(character):04X}" in refusal(f"numpy # {character}")


def test_a_foreign_character_is_said_with_its_code_point():
    """Letters that look alike cannot be told apart otherwise."""
    assert "'😀' (U+1F600)" in refusal(["pandas😀"])
    assert "U+0430" in refusal(["p\u0430ndas"])
    assert "U+00A0" in refusal(["pandas\u00a0"])


@pytest.mark.parametrize(
    "request_",
    [None, 7, 1.5, True, {}, {"pandas": "2"}, {"pandas"}, b"pandas", bytearray(b"x"), iter(["pandas"]), object()],
)
def test_a_request_that_is_neither_list_nor_text_is_refused(request_):
    """Nothing else is iterated over or turned into text."""
    refusal(request_)


@pytest.mark.parametrize("entry", [None, 7, True, ["pandas"], {"name": "pandas"}, b"pandas", ("a",)])
def test_an_entry_that_is_no_text_is_refused(entry):
    """The message says what it is instead."""
    assert "Each entry" in refusal(["numpy", entry])


def test_a_subclass_of_str_is_text():
    """Template and translation libraries use such."""

    class Text(str):
        pass

    assert parse_requirements(Text("Foo\nbar")) == ("bar", "foo")
    (requirement,) = parse_requirements([Text("Foo")])
    assert (requirement, type(requirement)) == ("foo", str)


@pytest.mark.parametrize(
    "request_",
    [
        "x" * 1_000_000,
        "\n" * 1_000_000,
        "\\\n" * 500_000,
        " " * (MAX_REQUEST_CHARACTERS - 1) + "#",
        "\\\n" * (MAX_REQUEST_CHARACTERS // 2 - 10) + "-e .",
        [f"package-{number}" for number in range(10_000)],
        "\n".join(f"p{number}" for number in range(10_000)),
        ["x" * 1_000_000],
        ["foo" + "," * 480],
        ["foo[" + "a," * 240 + "]"],
        ["foo==" + "9." * 240],
        ["foo==" + "9" * 480 + "a"],
        [f"foo!={number}" for number in range(1000)],
        [f"p{name}!={number}" for name in range(50) for number in range(20)],
        [f"p{name}" + ",".join(f"!={number}" for number in range(20)) for name in range(600)],
        [f"foo[x{number}]" + ",".join(f"!={number}" for number in range(20)) for number in range(600)],
        ["-" * 500],
        ["a" + "-" * 480],
        ["a" + "." * 480 + "!"],
        "#" * MAX_REQUEST_CHARACTERS,
        [{}] * 1000,
    ],
    ids=range(21),
)
def test_large_requests_are_answered_at_once(request_):
    """Three seconds are far more than any of them needs, and far less than a quadratic parser would take."""
    started = time.perf_counter()
    outcome(request_)
    assert time.perf_counter() - started < 3


def test_the_hard_limit_on_entries_is_exact():
    """As many as the limit are read, one more is not; a caller may set it lower."""
    entries = [f"p{number}" for number in range(MAX_REQUIREMENTS)]
    assert len(parse_requirements(entries)) == MAX_REQUIREMENTS
    assert f"{MAX_REQUIREMENTS + 1:,} entries" in refusal([*entries, "one-more"])
    with pytest.raises(MalformedRequest):
        parse_requirements("a\nb\nc", max_packages=2)


def test_merging_gives_what_one_request_would_have_given():
    """Groups are merged by the rules of one request."""
    assert merge_requirements(("a>=1", "b"), (), ("a<2", "c[x]")) == ("a<2,>=1", "b", "c[x]")
    assert merge_requirements() == ()


def test_the_name_of_a_canonical_requirement_is_read_off():
    """Whatever follows the name."""
    canonical = parse_requirements(["Foo.Bar[x]>=1", "b2", "c===1", "d ; os_name=='nt'"])
    assert [requirement_name(each) for each in canonical] == ["b2", "c", "d", "foo-bar"]
    with pytest.raises(ValueError, match="canonical"):
        requirement_name("[x]")


@given(st.lists(requirement_texts, max_size=5))
def test_parsing_is_idempotent_and_does_not_depend_on_order_or_case_of_names(entries):
    """The canonical form of a canonical form is itself, as list and as text."""
    try:
        once = parse_requirements(entries)
    except MalformedRequest:
        return
    check_canonical(once)
    assert parse_requirements(once) == once
    assert parse_requirements("\n".join(once)) == once
    assert parse_requirements(list(reversed(entries)) + entries) == once
    assert merge_requirements(once, once) == once


@given(requirement_texts)
def test_a_canonical_requirement_asks_for_what_was_written(text):
    """Packaging's own parser sees the same wish in both spellings."""
    try:
        (canonical,) = parse_requirements([text])
    except MalformedRequest:
        return
    read, written = Requirement(canonical), Requirement(text)
    # Not the requirements as such: their equality depends on the order of versions that are equal.
    assert set(read.specifier) == set(written.specifier)
    read.specifier = written.specifier = SpecifierSet()
    assert read == written


@given(pieces)
@example('foo; os_name == "\'"')
@example("foo; os_name == '\"'")
@example("foo===1.0,>=1;os_name=='nt'")
def test_any_text_is_either_read_or_refused(text):
    """Nothing but a tuple or a MalformedRequest comes out, whatever goes in."""
    for request in (text, [text], [text, text], ["foo", text]):
        check_outcome(request)


@given(lines)
def test_any_pasted_line_is_either_read_or_refused(text):
    """What is read is what its entries ask for one by one."""
    check_outcome(text)
    result = outcome(text)
    if not isinstance(result, str):
        assert parse_requirements([entry.text for entry in entries_of(text)]) == result


@given(st.lists(requirement_texts, max_size=5), st.sampled_from([" ", ", ", ",", "\n", " \\\n"]))
def test_requirements_beside_each_other_are_those_of_a_list(entries, between):
    """Whatever separates them; those with a condition, which goes to the end of its line, in quotes."""
    written = between.join(f'"{entry}"' if ";" in entry and '"' not in entry else entry for entry in entries)
    if any(";" in entry and '"' in entry for entry in entries):
        return
    assert outcome(written) == outcome(entries)
    on_a_line = written.replace("\\\n", " ").replace("\n", " ")
    assert outcome(f"%pip install -U {on_a_line}") == outcome(written)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_value_is_either_read_or_refused(value):
    """Over REST anything may arrive."""
    check_outcome(value)
