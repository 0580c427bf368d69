"""Walks and findings over any answers: they agree with the standard, and no answer breaks them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gobanfast.wire.cors_findings import MODES, SEVERITIES, findings
from gobanfast.wire.cors_walk import CLIENTS, Answer, Answers, Asked, headers_of, preflights, walk
from gobanfast.wire.fetch import needs_preflight, preflight_headers
from oracle import fetch as oracle

ORIGIN = "https://app.example"
NAMES = (
    "access-control-allow-origin", "access-control-allow-credentials", "access-control-allow-methods",
    "access-control-allow-headers", "access-control-expose-headers", "vary", "content-type", "location", "connection",
    "x-request-id",
)  # fmt: skip
VALUES = (
    ORIGIN, ORIGIN + "/", "*", "null", "true", "True", "PUT", "last-event-id, x-a", "authorization", "origin", "a b",
    "text/event-stream", "text/event-stream; charset=latin1", "keep-alive", "//[", "/x", "", "\x00\u00ff",
)  # fmt: skip
ANSWERS = st.builds(
    Answer,
    st.sampled_from([200, 200, 204, 301, 307, 403, 405, 500]),
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=6),
    st.sampled_from(["HTTP/1.1", "HTTP/2"]),
) | st.just(Answer(0, failure="no answer"))
ASKED = st.builds(
    Asked,
    st.sampled_from(["https://api.example/x", "http://localhost/x", ORIGIN + "/x"]),
    st.sampled_from([ORIGIN, "null"]),
    st.booleans(),
    st.sampled_from(["GET", "HEAD", "PUT", "POST"]),
    st.sampled_from([(), (("x-a", "1"),), (("accept", "a/b"),), (("authorization", ""), ("last-event-id", "2"))]),
)


def answers_for(asked: Asked, get: Answer, head: Answer, ask: Answer) -> Answers:
    return Answers(get, head, dict.fromkeys(preflights(asked, CLIENTS), ask))


@given(ASKED, ANSWERS, ANSWERS, ANSWERS)
def test_a_page_reads_what_the_standard_lets_it_read(asked: Asked, get: Answer, head: Answer, ask: Answer) -> None:
    """Off redirects and other methods than were asked, `fetch` reads exactly what passes preflight and CORS check."""
    answer = head if asked.method == "HEAD" else get
    if asked.method in {"PUT", "POST"} or answer.status in {301, 307} or asked.same_origin:
        return
    found = walk("fetch", asked, answers_for(asked, get, head, ask))

    mode = "include" if asked.credentials else "same-origin"
    names = preflight_headers(asked.headers)
    right = bool(answer) and None is oracle.cors_check(asked.origin.encode(), mode, raw(answer))
    if needs_preflight(asked.method, names):
        right = right and bool(ask) and None is oracle.preflight_check(
            asked.origin.encode(), mode, asked.method.encode(), [name.encode() for name in names], ask.status, raw(ask)
        )  # fmt: skip
    assert right == found.readable


def raw(answer: Answer) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in answer.headers]


@given(ASKED, ANSWERS, ANSWERS, ANSWERS, st.sampled_from(CLIENTS))
def test_no_answer_breaks_a_walk(asked: Asked, get: Answer, head: Answer, ask: Answer, client: str) -> None:
    """A walk ends at its first failure, with something said; findings are ranked, each once, by known modes."""
    answers = answers_for(asked, get, head, ask)
    found = walk(client, asked, answers)

    assert [] == [step for step in found.steps[:-1] if not step.passes]
    assert found.steps[-1].passes == (found.readable is True) == (found.failed is None)
    assert [] == [step for step in found.steps if not step.what or step.passes == bool(step.mend)]
    assert found.sees
    if client == "fetch-SSE" and found.readable:
        assert walk("fetch", asked, answers).readable
        assert (200, "last-event-id") == (found.steps and (head if asked.method == "HEAD" else get).status,
                                          headers_of(client, asked)[-1][0])  # fmt: skip
    named = findings(asked, answers, [client])
    ranks = [SEVERITIES.index(one.severity) for one in named]
    assert sorted(ranks) == ranks
    assert len({(one.code, one.what) for one in named}) == len(named)
    assert {one.mode for one in named} <= {"", *MODES}


def test_preflights_are_asked_once_each() -> None:
    """EventSource causes none; fetch and fetch-SSE share one where both announce the same."""
    plain, key = Asked("https://api.example/", ORIGIN), Asked("https://api.example/", ORIGIN, headers=(("X-Key", "1"),))

    assert [("last-event-id",)] == preflights(plain, CLIENTS)
    assert [] == preflights(plain, ["EventSource", "fetch"]) == preflights(key, ["EventSource"])
    assert [("x-key",), ("last-event-id", "x-key")] == preflights(key, CLIENTS)
    assert [("last-event-id",)] == preflights(plain._replace(method="PUT", headers=(("Last-Event-ID", "1"),)), CLIENTS)
    assert [()] == preflights(plain._replace(method="DELETE"), ["fetch"])
