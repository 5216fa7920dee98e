from __future__ import annotations

import contextlib
import itertools

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vault.crypto.scopes import ACTIONS, Scope, ScopeError, covers, parse, subsumes, valid_name

# Few different segments, or two scopes would hardly ever meet.
SEGMENT = st.sampled_from(["a", "b", "a-1"])
ACTION = st.sampled_from(["credential.read", "credential.write"])
NAME = st.lists(SEGMENT, min_size=1, max_size=5).map("/".join)


@st.composite
def scope(draw: st.DrawFn) -> Scope:
    middle = draw(st.lists(st.one_of(SEGMENT, st.just("*")), max_size=2))
    last = draw(st.sampled_from([[], ["*"], ["**"]]))
    return parse(f"{draw(ACTION)}:{'/'.join([draw(SEGMENT), *middle, *last])}")


@st.composite
def narrower(draw: st.DrawFn, wide: Scope) -> Scope:
    """Often a scope within this one: stars are filled in, now and then with stars again."""
    parts: list[str] = []
    for segment in wide.segments:
        if segment == "*":
            parts.append(draw(st.one_of(SEGMENT, st.just("*"))))
        elif segment == "**":
            parts += draw(st.lists(st.one_of(SEGMENT, st.just("*")), max_size=2))
            parts += draw(st.sampled_from([[], ["*"], ["**"]]))
        else:
            parts.append(segment)
    action = draw(st.sampled_from([wide.action, wide.action, "key.read"]))
    return parse(f"{action}:{'/'.join(parts)}")


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_whatever_the_child_covers_the_parent_covers(data):
    parent = data.draw(scope())
    child = data.draw(narrower(parent))
    name = str(data.draw(narrower(child)).resource)
    for wide, narrow in ((parent, child), (child, parent)):
        if subsumes(wide, narrow):
            for action in (parent.action, child.action):
                assert covers(wide, action, name) or not covers(narrow, action, name)


@given(scope(), scope())
@settings(max_examples=250, deadline=None)
def test_a_parent_that_does_not_subsume_misses_some_name_of_the_child(parent, child):
    """The other direction: nothing narrower is refused. Fresh segments stand for every name there may be."""
    parent = Scope(child.action, parent.segments)
    assume(not subsumes(parent, child))
    names = []
    for tail in ((), ("z",), ("z", "y")):
        if bool(tail) == (child.segments[-1] == "**"):
            stem = child.segments[:-1] if tail else child.segments
            names.append("/".join([*("x" if segment == "*" else segment for segment in stem), *tail]))
    assert all(covers(child, child.action, name) for name in names)
    assert not all(covers(parent, parent.action, name) for name in names)


@given(scope(), scope(), scope())
@settings(deadline=None)
def test_subsumption_is_an_order(one, two, three):
    assert subsumes(one, one)
    if subsumes(one, two) and subsumes(two, three):
        assert subsumes(one, three)
    if subsumes(one, two) and subsumes(two, one):
        assert one == two


@given(scope(), st.sampled_from(sorted(ACTIONS)), NAME)
@settings(max_examples=250, deadline=None)
def test_to_cover_is_to_have_the_very_action_and_tenant(held, action, name):
    if covers(held, action, name):
        assert held.action == action
        assert held.segments[0] == name.split("/")[0]


@given(scope(), scope())
@settings(deadline=None)
def test_nothing_subsumes_across_actions_or_tenants(parent, child):
    if subsumes(parent, child):
        assert parent.action == child.action
        assert parent.segments[0] == child.segments[0]


@given(NAME, NAME)
def test_a_name_is_a_scope_that_covers_itself_alone(name, other):
    assert covers(parse(f"credential.read:{name}"), "credential.read", other) is (name == other)


@given(st.text(max_size=40))
def test_any_text_is_a_scope_that_reads_back_or_a_scope_error(text):
    for candidate in (text, f"credential.read:{text}", f"credential.read:acme/{text}"):
        with contextlib.suppress(ScopeError):
            assert str(parse(candidate)) == candidate
            assert candidate.isascii()


@given(st.text(st.sampled_from("ab/*.%-_A\0é"), max_size=12))
def test_a_valid_name_is_exactly_a_scope_without_stars_of_two_segments_or_more(text):
    try:
        segments = parse(f"credential.read:{text}").segments
    except ScopeError:
        segments = ()
    assert valid_name(text) is (len(segments) >= 2 and not any("*" in segment for segment in segments))


def test_every_small_case():
    """All scopes of up to three segments over two letters and the stars, against all names of up to four."""
    letters = ["a", "b"]
    names = ["/".join(each) for size in range(1, 5) for each in itertools.product(letters, repeat=size)]
    resources = []
    for size in range(1, 4):
        for each in itertools.product([*letters, "*", "**"], repeat=size):
            with contextlib.suppress(ScopeError):
                resources.append(parse("key.read:" + "/".join(each)))
    covered = {each: {name for name in names if covers(each, "key.read", name)} for each in resources}
    assert len(resources) == 2 + 2 * 4 + 2 * 3 * 4
    for parent, child in itertools.product(resources, repeat=2):
        if subsumes(parent, child):
            assert covered[child] <= covered[parent], (str(parent), str(child))
