/* One HTTP/2 connection of the client (RFC 9113): frames in, frames out, streams between.
 *
 * Knows nothing of addresses, clocks or accounting: it tells its owner how each stream ended.
 * The frames are made here and not by nghttp2's session, because every request has the same header
 * block (see wire_headers.h) and its bytes go from the caller's buffer to the socket in one
 * gathered write: a request costs some 100 ns here. nghttp2 decodes the peer's HPACK.
 */
#ifndef BLASTER_WIRE_CONN_H
#define BLASTER_WIRE_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "grpc_status.h"
#include "h2_frame.h"
#include "receiver_gunzip.h"
#include "unzstd.h"
#include "wire_answer.h"
#include "wire_headers.h"
#include "wire_tls.h"

enum {
    WIRE_IOVECS = 1024,             /* Linux takes no more in one sendmsg */
    WIRE_ARENA = 32768,             /* frame headers of one batch of frames */
    WIRE_BURST = 512 * 1024,        /* bytes framed before they are written */
    WIRE_INPUT = 65536,             /* several of the largest frames we allow */
    WIRE_RESPONSE_MAX = 4 << 20,    /* bytes of one response's message */
    WIRE_UNPACKED_MAX = 65536,      /* what a compressed response may become */
    WIRE_RESPONSES_MAX = 16 << 20,  /* bytes of all responses held at one time */
    WIRE_RECEIVE_WINDOW = 16 << 20, /* the connection's, for responses */
    WIRE_FIELDS_MAX = 128,          /* fields in one header block */
    WIRE_FIELDS_BYTES_MAX = 32768,  /* their size as of RFC 9113, 10.5.1 */
    WIRE_BLOCK_BYTES_MAX = 32768,   /* a header block as it is sent */
    WIRE_CONTINUATIONS_MAX = 16,    /* CONTINUATION frames in one block */
    WIRE_INFORMATIONAL_MAX = 8,     /* 1xx responses on one stream */
    WIRE_ACKS_MAX = 256,            /* SETTINGS and PING answers waiting to be written */
    WIRE_IDLE_FRAMES_MAX = 20000,   /* frames without use, in one second */
    WIRE_LATE_FRAMES = 8, /* for each stream that has ended: what may have crossed its end */
    WIRE_REASON_MAX = 200,
};

/* Status codes beyond gRPC's, as in blaster.transport.base.Status. */
enum {
    WIRE_NO_ANSWER_TIMEOUT = 32,
    WIRE_CONNECTION_LOST = 33,
    WIRE_STREAM_RESET = 34,
    WIRE_INVALID_RESPONSE = 35,
    WIRE_ABANDONED = 36,
    WIRE_CONNECT_FAILED = 64,
    WIRE_REFUSED_STREAM = 65,
    WIRE_STATUS_COUNT = 96,
};

struct batch_source;

/* The buffer of some batches. It may be reused once `holds` is 0. */
struct wire_chunk {
    int64_t holds;             /* requests and unwritten frames that point into it */
    bool rewritable;           /* can be made again: no request holds it once it is in frames */
    struct wire_chunk **spare; /* NULL, or the list that it goes to when nobody holds it */
    struct wire_chunk *next;
};

struct wire_conn;

/* One request on its way. */
struct wire_stream {
    struct wire_stream *older, *newer; /* the owner's: requests in flight, as they were offered */
    struct wire_stream *next;          /* in a queue: free, waiting or writing */
    struct wire_conn *conn;            /* NULL: waiting for a connection */

    struct wire_chunk *chunk; /* of `data` */
    bool holding;             /* counts in chunk->holds: the bytes are here */
    const uint8_t *data;      /* the message */
    int64_t length;           /* its bytes */
    int64_t framed;           /* bytes of gRPC prefix and message put into frames */
    int64_t window;           /* what it may send, beyond the peer's initial window */
    uint64_t begins;          /* its first byte's place in all that the connection sends */
    uint64_t burst;           /* the last burst that it is in */
    uint32_t id;
    bool queued;     /* in the connection's writing queue */
    bool compressed; /* as the message's prefix says */

    bool hello; /* the empty request that greets a peer; not in the accounts */
    bool left;  /* a byte of it may have left, now or on an earlier connection */

    /* The owner's: what makes the bytes once more, where `source` is not NULL. */
    const struct batch_source *source;
    void *recipe;
    size_t recipe_room;
    uint32_t refusals; /* RST_STREAM with REFUSED_STREAM, so far */
    bool paused;       /* not to be sent again before `resume_at` */
    int64_t resume_at;

    int64_t scheduled, sent, deadline, spans, number;

    int http_status; /* 0: no response yet */
    int content;
    enum wire_encoding encoding;
    int informational;
    uint32_t body_length, body_room;
    uint8_t *body; /* `small`, or from malloc */
    uint8_t small[40];
};

/* How a request ended. */
struct wire_end {
    int status;
    int64_t rejected;
    int64_t retry_delay; /* -1: none */
    bool grpc;           /* the peer said grpc-status itself */
    const char *message;
    size_t message_length;
};

struct wire_owner {
    /* The stream has ended and is forgotten by the connection. */
    void (*ended)(void *context, struct wire_stream *stream, const struct wire_end *end);
    /* The peer goes away; streams above `last` are not processed. */
    void (*goaway)(void *context, struct wire_conn *conn, uint32_t last);
    void *context;
};

enum wire_state { WIRE_FREE, WIRE_CONNECTING, WIRE_GREETING, WIRE_OPEN, WIRE_LEAVING };

struct wire_conn {
    enum wire_state state;
    int fd;
    struct wire_tls_link *tls;    /* NULL in the clear; set by the owner before it starts */
    int64_t greet_by;             /* the owner's: when an unfinished greeting has failed */
    bool answered;                /* at least one request was answered */
    char reason[WIRE_REASON_MAX]; /* why it is to be closed */
    uint32_t error;               /* its code for the peer */
    const struct wire_owner *owner;

    /* What the peer allows. */
    uint32_t max_frame, max_streams, initial_window, table;
    int64_t window;

    struct wire_headers headers;
    const struct wire_field *fields;
    size_t field_count;
    bool first_sent; /* the peer's dynamic table has our fields */

    /* Streams, by ID: open addressing. */
    struct wire_stream **streams;
    uint32_t mask, count, next_id;
    struct wire_stream *writing, **writing_tail; /* with bytes not framed yet */

    /* Output: one burst at a time, framed and then written whole. */
    struct iovec iov[WIRE_IOVECS];
    size_t iov_count, iov_at;
    size_t arena_length, burst_bytes;
    bool sealed;  /* partly written: takes no more frames until it is gone */
    bool blocked; /* the owner's: the socket was full and has not become writable since */
    uint64_t burst, framed, written;
    struct wire_chunk *held[WIRE_IOVECS];
    size_t held_count;
    bool overflow;    /* more control frames than there is room for: the connection must end */
    uint8_t *control; /* SETTINGS, acknowledgements, RST_STREAM, WINDOW_UPDATE */
    size_t control_length, control_room, control_in_burst;
    uint32_t acks;
    bool refill; /* a stream in `writing` may have become able to go on */

    /* Input. */
    nghttp2_hd_inflater *inflater;
    size_t input_length;
    struct wire_answer answer;
    struct gunzip gunzip; /* for answers: a server may compress as the request was (gRPC) */
    struct unzstd unzstd;
    uint32_t block_stream; /* a header block is open: only its CONTINUATION may come */
    bool block_ends;
    uint32_t block_bytes, block_frames, block_fields;
    size_t block_size;
    int64_t received;     /* bytes of DATA not yet given back with WINDOW_UPDATE */
    int64_t *held_bytes;  /* the owner's: response bytes held on all connections */
    uint64_t late_frames; /* that may still come for streams that have ended */
    uint32_t idle_frames;
    int64_t idle_since;
    int64_t now; /* the owner's clock, set before each call */

    uint8_t arena[WIRE_ARENA];
    uint8_t input[WIRE_INPUT];
};

/* Allocates what every connection needs: streams for `capacity` requests. 0, or -1. */
int wire_conn_init(struct wire_conn *conn, uint32_t capacity, const struct wire_owner *owner,
                   const struct wire_field *fields, size_t count, int64_t *held_bytes);
void wire_conn_free(struct wire_conn *conn);

/* Begins anew on a connected socket: queues the preface. 0, or -1 when memory is short. */
int wire_conn_start(struct wire_conn *conn, int fd);

/* May a stream be opened now? If not, writing may help. */
bool wire_conn_takes(const struct wire_conn *conn);

/* Opens a stream for the request, frames what the windows allow. */
void wire_conn_open(struct wire_conn *conn, struct wire_stream *stream);

/* Frames what waits and has become possible. */
void wire_conn_fill(struct wire_conn *conn);

/* Something is to be written. */
bool wire_conn_has_output(const struct wire_conn *conn);

/* Writes until all is written (1), the socket is full (0) or the connection is lost (-1). */
int wire_conn_flush(struct wire_conn *conn);

/* Takes `length` bytes that were put at wire_conn_room. 0, or -1: `reason` says what is wrong and
 * the connection must be closed. */
uint8_t *wire_conn_room(struct wire_conn *conn, size_t *room);
int wire_conn_received(struct wire_conn *conn, size_t length);

/* Ends the stream from our side with RST_STREAM(CANCEL), and forgets it. */
void wire_conn_cancel(struct wire_conn *conn, struct wire_stream *stream);

/* Removes the stream, which goes on holding its chunk; frames of it already in the burst still go
 * out. */
void wire_conn_forget(struct wire_conn *conn, struct wire_stream *stream);

/* Closes the socket. The owner has dealt with the streams; whatever the burst held is let go. */
void wire_conn_close(struct wire_conn *conn);

/* Lets go of a chunk that the caller holds. */
void wire_chunk_release(struct wire_chunk *chunk);

/* Lets go of the chunk, if the stream holds it. */
void wire_stream_release(struct wire_stream *stream);

/* Why the connection failed, in one line of at most WIRE_REASON_MAX. Returns -1. */
int wire_conn_error(struct wire_conn *conn, uint32_t code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* What a peer that has not sent SETTINGS seems to be, judged by its first bytes. */
void wire_conn_describe(const struct wire_conn *conn, char *out, size_t room);

#endif
