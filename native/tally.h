/* What the requests at hand add to a scanner's counts, span by span, whatever their encoding.
 *
 * Knows nothing of Python and has no globals. The functions stand here so that they are inlined
 * into the loops over the spans.
 */
#ifndef BLASTER_TALLY_H
#define BLASTER_TALLY_H

#include "idset.h"
#include "scan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    SLOW_NANOSECONDS = 500000000,
    STATUS_CODE_ERROR = 2,
    MOST_DEPTH = 100 /* protobuf's limit on the nesting of messages */
};

/* A ring between the thread that scans and the one that takes. `head` and `tail` count what was
 * ever put in and taken out; each is written by one side. */
struct kept {
    struct scan_violation *ring;
    uint64_t rules; /* written and read atomically, as the three below */
    uint64_t head, tail, missed;
};

/* What one request adds to the counts. */
struct tally {
    const struct idset *ids;
    uint64_t *fingerprints;
    size_t fingerprint_count;
    uint64_t spans;
    uint64_t invalid;
    uint64_t violations[SCAN_RULES];
    const struct kept *kept;
    uint64_t watched;   /* rules */
    uint64_t keep;      /* so many spans count, and */
    uint64_t left_out;  /* ... these beyond them do not */
    uint64_t put, full; /* spans put behind the ring's head, and those that found no room */
};

/* Which of the keys that rules ask for a span has. */
struct keys {
    unsigned route;
    unsigned token;
};

/* What of a span counts. */
struct span {
    const uint8_t *trace_id, *span_id;
    size_t trace_id_size, span_id_size;
    uint64_t start, end; /* nanoseconds since 1970 */
    uint32_t code;       /* of its status */
    struct keys keys;
};

/* Eight bytes as a little-endian number. With memcpy, since not every compiler makes one load of
 * eight shifts. */
static inline uint64_t load_fixed64(const uint8_t *p) {
    uint64_t value;
    memcpy(&value, p, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

/* Whether ten bytes are those of `name`; two loads, where memcmp would be a call. */
static inline unsigned ten_equal(const uint8_t *bytes, const char *name) {
    uint64_t head, head_wanted;
    uint16_t tail, tail_wanted;
    memcpy(&head, bytes, 8);
    memcpy(&tail, bytes + 8, 2);
    memcpy(&head_wanted, name, 8);
    memcpy(&tail_wanted, name + 8, 2);
    return (unsigned)(head == head_wanted) & (unsigned)(tail == tail_wanted);
}

static inline void note_key(const uint8_t *key, size_t size, struct keys *keys) {
    if (size == 10) {
        keys->route |= ten_equal(key, "http.route");
        keys->token |= ten_equal(key, "auth.token");
    }
}

/* Puts the span behind the ring's head, where nobody sees it until the request proves well-formed.
 */
static inline void keep_span(struct tally *tally, const struct span *span, uint64_t rules) {
    const struct kept *kept = tally->kept;
    uint64_t at = kept->head + tally->put;
    if (at - __atomic_load_n(&kept->tail, __ATOMIC_ACQUIRE) >= SCAN_VIOLATIONS_ROOM) {
        tally->full++;
        return;
    }
    struct scan_violation *out = &kept->ring[at % SCAN_VIOLATIONS_ROOM];
    memcpy(out->trace_id, span->trace_id, sizeof out->trace_id);
    memcpy(out->span_id, span->span_id, sizeof out->span_id);
    out->start = span->start;
    out->end = span->end;
    out->rules = rules;
    tally->put++;
}

static inline void tally_span(struct tally *tally, const struct span *span) {
    if (tally->spans == tally->keep) {
        tally->left_out++;
        return;
    }
    tally->spans++;
    bool valid = span->trace_id_size == 16 && span->span_id_size == 8 &&
                 (load_fixed64(span->trace_id) | load_fixed64(span->trace_id + 8)) != 0 &&
                 load_fixed64(span->span_id) != 0;
    if (!valid)
        tally->invalid++;
    else
        tally->fingerprints[tally->fingerprint_count++] =
            idset_fingerprint(tally->ids, span->trace_id, span->span_id);
    /* An end before its start is no slow span. */
    unsigned slow = span->end > span->start && span->end - span->start > SLOW_NANOSECONDS;
    unsigned error = span->code == STATUS_CODE_ERROR;
    unsigned missing = span->keys.route && !span->keys.token;
    tally->violations[SCAN_SLOW] += slow;
    tally->violations[SCAN_ERROR] += error;
    tally->violations[SCAN_MISSING_AUTH] += missing;
    uint64_t broken = slow << SCAN_SLOW | error << SCAN_ERROR | missing << SCAN_MISSING_AUTH;
    if (broken & tally->watched && valid)
        keep_span(tally, span, broken & tally->watched);
}

#endif
