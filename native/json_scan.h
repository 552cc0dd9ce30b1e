/* Reads ExportTraceServiceRequests in OTLP/JSON, as scan.c reads those in protobuf.
 *
 * Knows nothing of Python and has no globals.
 */
#ifndef BLASTER_JSON_SCAN_H
#define BLASTER_JSON_SCAN_H

#include "tally.h"

/* The shortest JSON of a span with both IDs: {"traceId":"…","spanId":"…"} and what parts it from
 * the next. */
enum { LEAST_JSON_SPAN_BYTES = 74 };

/* Tallies the spans of one request. False when the bytes are not OTLP/JSON; then the tally holds
 * part of them. */
bool json_scan(const uint8_t *data, size_t length, struct tally *tally);

#endif
