"""The settings that uv and our downloads share."""

from __future__ import annotations

from pathlib import Path

import pytest

from prebuilt_spawner.adapters.network import NetworkSettings
from prebuilt_spawner.errors import SurroundingsError

HOME = Path("/nowhere")


def settings(environ: dict[str, str] | None = None, index: str | None = None, extra: list[str] | None = None):
    return NetworkSettings.from_environment(environ or {}, index_url=index, extra_index_urls=extra)


def test_uv_gets_nothing_of_the_hubs_environment_but_what_is_meant_for_it() -> None:
    environ = {
        "PATH": "/bin",
        "UV_OFFLINE": "1",
        "UV_RESOLUTION": "lowest",
        "CONFIGPROXY_AUTH_TOKEN": "x",
        "HOME": "/h",
    }
    variables = settings(environ, index="http://index.test/simple/").uv_environment(HOME)
    assert set(variables) == {"PATH", "HOME", "NETRC", "UV_SYSTEM_CERTS", "UV_NATIVE_TLS", "UV_DEFAULT_INDEX"}
    assert variables["HOME"] == str(HOME)


def test_without_an_index_uvs_own_variables_decide() -> None:
    environ = {
        "UV_DEFAULT_INDEX": "http://one.test/",
        "UV_INDEX": "corp=http://two.test/ http://three.test/",
        "UV_INDEX_CORP_USERNAME": "me",
        "UV_INDEX_CORP_PASSWORD": "s3cret",
    }
    found = settings(environ)
    assert found.public_index_urls == ("http://two.test/", "http://three.test/", "http://one.test/")
    assert found.uv_environment(HOME)["UV_INDEX"] == environ["UV_INDEX"]
    assert found.uv_environment(HOME)["UV_INDEX_CORP_PASSWORD"] == "s3cret"
    assert found.credentials_for("http://two.test/files/a.whl") == ("me", "s3cret")


def test_an_index_that_is_set_stands_alone() -> None:
    environ = {"UV_DEFAULT_INDEX": "http://one.test/", "UV_INDEX": "http://two.test/"}
    assert settings(environ, index="http://mine.test/").public_index_urls == ("http://mine.test/",)
    assert settings(environ, extra=["http://mine.test/"]).public_index_urls == ("http://mine.test/", "http://one.test/")


def test_a_url_with_an_equals_sign_is_not_a_named_index() -> None:
    found = settings(index="http://index.test/a=b/")
    assert found.public_index_urls == ("http://index.test/a=b/",)
    assert found.credentials == ()


def test_what_is_shown_of_an_index_has_no_secret_in_it() -> None:
    found = settings(index="https://me:s3cret@index.test/simple/?token=t0ken#x", extra=["corp=https://u@h.test/?k"])
    assert found.public_index_urls == ("https://h.test/", "https://index.test/simple/")


@pytest.mark.parametrize(
    ("served", "stored", "asked"),
    [
        ("/f/a.whl", "/f/a.whl", "/f/a.whl?token=T&v=1"),
        ("/f/a.whl?token=T&v=1", "/f/a.whl", "/f/a.whl?token=T&v=1"),
        ("/f/a.whl?id=7&token=T", "/f/a.whl?id=7", "/f/a.whl?id=7&token=T&v=1"),
        ("/other/a.whl?token=O&x=%2F", "/other/a.whl?x=%2F", "/other/a.whl?x=%2F&token=O"),
        ("/f/a.whl#sha256=1", "/f/a.whl#sha256=1", "/f/a.whl?token=T&v=1#sha256=1"),
    ],
)
def test_an_indexs_query_is_not_stored_with_a_wheel_and_is_sent_all_the_same(
    served: str, stored: str, asked: str
) -> None:
    found = settings(
        index="https://index.test/f/simple/?token=T&v=1", extra=["corp=https://index.test/other/simple/?token=O"]
    )
    assert found.stored_url(f"https://index.test{served}") == f"https://index.test{stored}"
    assert found.request_url(f"https://index.test{stored}") == f"https://index.test{asked}"


def test_a_query_goes_to_its_own_origin_only() -> None:
    found = settings(index="https://index.test/simple/?token=T")
    for url in (
        "http://index.test/a.whl",
        "https://index.test:444/a.whl",
        "https://files.test/a.whl?sig=1",
        "file:///a.whl",
    ):
        assert found.request_url(url) == url
        assert found.stored_url(url) == url
    assert found.stored_url("https://u:p@files.test/a.whl?sig=1") == "https://files.test/a.whl?sig=1"
    assert settings(index="https://index.test/").request_url("https://index.test/a.whl?b") == (
        "https://index.test/a.whl?b"
    )


@pytest.mark.parametrize(
    "text",
    [
        "Failed to fetch https://index.test/simple/six/?token=t0k%2Fen-of-mine&v=1",
        "GET /files/a.whl?id=7&token=t0k%2Fen-of-mine",
        "the token t0k/en-of-mine is not valid",
        "t0k%2Fen-of-mine",
        "https://other.test/?b4re-t0k%2Fen-of-mine",
    ],
)
def test_no_token_of_an_index_survives_redaction(text: str) -> None:
    found = settings(
        index="https://index.test/simple/?token=t0k%2Fen-of-mine&v=1",
        extra=["corp=https://other.test/?b4re-t0k%2Fen-of-mine"],
    )
    shown = found.redact(text)
    assert "t0k" not in shown
    assert "***" in shown


def test_lower_case_variables_win_and_both_spellings_are_handed_on() -> None:
    variables = settings({"http_proxy": "http://a.test", "HTTP_PROXY": "http://b.test"}).uv_environment(HOME)
    assert variables["http_proxy"] == variables["HTTP_PROXY"] == "http://a.test"


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://index.test/", "http://plain.test:1"),
        ("https://index.test/", "http://secure.test:2"),
        ("ftp://index.test/", "http://plain.test:1"),
        ("https://inside.corp.test/", ""),
        ("https://corp.test/", ""),
        ("https://notcorp.test/", "http://secure.test:2"),
        ("http://10.1.2.3/", ""),
        ("http://11.1.2.3/", "http://plain.test:1"),
        ("http://port.test:8080/", ""),
        ("http://port.test:8081/", "http://plain.test:1"),
        ("http://[::1]:80/", ""),
    ],
)
def test_the_proxy_is_chosen_by_scheme_and_exceptions(url: str, proxy: str) -> None:
    environ = {
        "HTTP_PROXY": "http://plain.test:1",
        "HTTPS_PROXY": "http://secure.test:2",
        "NO_PROXY": ".corp.test, 10.0.0.0/8,port.test:8080,,::1",
    }
    assert settings(environ).proxy_for(url) == proxy


def test_a_star_excepts_every_host_and_all_proxy_fills_in() -> None:
    assert settings({"ALL_PROXY": "http://all.test"}).proxy_for("https://index.test/") == "http://all.test"
    assert settings({"ALL_PROXY": "http://all.test", "no_proxy": "*"}).proxy_for("https://index.test/") == ""


def test_credentials_belong_to_scheme_host_and_port_and_the_nearest_index() -> None:
    found = settings(
        index="https://a:one@index.test/team-a/simple/", extra=["https://b:two@index.test:443/team-b/simple/"]
    )
    assert found.credentials_for("https://index.test/team-a/files/x.whl") == ("a", "one")
    assert found.credentials_for("https://index.test/team-b/files/x.whl") == ("b", "two")
    assert found.credentials_for("http://index.test/team-a/files/x.whl") is None
    assert found.credentials_for("https://index.test:444/team-a/files/x.whl") is None
    assert found.credentials_for("https://index.test.evil.test/") is None


def test_a_netrc_file_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine index.test login me password s3cret\nnonsense")
    assert settings({"HOME": str(tmp_path)}).credentials_for("https://index.test/") is None


def test_certificates_come_from_whichever_variable_is_set(tmp_path: Path) -> None:
    assert settings({"SSL_CERT_FILE": "a", "REQUESTS_CA_BUNDLE": "b"}).ca_file == "a"
    assert settings({"REQUESTS_CA_BUNDLE": "b", "CURL_CA_BUNDLE": "c"}).uv_environment(HOME)["SSL_CERT_FILE"] == "b"
    assert settings({"REQUESTS_CA_BUNDLE": str(tmp_path)}).ca_folder == str(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "Failed to fetch https://me:s3cret@index.test/simple/",
        "proxy http://user:pr0xy@proxy.test:3128 refused",
        "password is s3cret, or s3%2Fcret%40, or s3/cret@",
        "https://other:unkn0wn@elsewhere.test/",
        "two at signs: https://me:s3@cret@index.test/",
        "a bare token t0ken",
    ],
)
def test_no_secret_survives_redaction(text: str) -> None:
    found = settings(
        {"HTTP_PROXY": "http://user:pr0xy@proxy.test:3128"},
        index="https://me:s3cret@index.test/simple/",
        extra=["https://x:s3%2Fcret%40@index.test/", "https://t0ken@index.test/"],
    )
    shown = found.redact(text)
    for secret in ("s3cret", "pr0xy", "s3/cret@", "s3%2Fcret%40", "unkn0wn", "s3@cret", "t0ken"):
        assert secret not in shown
    assert "***" in shown


def test_text_without_secrets_stays_as_it_is() -> None:
    text = "Failed to fetch https://index.test/simple/a@b/ (mail admin@index.test)"
    assert settings(index="https://me:s3cret@index.test/").redact(text) == text


def test_settings_do_not_show_secrets_when_printed() -> None:
    found = settings({"HTTP_PROXY": "http://u:s3cret@p.test"}, index="https://me:s3cret@index.test/")
    assert "s3cret" not in repr(found)
    assert "s3cret" not in repr(found.credentials)


@pytest.mark.parametrize("password", ["s3c/ret", "s3c#ret", "s3c?ret", "s3c[ret"])
@pytest.mark.parametrize("place", ["index", "extra", "variable"])
def test_a_url_that_cannot_be_read_is_refused_without_showing_a_piece_of_it(password: str, place: str) -> None:
    """Whoever forgot to encode a password learns so, and the log does not have the half of it."""
    url = f"https://me:{password}@index.test/simple/"
    with pytest.raises(SurroundingsError) as caught:
        settings(
            {"UV_DEFAULT_INDEX": url if place == "variable" else ""},
            *{"index": (url,), "extra": (None, [url])}.get(place, ()),
        )
    assert "%2F" in caught.value.detail
    for part in ("s3c", "ret", "index.test"):
        assert part not in f"{caught.value.message} {caught.value.detail.replace('percent', '')}"
