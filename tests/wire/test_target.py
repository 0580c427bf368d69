"""The path in a request target."""

from __future__ import annotations

import pytest

from gobanfast.wire.target import encoded, read_target


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/admin/x?y=z", "/admin/x"),
        (b"/admin/x?y=/z", "/admin/x"),
        ("http://host/admin?x", "/admin"),
        ("HTTP://user@host:80//admin", "//admin"),
        ("http://host", "/"),
        ("http://host?x", "/"),
        ("http://host#x", "/#x"),
        ("http://host\\admin", "http://host\\admin"),
        ("*", "*"),
        ("host:443", "host:443"),
        ("", ""),
        ("/a b", "/a b"),
        ("/a%20b/%61%C3%A9", "/a b/a\xe9"),
        ("/%2%35/%%35/%2f%2F%5c%3b%3f%23%25%2e%00%7f", "/%2%35/%%35/%2f%2F%5c%3b%3f%23%25%2e%00%7f"),
        ("/%61%ff", "/%61%ff"),
        ("/%2e%2E/a%3Fb", "/%2e%2E/a%3Fb"),
        ("/a#b", "/a#b"),
        ("//host/path", "//host/path"),
        ("/http://host/admin", "/http://host/admin"),
        (b"/caf\xc3\xa9", "/caf\xe9"),
        (b"/caf\xe9/%ff", "/caf%E9/%ff"),
    ],
)
def test_path_of_a_target(target: str | bytes, path: str) -> None:
    """The path stays as it was sent, without query, scheme and authority."""
    assert path == read_target(target)


def test_decoded_paths_are_encoded_again() -> None:
    """What a server has decoded comes back as the target it stands for: no character becomes a query or an escape."""
    assert "/a%3Fb%23c%25d/\xe9" == encoded("/a?b#c%d/\xe9") == encoded("/a?b#c%d/\xe9".encode())
    assert "/%E9%3F" == encoded(b"/\xe9?")
