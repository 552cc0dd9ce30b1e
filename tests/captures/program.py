"""A program with the OpenTelemetry SDK: traces of two services, to the OTLP/gRPC endpoint given."""

import sys

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, StatusCode, set_span_in_context

TRACES = 6


def main(endpoint: str) -> None:
    """Sends TRACES traces of 5 spans each, one batch from each service."""
    providers = []
    for service in ("front", "orders"):
        resource = Resource.create({"service.name": service, "service.instance.id": "1"})
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=True))
        )
        providers.append(provider)
    front, orders = (p.get_tracer("shop", "1.2", attributes={"in": "scope"}) for p in providers)
    before = None
    for number in range(TRACES):
        links = [Link(before, {"why": "the one before"})] if before else []
        root = front.start_span("GET /orders", kind=SpanKind.SERVER, links=links)
        before = root.get_span_context()
        root.set_attributes({"url.path": "/orders", "user.id": f"user-{number % 3}"})
        inside = set_span_in_context(root)
        call = front.start_span("orders.List", inside, kind=SpanKind.CLIENT)
        remote = orders.start_span("List", set_span_in_context(call), kind=SpanKind.SERVER)
        remote.set_attributes({"n": number, "share": 0.5, "cached": True, "tags": ["a", "é"]})
        query = orders.start_span(
            "SELECT",
            set_span_in_context(remote),
            links=[Link(before), Link(call.get_span_context())],
        )
        query.add_event("rows", {"count": 3})
        if number == 4:
            query.record_exception(ValueError("no such order"))
            query.set_status(StatusCode.ERROR, "no such order")
        query.end()
        remote.end()
        call.end()
        # Ends after its parent, as work that nobody waits for does.
        late = orders.start_span("audit", inside, kind=SpanKind.PRODUCER)
        root.end()
        late.end()
    for provider in providers:
        provider.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
