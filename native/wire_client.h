/* The client: paces requests over some HTTP/2 connections to one peer and accounts for each.
 *
 * Knows nothing of Python and has no globals. One client belongs to one thread. It runs only within
 * the calls below: between them nothing is sent, read or timed out.
 *
 * The bytes of a buffer are held until their request has ended. Those that a source makes are held
 * only until they were written, so that few buffers are used over and over, in the caches; of each
 * request its recipe is kept, a few bytes, to make it once more.
 *
 * A request that was offered ends in exactly one outcome, whatever the peer does:
 * - no connection (or none that allows a stream) until its deadline: CONNECT_FAILED, it never left;
 * - the connection ends before its first byte was written: it waits for the next connection;
 * - the connection ends later: CONNECTION_LOST;
 * - GOAWAY or RST_STREAM(REFUSED_STREAM) says that it was not processed (RFC 9113, 6.8 and 8.7):
 *   it goes out again on the next connection, the same bytes, counted once; REFUSED_STREAM when
 * that is so until its deadline;
 * - no answer until its deadline: RST_STREAM(CANCEL) and NO_ANSWER_TIMEOUT.
 */
#ifndef BLASTER_WIRE_CLIENT_H
#define BLASTER_WIRE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "batch_source.h"
#include "wire_conn.h"

/* How long a request was due and not offered: in all; of that, while the client slept because the
 * peer's windows, its limit of streams or a full socket let nothing through; and because as many
 * were in flight as may be. The rest of the first is the client's own doing, and so is what it
 * overslept because others had its CPU. All stay 0 where the system does not tell that. */
enum wire_blocked { WIRE_BEHIND, WIRE_HELD, WIRE_CAPPED, WIRE_BLOCKED_COUNT };

/* The words of `sent`, and then those of `blocked`, as blaster.transport.base calls them. */
enum { WIRE_SENT_COUNT = 3 };
#define WIRE_RAISED_FIELDS                                                                         \
    "sent_requests", "sent_spans", "sent_bytes", "behind_ns", "backpressure_ns", "capped_ns"

/* The most connections, and requests in flight, of one client. */
enum { WIRE_MAX_CONNECTIONS = 256, WIRE_MAX_IN_FLIGHT = 65536 };

struct wire_client_options {
    const char *const *hosts; /* numeric addresses, tried in this order */
    size_t host_count;
    const char *port;
    uint32_t connections, in_flight;
    int64_t timeout; /* nanoseconds for each request */
    bool compressed; /* the batches are, as grpc-encoding among the fields says */
    const struct wire_tls_options *tls; /* NULL: in the clear; read here and not kept */
    const struct wire_field *fields;    /* of every request; copied */
    size_t field_count;
    int64_t *sent;       /* requests, spans, bytes: raised before a request can leave */
    int64_t *blocked;    /* by enum wire_blocked: nanoseconds, raised as they pass */
    const int64_t *stop; /* not 0: return soon */
};

/* One request's end; the times are CLOCK_MONOTONIC nanoseconds. `delay`: what the peer asked for
 * with RetryInfo, or -1. Python reads them by these names (blaster.transport.base.OUTCOME). */
#define WIRE_OUTCOME_FIELDS(FIELD)                                                                 \
    FIELD(scheduled)                                                                               \
    FIELD(sent)                                                                                    \
    FIELD(done)                                                                                    \
    FIELD(spans)                                                                                   \
    FIELD(bytes)                                                                                   \
    FIELD(rejected)                                                                                \
    FIELD(status)                                                                                  \
    FIELD(number)                                                                                  \
    FIELD(delay)

#define WIRE_OUTCOME_MEMBER(name) int64_t name;
struct wire_outcome {
    WIRE_OUTCOME_FIELDS(WIRE_OUTCOME_MEMBER)
};
#undef WIRE_OUTCOME_MEMBER

/* Requests to send: `source` makes each when it is offered; where that is NULL, offsets (count + 1)
 * cut the bytes, which `chunk` stands for. The first one's number is `first`. `again`: they are in
 * the accounts of what was sent already. */
struct wire_batches {
    const struct batch_source *source;
    const uint8_t *bytes;
    struct wire_chunk *chunk;
    const int64_t *offsets, *scheduled, *spans;
    int64_t count, first;
    bool again;
};

struct wire_client;

/* NULL: *error says why, or memory is short when that is empty. */
struct wire_client *wire_client_new(const struct wire_client_options *options, char *error,
                                    size_t room);
/* Closes the connections if they are open. */
void wire_client_free(struct wire_client *client);

/* Opens all connections and exports an empty request on each. 0; 1: the peer answered without
 * gRPC's blessing, or did not answer: see wire_client_reason; -1: memory is short. */
int wire_client_connect(struct wire_client *client, int64_t until);

/* Offers the batches in order, each at its scheduled time, and returns how many were offered: all,
 * unless CLOCK_MONOTONIC reaches `until`, *stop is not 0 or memory is short. -1: memory is short;
 * nothing was offered. */
int64_t wire_client_send(struct wire_client *client, const struct wire_batches *batches,
                         int64_t until);

void wire_client_wait(struct wire_client *client, int64_t until);

/* Handles answers until all requests have ended; at `until` the rest is ABANDONED. *stop does not
 * cut it short. */
void wire_client_drain(struct wire_client *client, int64_t until);

/* Abandons what is in flight and closes the connections. */
void wire_client_close(struct wire_client *client);

/* Requests in flight may have to be made again by the source. */
bool wire_client_needs(const struct wire_client *client, const struct batch_source *source);

int64_t wire_client_in_flight(const struct wire_client *client);

/* The outcomes since the last wire_client_clear. */
const struct wire_outcome *wire_client_outcomes(const struct wire_client *client, size_t *count);
void wire_client_clear(struct wire_client *client);

/* The first message that came with the status; NULL when there was none. */
const char *wire_client_message(const struct wire_client *client, int status, size_t *length);

/* Why the last connection ended or could not be had. */
const char *wire_client_reason(const struct wire_client *client);

#endif
