/* One HTTP/2 connection of an OTLP/gRPC receiver: bytes in, bytes out; no sockets, no clock.
 *
 * The frames (RFC 9113) are read here rather than by an nghttp2 session, because that costs more
 * per request than all the rest of the receiver together; header blocks are decoded by nghttp2's
 * HPACK inflater. Only what a unary call needs is kept of a stream, so the floods that HTTP/2 is
 * known for have nothing to fill. */
#ifndef BLASTER_RECEIVER_CONN_H
#define BLASTER_RECEIVER_CONN_H

#include "grpc_status.h"
#include "receiver_faults.h"
#include "receiver_gunzip.h"
#include "receiver_pool.h"
#include "unzstd.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a call is answered with, and when; the message may be NULL. Errors are answered at once. */
struct grpc_answer {
    int status;
    const char *message;
    int64_t at;                     /* nanoseconds of the monotonic clock */
    const struct fault_draw *fault; /* what the call meets, until the next is delivered; or NULL */
    int64_t rejected;               /* spans, of a good answer */
};

/* Takes one complete message of one complete call and says what to answer. Whoever wants a sink
 * that misbehaves decides it here. */
typedef struct grpc_answer (*conn_deliver)(void *context, const uint8_t *message, size_t length);

struct conn_limits {
    uint32_t max_message;      /* bytes, before and after decompression */
    uint32_t max_streams;      /* calls open at once on one connection */
    int64_t handshake_timeout; /* nanoseconds from accept to the client's SETTINGS */
    int64_t request_timeout;   /* nanoseconds that one call, or one frame, may take to arrive */
    int64_t idle_timeout;      /* nanoseconds without any call */
};

/* What all connections of one receiver share. They belong to one thread. */
struct conn_shared {
    struct conn_limits limits;
    struct message_pool pool;
    struct gunzip gunzip;
    struct unzstd unzstd;
    struct stream *free_streams;
    struct stream *first_deferred, *last_deferred; /* calls, by the time of their answers */
    conn_deliver deliver;
    void *context;
    int64_t now;                /* nanoseconds of a monotonic clock, set by the owner */
    uint64_t refused;           /* calls answered with an error, deliver's own included */
    uint64_t connection_errors; /* connections ended because of what the peer did */
    uint8_t spill[1024];        /* written to in place of output that memory is short for */
};

void conn_shared_init(struct conn_shared *shared, const struct conn_limits *limits,
                      size_t max_buffered, conn_deliver deliver, void *context);
void conn_shared_clear(struct conn_shared *shared); /* after all connections were freed */

struct conn;

/* The owner is whatever conn_next_due is to return. NULL when memory is short. */
struct conn *conn_new(struct conn_shared *shared, void *owner);
void conn_free(struct conn *conn);

/* Where the next bytes from the peer belong, when they belong to a message that is being put
 * together: reading them there and feeding them from there saves a copy. Returns how many bytes
 * fit, 0 for none. *after: how many bytes beyond them it pays to read along, which are few while
 * what follows may belong to such a message too. */
size_t conn_room(const struct conn *conn, uint8_t **where, size_t *after);

/* How many bytes are still to come of the messages that have begun: the peer owes them whatever we
 * say, so there is no hurry to read before some of them have gathered. */
size_t conn_owed(const struct conn *conn);

/* Takes bytes from the peer and returns how many were taken: fewer than length only when so much
 * output waits to be sent that the rest has to wait as well. */
size_t conn_feed(struct conn *conn, const uint8_t *data, size_t length);

/* What is to be sent to the peer, and how much of it was. */
const uint8_t *conn_output(const struct conn *conn, size_t *length);
void conn_sent(struct conn *conn, size_t length);

/* When the next deferred answer is due; INT64_MAX: there is none. */
int64_t conn_due(const struct conn_shared *shared);

/* Answers the call whose time has come, if there is one, and returns the owner of its connection,
 * whose output is then to be sent; NULL when no answer is due. */
void *conn_next_due(struct conn_shared *shared);

/* Opens the windows that a fault has shut, once their time has come: to be called some fifty times
 * a second. */
void conn_reopen_windows(struct conn *conn);

/* True once the connection is to be reset, with all that is in it. */
bool conn_aborted(const struct conn *conn);

/* True once the connection is to be closed as soon as its output has been sent. */
bool conn_ended(const struct conn *conn);

/* Enforces the timeouts; to be called about once a second. */
void conn_tick(struct conn *conn);

/* Ends the connection from our side, politely. */
void conn_goaway(struct conn *conn);

#endif
