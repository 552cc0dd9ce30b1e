/* What is checked of a request: tags, lengths, nesting and group ends of every message that the
 * OTLP schema names, as protobuf's own parser (upb) does; a field with a wire type that the schema
 * does not give it is an unknown field, as it is there. Strings are UTF-8. Groups are accepted as
 * unknown fields when properly nested. Messages and groups may nest 100 deep, as in protobuf.
 *
 * Every function that reads takes the bytes [p, end) and returns where it stopped, or NULL when
 * they are malformed.
 */
#include "scan.h"

#include "json_scan.h"
#include "tally.h"
#include "utf8.h"
#include "varint.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SPAN_DEPTH = 3,       /* ResourceSpans, ScopeSpans, Span */
    LEAST_SPAN_BYTES = 30 /* of a span with both IDs, its own tag and length included */
};

enum wire_type { VARINT, FIXED64, BYTES, START_GROUP, END_GROUP, FIXED32 };

#define TAG(field, wire_type) (((uint32_t)(field) << 3) | (uint32_t)(wire_type))

/* The messages of which some fields need a look inside only to see whether they are well-formed. */
enum message {
    OPAQUE, /* no message: a scalar, bytes, an unknown field, what stands in a group */
    STRING,
    RESOURCE_SPANS,
    SCOPE_SPANS,
    STATUS,
    RESOURCE,
    ENTITY_REF,
    SCOPE,
    KEY_VALUE,
    ANY_VALUE,
    ARRAY_VALUE,
    KEY_VALUE_LIST,
    EVENT,
    LINK,
    MESSAGES
};

enum { FIELDS = 8 };

/* Which message, or a string, stands in a field, by its number. */
static const uint8_t fields[MESSAGES][FIELDS] = {
    [RESOURCE] = {[1] = KEY_VALUE, [3] = ENTITY_REF},
    [RESOURCE_SPANS] = {[3] = STRING},
    [SCOPE_SPANS] = {[3] = STRING},
    [STATUS] = {[2] = STRING},
    [ENTITY_REF] = {[1] = STRING, [2] = STRING, [3] = STRING, [4] = STRING},
    [SCOPE] = {[1] = STRING, [2] = STRING, [3] = KEY_VALUE},
    [KEY_VALUE] = {[1] = STRING, [2] = ANY_VALUE},
    [ANY_VALUE] = {[1] = STRING, [5] = ARRAY_VALUE, [6] = KEY_VALUE_LIST},
    [ARRAY_VALUE] = {[1] = ANY_VALUE},
    [KEY_VALUE_LIST] = {[1] = KEY_VALUE},
    [EVENT] = {[2] = STRING, [3] = KEY_VALUE},
    [LINK] = {[3] = STRING, [4] = KEY_VALUE},
};

struct scanner {
    struct scan_counts counts;
    struct idset ids;
    uint64_t *fingerprints; /* of the request at hand: added only once it proved well-formed */
    size_t fingerprint_room;
    struct kept kept;
};

static inline uint32_t load_fixed32(const uint8_t *p) {
    uint32_t value;
    memcpy(&value, p, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap32(value);
#endif
    return value;
}

/* A tag or a length: at most five bytes, and no more than `limit`. */
static const uint8_t *read_short_varint(const uint8_t *p, const uint8_t *end, uint64_t limit,
                                        uint64_t *value) {
    const uint8_t *next = varint_read(p, end, value);
    return next != NULL && next - p <= 5 && *value <= limit ? next : NULL;
}

static inline const uint8_t *read_any_tag(const uint8_t *p, const uint8_t *end, uint32_t *tag) {
    uint64_t value;
    if (p < end && *p < 0x80) {
        value = *p++;
    } else {
        p = read_short_varint(p, end, UINT32_MAX, &value);
        if (p == NULL)
            return NULL;
    }
    *tag = (uint32_t)value;
    return p;
}

/* No field has the number 0. */
static inline const uint8_t *read_tag(const uint8_t *p, const uint8_t *end, uint32_t *tag) {
    p = read_any_tag(p, end, tag);
    return p != NULL && *tag >> 3 != 0 ? p : NULL;
}

/* Returns where the content begins; the `size` bytes of it are there. */
static inline const uint8_t *read_size(const uint8_t *p, const uint8_t *end, size_t *size) {
    uint64_t value;
    if (p < end && *p < 0x80) {
        value = *p++;
    } else {
        p = read_short_varint(p, end, INT32_MAX, &value);
        if (p == NULL)
            return NULL;
    }
    *size = (size_t)value;
    return value <= (uint64_t)(end - p) ? p : NULL;
}

/* Reads the rest of a field whose tag was read, and what stands inside it. `within` is the message
 * that has the field, `depth` the depth of that message. */
static const uint8_t *skip_field(const uint8_t *p, const uint8_t *end, uint32_t tag,
                                 enum message within, int depth) {
    struct level {
        const uint8_t *end;
        uint8_t message;
        uint8_t in_group;
        uint32_t group; /* the number that is to end it */
    } levels[MOST_DEPTH + 1];
    int top = depth;
    levels[top] = (struct level){end, (uint8_t)within, 0, 0};

    for (;;) {
        const struct level *level = &levels[top];
        uint32_t number = tag >> 3;
        size_t size;
        uint64_t ignored;
        switch (tag & 7) {
        case VARINT:
            p = varint_read(p, level->end, &ignored);
            break;
        case FIXED64:
            p = level->end - p >= 8 ? p + 8 : NULL;
            break;
        case FIXED32:
            p = level->end - p >= 4 ? p + 4 : NULL;
            break;
        case BYTES:
            p = read_size(p, level->end, &size);
            if (p == NULL)
                return NULL;
            if (number >= FIELDS || fields[level->message][number] == OPAQUE) {
                p += size;
            } else if (fields[level->message][number] == STRING) {
                p = utf8_is_valid(p, size) ? p + size : NULL;
            } else {
                if (top == MOST_DEPTH)
                    return NULL;
                uint8_t message = fields[level->message][number];
                levels[++top] = (struct level){p + size, message, 0, 0};
            }
            break;
        case START_GROUP:
            if (top == MOST_DEPTH)
                return NULL;
            levels[top + 1] = (struct level){level->end, OPAQUE, 1, number};
            top++;
            break;
        case END_GROUP:
            if (top == depth || !level->in_group || level->group != number)
                return NULL;
            top--;
            break;
        default:
            return NULL;
        }
        if (p == NULL)
            return NULL;
        while (top > depth && !levels[top].in_group && p == levels[top].end)
            top--;
        if (top == depth)
            return p;
        /* protobuf does not look at the numbers of fields inside a group that it skips */
        p = levels[top].in_group ? read_any_tag(p, levels[top].end, &tag)
                                 : read_tag(p, levels[top].end, &tag);
        if (p == NULL)
            return NULL;
    }
}

/* All of a message that is only to be well-formed. */
static const uint8_t *check_message(const uint8_t *p, const uint8_t *end, enum message message,
                                    int depth) {
    while (p < end) {
        uint32_t tag;
        if ((p = read_tag(p, end, &tag)) == NULL ||
            (p = skip_field(p, end, tag, message, depth)) == NULL)
            return NULL;
    }
    return p;
}

static const uint8_t *scan_attribute(const uint8_t *p, const uint8_t *end, struct keys *keys) {
    const uint8_t *key = NULL;
    size_t key_size = 0;
    while (p < end) {
        uint32_t tag;
        if ((p = read_tag(p, end, &tag)) == NULL)
            return NULL;
        if (tag == TAG(1, BYTES)) {
            if ((p = read_size(p, end, &key_size)) == NULL)
                return NULL;
            key = p;
            p += key_size;
            if (!utf8_is_valid(key, key_size))
                return NULL;
        } else if ((p = skip_field(p, end, tag, KEY_VALUE, SPAN_DEPTH + 1)) == NULL) {
            return NULL;
        }
    }
    note_key(key, key_size, keys);
    return p;
}

/* A run of attributes, from the length of the first. Nearly all are a short key and a short
 * string: those are told by the four bytes between the two. */
static inline const uint8_t *scan_attributes(const uint8_t *p, const uint8_t *end,
                                             struct keys *keys) {
    for (;;) {
        size_t left = (size_t)(end - p), size;
        uint32_t key_size, value_size;
        if (left > 2 && p[0] < 0x80 && p[0] < left && p[1] == TAG(1, BYTES) &&
            (key_size = p[2]) + 6 <= p[0] &&
            (value_size = p[0] - key_size - 6,
             load_fixed32(p + 3 + key_size) == (TAG(2, BYTES) | (value_size + 2) << 8 |
                                                TAG(1, BYTES) << 16 | value_size << 24))) {
            /* What stands between the two is ASCII, too. */
            if (!utf8_is_ascii(p + 3, p[0] - 2u) &&
                !(utf8_is_valid_slowly(p + 3, key_size) &&
                  utf8_is_valid_slowly(p + 7 + key_size, value_size)))
                return NULL;
            note_key(p + 3, key_size, keys);
            p += 1 + p[0];
        } else if ((p = read_size(p, end, &size)) == NULL ||
                   (p = scan_attribute(p, p + size, keys)) == NULL) {
            return NULL;
        }
        if (p == end || *p != TAG(9, BYTES))
            return p;
        p++;
    }
}

static const uint8_t *scan_status(const uint8_t *p, const uint8_t *end, uint32_t *code) {
    while (p < end) {
        uint32_t tag;
        if ((p = read_tag(p, end, &tag)) == NULL)
            return NULL;
        if (tag == TAG(3, VARINT)) {
            uint64_t value;
            if ((p = varint_read(p, end, &value)) == NULL)
                return NULL;
            *code = (uint32_t)value; /* an enum: 32 bits of it count */
        } else if ((p = skip_field(p, end, tag, STATUS, SPAN_DEPTH + 1)) == NULL) {
            return NULL;
        }
    }
    return p;
}

static const uint8_t *scan_span(const uint8_t *p, const uint8_t *end, struct tally *tally) {
    const uint8_t *trace_id = NULL, *span_id = NULL;
    size_t trace_id_size = 0, span_id_size = 0;
    uint64_t start = 0, finish = 0;
    uint32_t code = 0;
    struct keys keys = {0};

    /* Nearly all spans begin with their two IDs: found without looking at each tag and length. */
    if (end - p >= 28 && p[0] == TAG(1, BYTES) && p[1] == 16 && p[18] == TAG(2, BYTES) &&
        p[19] == 8) {
        trace_id = p + 2;
        trace_id_size = 16;
        span_id = p + 20;
        span_id_size = 8;
        p += 28;
    }
    while (p < end) {
        uint32_t tag;
        size_t size;
        if ((p = read_tag(p, end, &tag)) == NULL)
            return NULL;
        switch (tag) {
        case TAG(1, BYTES):
            if ((p = read_size(p, end, &trace_id_size)) == NULL)
                return NULL;
            trace_id = p;
            p += trace_id_size;
            break;
        case TAG(2, BYTES):
            if ((p = read_size(p, end, &span_id_size)) == NULL)
                return NULL;
            span_id = p;
            p += span_id_size;
            break;
        case TAG(4, BYTES): /* parent */
            if ((p = read_size(p, end, &size)) == NULL)
                return NULL;
            p += size;
            break;
        case TAG(3, BYTES): /* trace state */
        case TAG(5, BYTES): /* name */
            if ((p = read_size(p, end, &size)) == NULL || !utf8_is_valid(p, size))
                return NULL;
            p += size;
            break;
        case TAG(6, VARINT): /* kind */
            if (p < end && *p < 0x80)
                p++;
            else if ((p = skip_field(p, end, tag, OPAQUE, SPAN_DEPTH)) == NULL)
                return NULL;
            break;
        case TAG(7, FIXED64):
            if (end - p < 8)
                return NULL;
            start = load_fixed64(p);
            p += 8;
            if (end - p < 9 || *p != TAG(8, FIXED64))
                break;
            p++; /* the end follows the start */
            finish = load_fixed64(p);
            p += 8;
            break;
        case TAG(8, FIXED64):
            if (end - p < 8)
                return NULL;
            finish = load_fixed64(p);
            p += 8;
            break;
        case TAG(9, BYTES):
            if ((p = scan_attributes(p, end, &keys)) == NULL)
                return NULL;
            break;
        case TAG(11, BYTES):
        case TAG(13, BYTES):
            if ((p = read_size(p, end, &size)) == NULL ||
                (p = check_message(p, p + size, tag == TAG(11, BYTES) ? EVENT : LINK,
                                   SPAN_DEPTH + 1)) == NULL)
                return NULL;
            break;
        case TAG(15, BYTES):
            if (end - p >= 3 && p[0] == 2 && p[1] == TAG(3, VARINT) && p[2] < 0x80) {
                code = p[2]; /* a code and no message */
                p += 3;
                break;
            }
            if ((p = read_size(p, end, &size)) == NULL ||
                (p = scan_status(p, p + size, &code)) == NULL)
                return NULL;
            break;
        default:
            if ((p = skip_field(p, end, tag, OPAQUE, SPAN_DEPTH)) == NULL)
                return NULL;
        }
    }

    tally_span(tally, &(struct span){.trace_id = trace_id,
                                     .span_id = span_id,
                                     .trace_id_size = trace_id_size,
                                     .span_id_size = span_id_size,
                                     .start = start,
                                     .end = finish,
                                     .code = code,
                                     .keys = keys});
    return p;
}

static const uint8_t *scan_scope_spans(const uint8_t *p, const uint8_t *end, struct tally *tally) {
    while (p < end) {
        uint32_t tag;
        size_t size;
        if ((p = read_tag(p, end, &tag)) == NULL)
            return NULL;
        if (tag == TAG(2, BYTES)) {
            if ((p = read_size(p, end, &size)) == NULL ||
                (p = scan_span(p, p + size, tally)) == NULL)
                return NULL;
        } else if (tag == TAG(1, BYTES)) {
            if ((p = read_size(p, end, &size)) == NULL ||
                (p = check_message(p, p + size, SCOPE, 3)) == NULL)
                return NULL;
        } else if ((p = skip_field(p, end, tag, SCOPE_SPANS, 2)) == NULL) {
            return NULL;
        }
    }
    return p;
}

static const uint8_t *scan_resource_spans(const uint8_t *p, const uint8_t *end,
                                          struct tally *tally) {
    while (p < end) {
        uint32_t tag;
        size_t size;
        if ((p = read_tag(p, end, &tag)) == NULL)
            return NULL;
        if (tag == TAG(2, BYTES)) {
            if ((p = read_size(p, end, &size)) == NULL ||
                (p = scan_scope_spans(p, p + size, tally)) == NULL)
                return NULL;
        } else if (tag == TAG(1, BYTES)) {
            if ((p = read_size(p, end, &size)) == NULL ||
                (p = check_message(p, p + size, RESOURCE, 2)) == NULL)
                return NULL;
        } else if ((p = skip_field(p, end, tag, RESOURCE_SPANS, 1)) == NULL) {
            return NULL;
        }
    }
    return p;
}

static const uint8_t *scan_export_request(const uint8_t *p, const uint8_t *end,
                                          struct tally *tally) {
    while (p < end) {
        uint32_t tag;
        size_t size;
        if ((p = read_tag(p, end, &tag)) == NULL)
            return NULL;
        if (tag == TAG(1, BYTES)) {
            if ((p = read_size(p, end, &size)) == NULL ||
                (p = scan_resource_spans(p, p + size, tally)) == NULL)
                return NULL;
        } else if ((p = skip_field(p, end, tag, OPAQUE, 0)) == NULL) {
            return NULL;
        }
    }
    return p;
}

struct scanner *scanner_new(size_t capacity) {
    struct scanner *scanner = calloc(1, sizeof *scanner);
    if (scanner == NULL)
        return NULL;
    struct timespec now = {0};
    timespec_get(&now, TIME_UTC);
    uint64_t seed = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    /* So large that it takes no memory before something is written there. */
    scanner->kept.ring = calloc(SCAN_VIOLATIONS_ROOM, sizeof *scanner->kept.ring);
    if (scanner->kept.ring == NULL ||
        idset_init(&scanner->ids, capacity, seed ^ (uint64_t)(uintptr_t)scanner) < 0) {
        free(scanner->kept.ring);
        free(scanner);
        return NULL;
    }
    return scanner;
}

void scanner_free(struct scanner *scanner) {
    if (scanner == NULL)
        return;
    idset_free(&scanner->ids);
    free(scanner->fingerprints);
    free(scanner->kept.ring);
    free(scanner);
}

/* Room for the fingerprints of so many spans. */
static int reserve(struct scanner *scanner, size_t most) {
    if (most <= scanner->fingerprint_room)
        return 0;
    uint64_t *larger = realloc(scanner->fingerprints, most * sizeof *larger);
    if (larger == NULL)
        return -1;
    scanner->fingerprints = larger;
    scanner->fingerprint_room = most;
    return 0;
}

static bool read_request(enum scan_encoding encoding, const uint8_t *data, size_t length,
                         struct tally *tally) {
    if (length > INT32_MAX) /* protobuf's limit */
        return false;
    if (encoding == SCAN_JSON)
        return json_scan(data, length, tally);
    return length == 0 || scan_export_request(data, data + length, tally) != NULL;
}

/* Scans a request and counts its first `keep` spans; returns how many that were. */
static int64_t scan(struct scanner *scanner, enum scan_encoding encoding, const uint8_t *data,
                    size_t length, uint64_t keep) {
    struct scan_counts *counts = &scanner->counts;
    if (reserve(scanner,
                length / (encoding == SCAN_JSON ? LEAST_JSON_SPAN_BYTES : LEAST_SPAN_BYTES)) < 0)
        return SCAN_NO_MEMORY;
    struct kept *kept = &scanner->kept;
    struct tally tally = {.ids = &scanner->ids,
                          .fingerprints = scanner->fingerprints,
                          .kept = kept,
                          .keep = keep,
                          .watched = __atomic_load_n(&kept->rules, __ATOMIC_RELAXED)};
    if (!read_request(encoding, data, length, &tally)) {
        counts->malformed++;
        return SCAN_MALFORMED;
    }
    counts->requests++;
    counts->bytes += length;
    counts->spans += tally.spans;
    counts->invalid += tally.invalid;
    for (int rule = 0; rule < SCAN_RULES; rule++)
        counts->violations[rule] += tally.violations[rule];
    counts->duplicates += idset_add(&scanner->ids, tally.fingerprints, tally.fingerprint_count);
    if (tally.full != 0)
        __atomic_fetch_add(&kept->missed, tally.full, __ATOMIC_RELAXED);
    if (tally.put != 0)
        __atomic_store_n(&kept->head, kept->head + tally.put, __ATOMIC_RELEASE);
    return (int64_t)tally.spans;
}

int64_t scanner_request(struct scanner *scanner, enum scan_encoding encoding, const uint8_t *data,
                        size_t length) {
    return scan(scanner, encoding, data, length, UINT64_MAX);
}

int64_t scanner_request_partly(struct scanner *scanner, enum scan_encoding encoding,
                               const uint8_t *data, size_t length, uint64_t share, uint32_t random,
                               int64_t *rejected) {
    struct tally all = {.keep = 0};
    *rejected = 0;
    if (share == 0)
        return scan(scanner, encoding, data, length, UINT64_MAX);
    if (!read_request(encoding, data, length, &all))
        return scan(scanner, encoding, data, length, 0); /* which says so, and counts it */
    uint64_t most = (all.left_out * share + random) >> 32;
    *rejected = (int64_t)(most < all.left_out ? most : all.left_out);
    int64_t kept = scan(scanner, encoding, data, length, all.left_out - (uint64_t)*rejected);
    return kept < 0 ? kept : kept + *rejected;
}

void scanner_counts(const struct scanner *scanner, struct scan_counts *out) {
    *out = scanner->counts;
}

void scanner_watch(struct scanner *scanner, uint64_t rules) {
    __atomic_store_n(&scanner->kept.rules, rules, __ATOMIC_RELAXED);
}

size_t scanner_take(struct scanner *scanner, struct scan_violation *out, size_t most,
                    uint64_t *missed) {
    struct kept *kept = &scanner->kept;
    uint64_t tail = kept->tail, head = __atomic_load_n(&kept->head, __ATOMIC_ACQUIRE);
    size_t count = head - tail < most ? (size_t)(head - tail) : most;
    for (size_t i = 0; i < count; i++)
        out[i] = kept->ring[(tail + i) % SCAN_VIOLATIONS_ROOM];
    __atomic_store_n(&kept->tail, tail + count, __ATOMIC_RELEASE);
    *missed = __atomic_load_n(&kept->missed, __ATOMIC_RELAXED);
    return count;
}

uint64_t scanner_sampling(const struct scanner *scanner) {
    return (uint64_t)1 << scanner->ids.thinned;
}
