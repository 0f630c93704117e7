"""What the connectors' process counts, in Prometheus' text format.

One `Metrics` per process, with a registry of its own. Labels hold names from the configuration, error codes and
statuses only: never a sender, a text or a path, which have no limit of variety and are nobody else's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from schemas.message import Outbound
from schemas.power import LEVELS, PowerStatus
from schemas.update import UpdateStatus

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class _Watched(Collector):
    """Gauges whose values are read only when somebody looks."""

    def __init__(self) -> None:
        self.waiting: Callable[[], int] = int
        self.connections: Callable[[], int] = int
        self.queues: Callable[[], Mapping[str, int]] = dict
        self.machines: Callable[[], Sequence[PowerStatus]] = tuple
        self.slots: Callable[[], Sequence[UpdateStatus]] = tuple

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("roost_exchanges_waiting", "Clients that wait for an answer now", self.waiting())
        yield GaugeMetricFamily("roost_http_connections", "Open connections of the web server", self.connections())
        depth = GaugeMetricFamily("roost_queue_depth", "Accepted messages that are not finished", labels=["model"])
        for model, messages in self.queues().items():
            depth.add_metric([model], messages)
        yield depth
        yield from power(self.machines())
        yield from updates(self.slots())


def power(machines: Sequence[PowerStatus]) -> Iterator[Metric]:
    """What machines use. What a machine cannot read is absent, never zero."""
    level = GaugeMetricFamily("roost_power_level", "Level of power: 0 low, 1 normal, 2 full", labels=["host"])
    watts = GaugeMetricFamily("roost_power_watts", "What is drawn now, of what is measured", labels=["host", "source"])
    joules = CounterMetricFamily("roost_energy_joules", "Measured since the start of the ops part", labels=["host"])
    tokens = GaugeMetricFamily("roost_tokens_per_joule", "Over the last minute, while tokens come", labels=["host"])
    for machine in machines:
        level.add_metric([machine.host], LEVELS.index(machine.level))
        if machine.watts is not None:
            watts.add_metric([machine.host, machine.source], machine.watts)
        if machine.joules is not None:
            joules.add_metric([machine.host], machine.joules)
        if machine.tokens_per_joule is not None:
            tokens.add_metric([machine.host], machine.tokens_per_joule)
    yield from (level, watts, joules, tokens)


def updates(slots: Sequence[UpdateStatus]) -> Iterator[Metric]:
    """New versions on their way. Versions are no labels: there is no end of them."""
    phase = GaugeMetricFamily(
        "roost_update_phase", "1 for the phase of each updater's slot", labels=["name", "site", "phase"]
    )
    done, size, fetched = (
        GaugeMetricFamily(f"roost_update_{what}_bytes", about, labels=["name", "site"])
        for what, about in (
            ("done", "Of the version at work, on the disk"),
            ("size", "Of the version at work, in all"),
            ("fetched", "Of the version at work, that had to be fetched"),
        )
    )
    for slot in slots:
        phase.add_metric([slot.name, slot.site, slot.phase], 1)
        for gauge, value in ((done, slot.done), (size, slot.size), (fetched, slot.fetched)):
            gauge.add_metric([slot.name, slot.site], value)
    yield from (phase, done, size, fetched)


class Metrics:
    """Counts what ingress, egress and the web server tell it. Every method takes microseconds and never fails."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self._watched = _Watched()
        registry.register(self._watched)
        self._http = Counter(
            "roost_http_requests", "HTTP requests answered", ["method", "route", "status"], registry=registry
        )
        self._http_seconds = Histogram(
            "roost_http_seconds", "From the head of a request to the end of its answer", ["route"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._accepted = Counter("roost_accepted", "Messages stored by the bus", ["channel"], registry=registry)
        self._refused = Counter("roost_refused", "Messages refused at the door", ["code"], registry=registry)
        self._answered = Counter("roost_answers", "Finished answers", ["model", "finish"], registry=registry)
        self._tokens = Counter("roost_tokens", "Tokens read and written", ["model", "kind"], registry=registry)
        self._changed = Counter(
            "roost_model_changes",
            "Changes of a model's version, by machine",
            ["model", "what", "site"],
            registry=registry,
        )
        self._queued = Histogram(
            "roost_queued_seconds", "Waiting in the queue", ["model"], buckets=SECONDS, registry=registry
        )
        self._first = Histogram(
            "roost_first_token_seconds", "From the start of the work to the first token", ["model"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._total = Histogram(
            "roost_answer_seconds",
            "From the start of the work to the last token",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )

    def accepted(self, channel: str) -> None:
        """Ingress stored a message of the connector `channel`."""
        self._accepted.labels(channel).inc()

    def refused(self, code: str) -> None:
        """Ingress refused a message; `code` is the error's."""
        self._refused.labels(code).inc()

    def answered(self, outbound: Outbound) -> None:
        """An answer has come, or the reason why there is none."""
        model = outbound.model
        self._answered.labels(model, "error" if outbound.error else outbound.finish).inc()
        usage, timings = outbound.usage, outbound.timings
        self._tokens.labels(model, "prompt").inc(max(0, usage.prompt_tokens))
        self._tokens.labels(model, "cached").inc(max(0, usage.cached_tokens))
        self._tokens.labels(model, "completion").inc(max(0, usage.completion_tokens))
        self._queued.labels(model).observe(timings.queued_ms / 1000)
        if timings.first_token_ms:
            self._first.labels(model).observe(timings.first_token_ms / 1000)
        if timings.total_ms:
            self._total.labels(model).observe(timings.total_ms / 1000)

    def changed(self, model: str, what: str, site: str) -> None:
        """A machine has taken another version of a model into use, gone back, or refused it."""
        self._changed.labels(model, what, site).inc()

    def http(self, method: str, route: str, status: int, seconds: float) -> None:
        """The web server has answered. `route` is the route's pattern."""
        self._http.labels(method if method in METHODS else "other", route, str(status)).inc()
        self._http_seconds.labels(route).observe(seconds)

    def watch_waiting(self, count: Callable[[], int]) -> None:
        """`count` tells, at each scrape, how many exchanges wait for an answer."""
        self._watched.waiting = count

    def watch_connections(self, count: Callable[[], int]) -> None:
        """`count` tells, at each scrape, how many connections are open."""
        self._watched.connections = count

    def watch_queues(self, depths: Callable[[], Mapping[str, int]]) -> None:
        """`depths` tells, at each scrape, the unfinished messages by model."""
        self._watched.queues = depths

    def watch_power(self, machines: Callable[[], Sequence[PowerStatus]]) -> None:
        """`machines` tells, at each scrape, how the machines stand."""
        self._watched.machines = machines

    def watch_updates(self, slots: Callable[[], Sequence[UpdateStatus]]) -> None:
        """`slots` tells, at each scrape, how the updaters' slots are."""
        self._watched.slots = slots

    def render(self) -> bytes:
        """Everything in Prometheus' text format, of type `CONTENT_TYPE`."""
        return generate_latest(self.registry)
