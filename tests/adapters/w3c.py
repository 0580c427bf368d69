"""The public W3C trace-context harness against our middleware: `wrap` it, `inject` into each of its calls.

The service has no other tracing. The harness is an untrusted client whose context is to be continued: the rules say so.
"""

from __future__ import annotations

from typing import Any

RULES = """
version: 1
trace: {propagators: [tracecontext], from_untrusted: continue}
"""


def wrap(asgi_app: Any) -> Any:
    """The application, its requests decided by the rules above."""
    from gobanfast import Engine, Ruleset
    from gobanfast.frontends.asgi import Gobanfast

    return Gobanfast(asgi_app, Engine(Ruleset.from_text(RULES)))


def inject(carrier: dict[str, str]) -> None:
    """Puts the headers of one outgoing call into `carrier`, with a parent id of its own."""
    from gobanfast.trace import inject

    inject(carrier)
