/* What the files of a receiver's connection share: its struct, that of its streams, and who does
 * what with them. Everyone else sees receiver_conn.h.
 *
 *   receiver_input.c     bytes to frames, and DATA to its stream
 *   receiver_frames.c    header blocks and all other frames
 *   receiver_messages.c  a call's message, and what it is answered with
 *   receiver_streams.c   calls: opened, answered, put off, refused, closed
 *   receiver_output.c    frames to the peer
 *   receiver_conn.c      the connection: made, timed out, closed
 */
#ifndef BLASTER_RECEIVER_CONN_PRIVATE_H
#define BLASTER_RECEIVER_CONN_PRIVATE_H

#include "grpc_status.h"
#include "h2_frame.h"
#include "receiver_conn.h"
#include "receiver_head.h"

enum {
    OUTPUT_HIGH = 1 << 18, /* bytes waiting to be sent beyond which nothing more is taken */
    ABUSE_MAX = 10000,     /* frames that ask for work and bring no message: the most at once */
    ABUSE_PER_TICK = 1000, /* ... how many of them a second forgives */
    ABUSE_PER_MESSAGE = 4, /* ... and how many a message */
    BULK_LENGTH = 1 << 16, /* of messages that it pays to read in place, frame by frame */
    ANSWER_HEAD = 160,     /* bytes of an answer's message that are not filling */
    BLOCK_MAX = 1 << 16,   /* bytes of one header block */
    BUCKETS = 128,
    RESETS_KNOWN = 16, /* of the peer, the latest: a power of 2 */
};

#ifdef BLASTER_ZSTD
#define ENCODINGS "identity,gzip,zstd"
#else
#define ENCODINGS "identity,gzip"
#endif

/* The message of an answer that is not empty, its prefix included. */
struct answer_body {
    size_t length, head_length; /* what follows the head is filled up */
    uint8_t head[ANSWER_HEAD];
};

/* A call whose end is still to come. */
struct stream {
    struct stream *chain;                  /* the next one in its bucket */
    struct stream *older, *newer;          /* by the time it was opened */
    struct stream *due_before, *due_after; /* by the time of the answer, over all connections */
    struct conn *conn;
    int64_t answer_at; /* 0: the answer was not put off */
    struct message_buffer *buffer;
    int64_t since;  /* when it was opened, or its answer began: what its timeout counts from */
    int64_t window; /* bytes of DATA that the peer lets us send */
    int64_t content_length; /* -1: none was given */
    int64_t received;       /* bytes of DATA without padding */
    uint32_t id;
    uint32_t length; /* of the message, once the prefix is complete */
    uint32_t have;   /* bytes of the message that came */
    uint8_t prefix[GRPC_PREFIX];
    uint8_t prefix_have;
    uint8_t encoding;
    uint32_t answered;        /* bytes of the answer's message that were sent */
    struct answer_body *body; /* NULL: it is empty */
    bool ended;               /* the peer has closed its side */
    bool answering;           /* a good answer waits for the peer's window */
    bool opened_answer;
    bool bulk; /* a large message is being put together */
};

enum phase { IN_PREFACE, IN_HEAD, IN_PAYLOAD, IN_PAD_LENGTH, IN_DATA, IN_SKIP, ENDED };

struct conn {
    struct conn_shared *shared;
    void *owner;
    struct head_reader heads;

    enum phase phase;
    uint8_t type, flags; /* of the frame at hand */
    uint32_t frame_stream;
    uint32_t left;    /* bytes of its payload to come; IN_DATA without the padding */
    uint32_t padding; /* bytes to skip after the data */
    uint32_t credit;  /* bytes of padding to give back to the stream's window */
    bool padded;
    struct stream *data_stream; /* whose DATA it is; NULL: nobody's any more */
    uint8_t gathered[NGHTTP2_CLIENT_MAGIC_LEN];
    size_t gathered_length;
    uint8_t *payload; /* of a frame that came in pieces */
    size_t payload_length;

    uint8_t *block; /* a header block that CONTINUATION frames complete */
    size_t block_length;
    uint32_t block_stream; /* 0: none is open */
    uint32_t block_frames;
    bool block_ends_stream;

    struct stream *buckets[BUCKETS];
    struct stream *oldest, *newest;
    uint32_t streams;
    uint32_t last_stream; /* the highest ID that the peer opened */
    uint32_t blocked;     /* streams that are answering */
    uint32_t bulk;        /* streams that are so */
    size_t owed;          /* bytes to come of all messages that are being put together */
    bool leaving;         /* no call is taken any more; once all are answered, that was it */
    bool aborted;
    int64_t windows_shut_until;    /* our windows are shut; 0: they are not */
    bool ended_early;              /* a stream was ended before the peer had ended it */
    uint32_t resets[RESETS_KNOWN]; /* streams that the peer reset; 0: none yet */
    uint32_t next_reset;

    int64_t receive_window; /* what the peer may still send, of the connection's window */
    int64_t send_window;
    int64_t peer_initial_window;

    uint8_t *output;
    size_t output_start, output_end, output_capacity;
    bool table_shrunk;     /* the peer's HPACK table has to be set to nothing first */
    bool table_unused;     /* ... and stays so */
    bool type_in_table;    /* "content-type: application/grpc" is in the peer's table */
    bool success_in_table; /* "grpc-status: 0" is */

    bool settings_seen;
    uint32_t abuse;
    int64_t accepted; /* times */
    int64_t frame_since;
    int64_t active;
};

/* ---- receiver_output.c ---- */

/* Room for so many bytes of output; shared->spill, and the end of the connection, when memory is
 * short. */
uint8_t *output_reserve(struct conn *conn, size_t length);

/* Starts a frame of so many bytes and returns where its payload goes. */
uint8_t *output_frame(struct conn *conn, size_t length, uint8_t type, uint8_t flags,
                      uint32_t stream);
void output_reset(struct conn *conn, uint32_t stream, uint32_t code);
void output_window_update(struct conn *conn, uint32_t stream, uint32_t increment);
void output_window_setting(struct conn *conn, uint32_t window);
void output_goaway(struct conn *conn, uint32_t code);

/* Our SETTINGS, and a connection's window that is as large as can be. */
void output_preface(struct conn *conn);

/* The initial window that we give every stream. */
uint32_t conn_stream_window(const struct conn *conn);

/* An answer that is nothing but trailers. `http_status`: NULL is 200. */
void output_error(struct conn *conn, uint32_t stream, const char *http_status,
                  struct grpc_answer answer);

/* An answer that is HTTP's and not gRPC's: what a proxy says. */
void output_http(struct conn *conn, uint32_t stream, int64_t status, const char *retry_after);

/* The two header blocks of a good answer. */
void output_good_headers(struct conn *conn, uint32_t stream);
void output_good_trailers(struct conn *conn, uint32_t stream);

/* ---- receiver_streams.c ---- */

struct stream *stream_find(struct conn *conn, uint32_t id); /* NULL: it is not open */
struct stream *stream_open(struct conn *conn, uint32_t id); /* NULL: memory is short */
void stream_close(struct conn *conn, struct stream *stream);

/* Puts a good answer off until its time, and takes it off that list again. */
void stream_defer_answer(struct conn *conn, struct stream *stream, int64_t at);
void stream_cancel_deferred(struct conn_shared *shared, struct stream *stream);

/* May DATA or HEADERS of a stream that is closed have been on their way when we closed it? Not when
 * the peer had closed it itself: RFC 9113, 5.1. */
bool stream_may_be_late(const struct conn *conn, uint32_t id);

/* Ends the connection for what the peer did: RFC 9113, 5.4.1. */
void connection_error(struct conn *conn, uint32_t code);

/* Ends one stream for what the peer did: RFC 9113, 5.4.2. */
void stream_error(struct conn *conn, struct stream *stream, uint32_t code);

/* Counts a frame that makes work without bringing a message: what a flood is made of (rapid
 * resets, CVE-2023-44487; pings, settings, empty frames, CVE-2019-9511 to 9518). */
void count_abuse(struct conn *conn);

/* Answers a call with an error and asks the peer to stop sending what is left of it: RFC 9113,
 * 8.1. */
void stream_refuse(struct conn *conn, struct stream *stream, const char *http_status, int status,
                   const char *message);

/* Sends as much of a good answer as the peer's windows and our output allow; the rest follows when
 * there is room. */
void stream_answer(struct conn *conn, struct stream *stream);

/* Goes on with the answers that waited for a window or for room. */
void answer_blocked(struct conn *conn);

/* ---- receiver_messages.c ---- */

/* Takes a piece of a DATA frame's data. `whole_call`: the call ends with this very piece, so that
 * a message that lies in it entirely can be read in place. */
void message_take(struct conn *conn, struct stream *stream, const uint8_t *data, size_t length,
                  bool whole_call);

/* The call is complete. `whole` is the message where it lay in one piece, else NULL. */
void message_end(struct conn *conn, struct stream *stream, const uint8_t *whole);

/* ---- receiver_frames.c ---- */

/* Takes the whole payload of the frame at hand, which is not DATA. */
void take_payload(struct conn *conn, const uint8_t *data, size_t length);

#endif
