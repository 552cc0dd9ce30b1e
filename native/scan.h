/* Reads ExportTraceServiceRequests as a receiver does: counts spans, checks IDs, evaluates rules.
 *
 * Knows nothing of Python and has no globals. One scanner belongs to one thread at a time.
 */
#ifndef BLASTER_SCAN_H
#define BLASTER_SCAN_H

#include <stddef.h>
#include <stdint.h>

/* The rules, in this order everywhere: load-test-slow-requests (longer than 500 ms),
 * load-test-errors (status ERROR), load-test-missing-auth (http.route without auth.token). */
enum { SCAN_SLOW, SCAN_ERROR, SCAN_MISSING_AUTH, SCAN_RULES };

struct scan_counts {
    uint64_t requests;   /* well-formed requests */
    uint64_t malformed;  /* requests that broke their encoding; nothing of them counts */
    uint64_t bytes;      /* of the well-formed requests */
    uint64_t spans;      /* every span of every well-formed request, duplicates included */
    uint64_t duplicates; /* spans whose (trace ID, span ID) came before, of those checked */
    uint64_t invalid;    /* spans with a missing, zero or mis-sized trace or span ID */
    uint64_t violations[SCAN_RULES]; /* spans that break each rule */
};

/* A span with valid IDs that breaks a rule: for those who want to know which, not only how many. */
struct scan_violation {
    uint8_t trace_id[16];
    uint8_t span_id[8];
    uint64_t start, end; /* as the span says: nanoseconds since 1970 */
    uint64_t rules;      /* bit r: it breaks rule r */
};

enum { SCAN_VIOLATIONS_ROOM = 1 << 16 }; /* kept until they are taken */

struct scanner;

/* capacity: how many IDs are remembered at most (11 to 22 bytes each); beyond it the memory of IDs
 * is thinned to a hash sample (see scanner_sampling). It grows with what comes, from 32 KiB. NULL
 * when memory is short. */
struct scanner *scanner_new(size_t capacity);
void scanner_free(struct scanner *scanner);

enum { SCAN_MALFORMED = -1, SCAN_NO_MEMORY = -2 };

/* How a request is encoded: application/x-protobuf or application/json of OTLP. */
enum scan_encoding { SCAN_PROTOBUF, SCAN_JSON };

/* Scans one request and adds it to the counts. Returns its number of spans; SCAN_MALFORMED when the
 * bytes are not an ExportTraceServiceRequest (then only `malformed` grows); SCAN_NO_MEMORY when
 * memory is short (then no count grows). */
int64_t scanner_request(struct scanner *scanner, enum scan_encoding encoding, const uint8_t *data,
                        size_t length);

/* As scanner_request, but of the spans that a share (of 2^32) asks for, rounded up or down as
 * `random` (below 2^32) has it, nothing counts: the last ones. Their number goes to *rejected; the
 * number of all spans is returned. */
int64_t scanner_request_partly(struct scanner *scanner, enum scan_encoding encoding,
                               const uint8_t *data, size_t length, uint64_t share, uint32_t random,
                               int64_t *rejected);

/* What was counted so far. */
void scanner_counts(const struct scanner *scanner, struct scan_counts *out);

/* From now on keeps the spans that break one of these rules (bit r: rule r); 0: none, as at first.
 * Of a span only these rules are said. Any thread may call it. */
void scanner_watch(struct scanner *scanner, uint64_t rules);

/* Takes up to `most` of the spans that were kept, the oldest first; returns how many. When more
 * came than there is room for, the newest are missing; *missed is how many so far. Another thread
 * than that of scanner_request may call it, but only one at a time. */
size_t scanner_take(struct scanner *scanner, struct scan_violation *out, size_t most,
                    uint64_t *missed);

/* One ID in how many is checked for duplicates now: 1 is exact; a power of two. */
uint64_t scanner_sampling(const struct scanner *scanner);

#endif
