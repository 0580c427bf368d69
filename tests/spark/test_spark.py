"""Spark over the kernel: the answers of the engine itself, replay by client equal to one engine in order of time.

Its wheel is large and a session takes a while to start: these tests run where GOBANFAST_SPARK is set (`make spark`).
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if not os.environ.get("GOBANFAST_SPARK"):
    pytest.skip("Spark is tested in a step of its own: make spark", allow_module_level=True)
pytest.importorskip("pyspark")
if shutil.which("java") is None:
    pytest.skip("Spark needs a Java runtime", allow_module_level=True)

from gobanfast._core.headers import PartialHeaders
from gobanfast.asn import AsnTable
from gobanfast.batch.engines import spark as of_spark
from gobanfast.engine import Engine
from gobanfast.rules import Ruleset

pytestmark = pytest.mark.filterwarnings("ignore")
RULES = """
trackers:
  request_rate: {limit: 6, window: 30s, action: ban, for: 90s}
rules:
- {id: net, when: {prefix: 203.0.113.0/24}, action: challenge}
- {id: tool, when: {header: {user-agent: {contains: sqlmap}}}, action: ban, for: 1m}
- {id: env, when: {path: /.env}, action: ban}
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    path: Path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(RULES)
    return Engine(Ruleset.load(path, asn=AsnTable.starter()))


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    made = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    made.sparkContext.setLogLevel("ERROR")
    yield made
    made.stop()


def rows() -> list[tuple[float, str, str, str]]:
    draw = random.Random(3)
    now, found = 1_700_000_000.0, []
    for _ in range(3_000):
        now += draw.random()
        which = min(int(draw.paretovariate(0.7)), 250)
        six = f"2001:db8:0:{which:x}::{draw.randrange(3)}"
        address = draw.choice([f"10.0.0.{which}", f"203.0.113.{which}", six])
        path, agent = draw.choice(["/"] * 60 + ["/.env"]), draw.choice(["a"] * 60 + ["sqlmap"])
        found.append((now, address, path, agent))
    return found


def test_rules_and_replay(engine: Engine, session: Any) -> None:
    """Rules alone as `decide_many`; with trackers and bans, in partitions, as one engine that sees all in order."""
    from pyspark.sql import functions

    shipped = of_spark.broadcast(session, engine)
    table = rows()
    frame = session.createDataFrame(table, "time double, ip string, path string, user_agent string").repartition(3)

    columns = [list(column) for column in zip(*table, strict=True)]
    alone = engine.decide_many(columns[1], path=columns[2], headers={"user-agent": columns[3]})
    ids = [rule.id for rule in engine.compiled.rules]
    expected = Counter(
        (("allow", "challenge", "limit", "ban")[action], None if rule == 0xFFFFFFFF else ids[rule])
        for action, rule in zip(alone.action.tolist(), alone.rule.tolist(), strict=True)
    )
    answers = of_spark.decide(frame, shipped, keep=["time"]).groupBy("action", "rule").count().collect()
    assert expected == Counter({(row["action"], row["rule"]): row["count"] for row in answers})

    asn = of_spark.functions(shipped)["asn"]
    told = session.createDataFrame([("8.8.8.8",), (None,)], "ip string").select(asn(functions.col("ip"))).collect()
    assert [15169, None] == [row[0] for row in told]

    one = Engine(engine.ruleset, clock=lambda: 0.0)
    in_order = []
    for at, ip, path, agent in table:
        headers = PartialHeaders([(b":path", path.encode()), (b"user-agent", agent.encode())], ("user-agent",))
        made = one.decide(ip, headers=headers, now=at - table[0][0])
        in_order.append((at, ip, made.action, made.rule, made.cause))
    replayed = of_spark.replay(frame, shipped, partitions=4).collect()
    found = [(row["time"], row["ip"], row["action"], row["rule"], row["cause"]) for row in replayed]
    assert sorted(in_order) == sorted(found, key=lambda row: row[:2])
    assert {"rule", "tracker", "ban"} <= {row[4] for row in found}


def test_shared_state_is_refused(session: Any) -> None:
    """What clients share cannot be replayed in partitions."""
    scored = Engine(Ruleset.from_text("score: {}\nrules: []\n", asn=AsnTable.starter()))
    frame = session.createDataFrame([(1.0, "8.8.8.8")], "time double, ip string")

    with pytest.raises(ValueError, match=r"not kept by client alone.*score"):
        of_spark.replay(frame, of_spark.broadcast(session, scored))
