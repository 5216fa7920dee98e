from __future__ import annotations

import pytest

from vault.crypto import scopes
from vault.crypto.scopes import ScopeError, covers, parse, subsumes, valid_name

READ = "credential.read"


@pytest.mark.parametrize(
    "text",
    [
        "credential.read:acme",
        "credential.read:acme/stripe/live",
        "credential.read:acme/*",
        "credential.read:acme/**",
        "credential.read:acme/*/live",
        "credential.read:acme/*/**",
        "session.use.verify_webhook:a/b/c/d/e/f/g/h",
        "token.revoke:0/1_-",
        "key.read:" + "/".join(["a" * 63] * 8),
    ],
)
def test_a_scope_reads_back_as_it_was_written(text):
    scope = parse(text)
    assert str(scope) == text
    assert scope.resource == text.partition(":")[2]


@pytest.mark.parametrize(
    "resource",
    [
        "",
        "/",
        "/acme",
        "acme/",
        "acme//x",
        "acme/.",
        "acme/..",
        "acme/../globex",
        "..",
        "acme/%2e%2e",
        "acme/%2F",
        "acme/a%00",
        "acme/a\0",
        "\0acme",
        "acme/a\n",
        "acme\n",
        "acme/a b",
        " acme",
        "acme/\u200ba",
        "acmé/a",
        "acme/\u0430",
        "acme/\uff41",
        "acme/ﬁ",
        "acme/\u0661",
        "acme/a\u0301",
        "acme/\u2215x",
        "\ud800",
        "Acme/a",
        "acme/A",
        "acme/_a",
        "acme/-a",
        "acme/a.b",
        "acme/a:b",
        "acme\\a",
        "acme/" + "a" * 64,
        "a" * 64,
        "/".join("abcdefghi"),
        "/".join("abcdefgh") + "/*",
        "/".join("abcdefgh") + "/**",
        "*",
        "**",
        "*/a",
        "**/a",
        "acme/**/a",
        "acme/**/**",
        "acme/**/*",
        "acme/***",
        "acme/a*",
        "acme/*a",
        "acme/a**",
        "acme/a/*b*",
        "acme/?",
        "acme/[a-z]",
        "acme/{a,b}",
    ],
)
def test_a_malformed_resource_is_refused_and_never_repaired(resource):
    with pytest.raises(ScopeError) as caught:
        parse(f"{READ}:{resource}")
    assert resource not in str(caught.value) or len(resource) < 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "acme",
        "credential.read",
        ":acme",
        "credential.read acme",
        "Credential.read:acme",
        "credential.read\0:acme",
        " credential.read:acme",
        "credential.*:acme",
        "*:acme",
        "credential:acme",
        "credential.readx:acme",
        "session.use:acme",
        "admin:acme",
        "credential.read\uff1aacme",
    ],
)
def test_a_malformed_action_is_refused(text):
    with pytest.raises(ScopeError):
        parse(text)


@pytest.mark.parametrize("action", sorted(scopes.ACTIONS))
def test_every_action_can_be_granted_and_covers_itself_alone(action):
    scope = parse(f"{action}:acme/**")
    assert [other for other in scopes.ACTIONS if covers(scope, other, "acme/a")] == [action]


@pytest.mark.parametrize(
    ("resource", "name", "expected"),
    [
        ("acme", "acme", True),
        ("acme", "acme/a", False),
        ("acme/a", "acme/a", True),
        ("acme/a", "acme/b", False),
        ("acme/a", "acme/a/b", False),
        ("acme/a", "acme", False),
        ("acme/a", "globex/a", False),
        ("acme/*", "acme/a", True),
        ("acme/*", "acme", False),
        ("acme/*", "acme/a/b", False),
        ("acme/*/c", "acme/b/c", True),
        ("acme/*/c", "acme/b/d", False),
        ("acme/*/c", "acme/b/b/c", False),
        ("acme/**", "acme/a", True),
        ("acme/**", "acme/a/b/c/d/e/f/g", True),
        ("acme/**", "acme", False),
        ("acme/**", "acmes/a", False),
        ("acme/**", "globex/a", False),
        ("acme/a/**", "acme/a", False),
        ("acme/a/**", "acme/a/b", True),
        ("acme/a/**", "acme/ab/b", False),
        ("acme/*/**", "acme/a", False),
        ("acme/*/**", "acme/a/b", True),
        ("acme/*/**", "acme/a/b/c", True),
    ],
)
def test_covers(resource, name, expected):
    assert covers(parse(f"{READ}:{resource}"), READ, name) is expected
    assert not covers(parse(f"{READ}:{resource}"), "credential.write", name)


@pytest.mark.parametrize(
    "name",
    [
        "acme/*",
        "acme/**",
        "acme/",
        "acme//a",
        "acme/..",
        "acme/A",
        "acme/%2e",
        "acme/a\0",
        "acme/a\n",
        "/acme/a",
        "",
        "/".join(["acme", *"abcdefgh"]),
    ],
)
def test_what_is_not_a_name_is_covered_by_nothing(name):
    for resource in ("acme/**", "acme/*", "acme/*/**", "acme"):
        assert not covers(parse(f"{READ}:{resource}"), READ, name)
    assert not valid_name(name)


@pytest.mark.parametrize(
    ("parent", "child", "expected"),
    [
        ("acme/**", "acme/**", True),
        ("acme/**", "acme/*", True),
        ("acme/**", "acme/a/*/b", True),
        ("acme/**", "acme/*/**", True),
        ("acme/**", "acme", False),
        ("acme/**", "globex/**", False),
        ("acme/*", "acme/a", True),
        ("acme/*", "acme/*", True),
        ("acme/*", "acme/**", False),
        ("acme/*/**", "acme/**", False),
        ("acme/*/**", "acme/a/**", True),
        ("acme/*/**", "acme/a/b", True),
        ("acme/*/**", "acme/a", False),
        ("acme/a", "acme/*", False),
        ("acme/a/**", "acme/*/**", False),
        ("acme/a/b", "acme/a/**", False),
        ("acme/*/*", "acme/*/**", False),
        ("acme", "acme", True),
    ],
)
def test_subsumes(parent, child, expected):
    assert subsumes(parse(f"{READ}:{parent}"), parse(f"{READ}:{child}")) is expected
    assert not subsumes(parse(f"credential.write:{parent}"), parse(f"{READ}:{child}"))


@pytest.mark.parametrize(
    "name", ["acme/a", "a/b/c/d/e/f/g/h", "/".join(["a" * 63] * 8), "0/_".replace("_", "9")]
)
def test_names(name):
    assert valid_name(name)


@pytest.mark.parametrize(
    "name",
    ["acme", "", "a/b/c/d/e/f/g/h/i", "acme/" + "a" * 64, "Acme/a", "acme/ä", "acme/.", "a" * 10_000_000],
)
def test_what_is_not_a_name(name):
    assert not valid_name(name)


def test_long_texts_from_outside_are_not_remembered():
    before = scopes._valid_name.cache_info().currsize
    for number in range(100):
        assert not valid_name(f"acme/{number:0>1000}")
    assert scopes._valid_name.cache_info().currsize == before
