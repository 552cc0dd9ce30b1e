/* Faults on purpose: which one a request meets, by a draw that the seed and the request's number
 * decide, so that the same seed makes the same faults. blaster/sink/fault_table.py is its twin. */
#ifndef BLASTER_RECEIVER_FAULTS_H
#define BLASTER_RECEIVER_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether the spans of a request that meets the fault count as received is decided here: what is
 * answered with an error is thrown away unread, so that nobody who was refused finds himself
 * counted; where only the answer is lost or spoilt, the request was read and counts. */
enum fault_kind {
    FAULT_NONE,
    FAULT_DELAY,
    FAULT_STATUS,       /* not counted */
    FAULT_HTTP,         /* not counted */
    FAULT_PARTIAL,      /* the spans that are accepted count */
    FAULT_FREEZE,       /* the whole receiver */
    FAULT_SLOW_READ,    /* the connection's windows stay shut */
    FAULT_RST,          /* RST_STREAM; not counted */
    FAULT_GOAWAY,       /* the request is answered, and those begun before it */
    FAULT_RESET,        /* of TCP; the answer is lost */
    FAULT_REFUSE,       /* connections, not requests */
    FAULT_HALF_CLOSE,   /* the answer is lost */
    FAULT_GARBAGE,      /* the answer is no ExportTraceServiceResponse */
    FAULT_FRAMES,       /* the answer is not even the protocol's */
    FAULT_OVERSIZE,     /* the answer is good, but for its size */
    FAULT_CONTENT_TYPE, /* not counted */
    FAULT_KINDS
};

enum { FAULTS_MAX = 32, FAULT_TEXT_MAX = 120 };

struct fault {
    enum fault_kind kind;
    uint64_t share;      /* of 2^32 requests */
    int64_t from, until; /* nanoseconds since the first request */
    int64_t low, high;   /* what the kind asks for: nanoseconds (uniform from low to high), a code,
                            bytes, or spans of 2^32 */
    bool exponential;    /* low is the mean of an exponential distribution */
    bool once;
    char text[FAULT_TEXT_MAX + 1]; /* a field of the answer */
    uint64_t hits;
};

struct fault_table {
    uint64_t seed;
    uint64_t requests, connections; /* that were drawn for */
    int64_t started;                /* when the first request came; 0: not yet */
    size_t count;
    struct fault faults[FAULTS_MAX];
};

/* What one request meets: at most one fault, a copy, and any number of delays. */
struct fault_draw {
    struct fault fault; /* its kind is FAULT_NONE when there is none */
    int64_t delay;      /* nanoseconds */
    uint64_t random;    /* for what the fault leaves open */
};

void faults_draw(struct fault_table *table, int64_t now, struct fault_draw *draw);

/* Whether a connection that comes now is to be refused. */
bool faults_refuse(struct fault_table *table, int64_t now);

/* Whether all connections are to be refused now: nobody should be listening. */
bool faults_refuse_all(const struct fault_table *table, int64_t now);

#endif
