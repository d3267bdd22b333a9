"""What a server counts, in the form that Prometheus reads."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from speech.shared_batches import BatchReport

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
_UTTERANCES = (1, 2, 4, 8, 16, 32)


class ServerMetrics:
    """Counters of one server."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.answers = Counter(
            "speech_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "speech_request_seconds", "Time from a request to the end of its answer.", ["route"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.hang_ups = Counter(
            "speech_hang_ups", "Clients that left before their answer.", registry=registry
        )
        self.audio_seconds = Counter(
            "speech_audio_seconds", "Audio recognised, by uploads and live.", ["kind"],
            registry=registry,
        )  # fmt: skip
        self.batch_utterances = Histogram(
            "speech_batch_utterances", "Utterances recognised together.", buckets=_UTTERANCES,
            registry=registry,
        )  # fmt: skip
        self.batch_seconds = Counter(
            "speech_batch_seconds", "Time spent in the network and the decoder.", registry=registry
        )
        self.requests = Gauge("speech_requests_now", "Requests being served.", registry=registry)
        self.live_sessions = Gauge("speech_live_sessions", "Live sessions.", registry=registry)
        self.waiting = Gauge(
            "speech_waiting_utterances", "Utterances that wait for a batch.", registry=registry
        )

    def batch(self, report: BatchReport) -> None:
        """Count a batch."""
        self.batch_utterances.observe(report.utterances)
        self.batch_seconds.inc(report.wall_seconds)

    def render(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self._registry)
