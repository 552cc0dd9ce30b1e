/* The native OTLP/gRPC receiver: accepts connections, scans every message, counts.
 *
 * Knows nothing of Python. One thread runs it; any thread may read the counts. */
#ifndef BLASTER_WIRE_RECEIVER_H
#define BLASTER_WIRE_RECEIVER_H

#include "receiver_capacity.h"
#include "receiver_faults.h"
#include "scan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct receiver_options {
    const char *host; /* a name or an address to listen on */
    uint16_t port;    /* 0: any free one */
    size_t scanner_capacity;
    bool scan; /* false: messages are counted and thrown away unread */
    uint32_t max_message;
    uint32_t max_connections;
    uint32_t max_streams;      /* calls open at once on one connection */
    size_t max_buffered;       /* bytes of messages that have come in part, over all connections */
    int64_t handshake_timeout; /* the rest in nanoseconds: see receiver_conn.h */
    int64_t request_timeout;
    int64_t idle_timeout;
    struct capacity capacity; /* its busy_until and remainder are 0; needs scan */
};

struct receiver_counts {
    struct scan_counts scan;
    uint64_t sampling;
    uint64_t connections;       /* open now */
    uint64_t accepted;          /* connections, ever */
    uint64_t turned_away;       /* connections beyond max_connections */
    uint64_t connection_errors; /* connections ended because of what the peer did */
    uint64_t refused;           /* calls answered with an error */
    uint64_t buffered; /* bytes of memory that messages take now, buffers kept for reuse too */
};

struct receiver;

/* Listens. 0, or a negative errno; *gai is then what getaddrinfo said, if it was that. */
int receiver_open(struct receiver **receiver, const struct receiver_options *options, int *gai);

uint16_t receiver_port(const struct receiver *receiver);

/* Serves until *stop is not 0 (looked at every 20 ms at least): 0; or -EINTR after a signal, or
 * another negative errno. May be run again. */
int receiver_run(struct receiver *receiver, const int64_t *stop);

/* Stands still for so many nanoseconds from now on, as if the process were stopped. Any thread may
 * ask for it. */
void receiver_freeze(struct receiver *receiver, int64_t duration);

/* From now on requests meet these faults, and their time begins with the next request. Their hits
 * are 0. Any thread may ask for it. */
void receiver_fault(struct receiver *receiver, uint64_t seed, const struct fault *faults,
                    size_t count);

/* How often each was met; returns how many there are. */
size_t receiver_fault_hits(struct receiver *receiver, uint64_t hits[FAULTS_MAX]);

/* Scans a message that came another way, as scanner_request_partly does; it is in the counts when
 * this returns. Any thread may ask. SCAN_MALFORMED when the receiver does not scan. */
int64_t receiver_scan(struct receiver *receiver, enum scan_encoding encoding,
                      const uint8_t *message, size_t length, uint64_t share, uint32_t random,
                      int64_t *rejected);

/* What was counted so far, consistent in itself. Everything that was answered is in it. */
void receiver_counts(struct receiver *receiver, struct receiver_counts *counts);

/* As scanner_watch and scanner_take of its scanner; nothing when it scans nothing. */
void receiver_watch(struct receiver *receiver, uint64_t rules);
size_t receiver_take(struct receiver *receiver, struct scan_violation *out, size_t most,
                     uint64_t *missed);

/* Says goodbye to all connections and frees everything. Nobody may be running it. */
void receiver_close(struct receiver *receiver);

#endif
