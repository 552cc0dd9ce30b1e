#include "receiver_conn.h"

#include "receiver_head.h"

#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>

enum {
    FRAME_HEAD = 9,
    PREFIX = 5,               /* of a gRPC message: compressed flag and length */
    BLOCK_MAX = 1 << 16,      /* bytes of one header block */
    CONTINUATIONS_MAX = 32,   /* frames of one header block */
    SETTINGS_MAX = 64,        /* entries of one SETTINGS frame */
    OUTPUT_HIGH = 1 << 18,    /* bytes waiting to be sent beyond which nothing more is taken */
    NUISANCE_MAX = 10000,     /* frames that ask for work and bring no message: the most at once */
    NUISANCE_PER_TICK = 1000, /* ... how many of them a second forgives */
    NUISANCE_PER_MESSAGE = 4, /* ... and how many a message */
    BULK_LENGTH = 1 << 16,    /* of messages that it pays to read in place, frame by frame */
    BULK_AFTER = 4096,        /* bytes read along meanwhile: the heads of the next frames */
    BUCKETS = 128,
    BODY_HEAD = 160,     /* bytes of an answer's message that are not filling */
    PIECE_MAX = 1000,    /* bytes of a message in one DATA frame of ours */
    HPACK_TABLE = 4096,  /* the default size of the dynamic table, RFC 9113, 6.5.2 */
    FRAME_MIN = 1 << 14, /* what a peer may set as its largest frame: RFC 9113, 6.5.2 */
    FRAME_MAX = (1 << 24) - 1,
};

static const int64_t WINDOW_MAX = INT32_MAX; /* RFC 9113, 6.9.1 */
static const int64_t WINDOW_DEFAULT = 65535;

static const char PREFACE[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"; /* RFC 9113, 3.4 */
#ifdef BLASTER_ZSTD
#define ENCODINGS "identity,gzip,zstd"
#else
#define ENCODINGS "identity,gzip"
#endif
enum { PREFACE_LENGTH = sizeof PREFACE - 1 };

static const char HTTP1_ANSWER[] = "HTTP/1.1 505 HTTP Version Not Supported\r\n"
                                   "Content-Type: text/plain\r\n"
                                   "Content-Length: 35\r\n"
                                   "Connection: close\r\n\r\n"
                                   "This port speaks gRPC over HTTP/2.\n";

/* The message of an answer that is not empty, its prefix included. */
struct body {
    size_t length, head_length; /* what follows the head is filled up */
    uint8_t head[BODY_HEAD];
};

/* A call whose end is still to come. */
struct stream {
    struct stream *chain;          /* the next one in its bucket */
    struct stream *older, *newer;  /* by the time it was opened */
    struct stream *sooner, *later; /* by the time of the answer, over all connections */
    struct conn *conn;
    int64_t answer_at; /* 0: the answer was not put off */
    struct message_buffer *buffer;
    int64_t opened;
    int64_t window;         /* bytes of DATA that the peer lets us send */
    int64_t content_length; /* -1: none was given */
    int64_t received;       /* bytes of DATA without padding */
    uint32_t id;
    uint32_t length; /* of the message, once the prefix is complete */
    uint32_t have;   /* bytes of the message that came */
    uint8_t prefix[PREFIX];
    uint8_t prefix_have;
    uint8_t encoding;
    uint32_t answered; /* bytes of the answer's message that were sent */
    struct body *body; /* NULL: it is empty */
    bool ended;        /* the peer has closed its side */
    bool answering;    /* a good answer waits for the peer's window */
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
    uint8_t gathered[PREFACE_LENGTH];
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
    int64_t shut_until; /* our windows are shut; 0: they are not */
    bool cut;           /* a stream was ended before the peer had ended it */

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
    uint32_t nuisance;
    int64_t accepted; /* times */
    int64_t frame_since;
    int64_t active;
};

/* ---- output ---- */

static uint8_t *reserve(struct conn *conn, size_t length) {
    if (conn->output_capacity - conn->output_end >= length) {
        conn->output_end += length;
        return conn->output + conn->output_end - length;
    }
    size_t waiting = conn->output_end - conn->output_start;
    if (conn->output_start > 0) {
        memmove(conn->output, conn->output + conn->output_start, waiting);
        conn->output_start = 0;
        conn->output_end = waiting;
    }
    if (conn->output_capacity - waiting < length) {
        size_t capacity = conn->output_capacity == 0 ? 4096 : 2 * conn->output_capacity;
        uint8_t *grown = realloc(conn->output, capacity); /* length <= sizeof spill <= capacity/2 */
        if (grown == NULL) {
            conn->phase = ENDED;
            return conn->shared->spill;
        }
        conn->output = grown;
        conn->output_capacity = capacity;
    }
    conn->output_end += length;
    return conn->output + conn->output_end - length;
}

static void put32(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)(value >> 24);
    p[1] = (uint8_t)(value >> 16);
    p[2] = (uint8_t)(value >> 8);
    p[3] = (uint8_t)value;
}

static uint32_t get32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Starts a frame of length bytes and returns where its payload goes. */
static uint8_t *put_frame(struct conn *conn, size_t length, uint8_t type, uint8_t flags,
                          uint32_t stream) {
    uint8_t *p = reserve(conn, FRAME_HEAD + length);
    put32(p, (uint32_t)length << 8 | type);
    p[4] = flags;
    put32(p + 5, stream);
    return p + FRAME_HEAD;
}

static void put_reset(struct conn *conn, uint32_t stream, uint32_t code) {
    put32(put_frame(conn, 4, NGHTTP2_RST_STREAM, 0, stream), code);
}

static void put_window_update(struct conn *conn, uint32_t stream, uint32_t increment) {
    put32(put_frame(conn, 4, NGHTTP2_WINDOW_UPDATE, 0, stream), increment);
}

static uint8_t *put_setting(uint8_t *p, uint16_t id, uint32_t value) {
    p[0] = (uint8_t)(id >> 8);
    p[1] = (uint8_t)id;
    put32(p + 2, value);
    return p + 6;
}

/* A whole message fits into one frame, and into a stream's window without any update. */
static uint32_t stream_window(const struct conn *conn) {
    uint64_t window =
        (uint64_t)conn->shared->limits.max_message + PREFIX + (uint64_t)WINDOW_DEFAULT;
    return (uint32_t)(window > (uint64_t)WINDOW_MAX ? (uint64_t)WINDOW_MAX : window);
}

static void put_window_setting(struct conn *conn, uint32_t window) {
    uint8_t *p = put_frame(conn, 6, NGHTTP2_SETTINGS, 0, 0);
    put_setting(p, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window);
}

static void put_preface(struct conn *conn) {
    uint64_t whole = (uint64_t)conn->shared->limits.max_message + PREFIX;
    uint64_t frame = whole < FRAME_MIN ? FRAME_MIN : whole;
    if (frame > FRAME_MAX)
        frame = FRAME_MAX;
    uint8_t *p = put_frame(conn, 24, NGHTTP2_SETTINGS, 0, 0);
    p = put_setting(p, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, conn->shared->limits.max_streams);
    p = put_setting(p, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, stream_window(conn));
    p = put_setting(p, NGHTTP2_SETTINGS_MAX_FRAME_SIZE, (uint32_t)frame);
    put_setting(p, NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEAD_SIZE_MAX);
    put_window_update(conn, 0, (uint32_t)(WINDOW_MAX - WINDOW_DEFAULT));
    conn->receive_window = WINDOW_MAX;
}

static void put_text(uint8_t **p, const char *text) {
    size_t length = strlen(text);
    memcpy(*p, text, length);
    *p += length;
}

/* A literal field without indexing and with a new name (RFC 7541, 6.2.2); all lengths are below
 * 127, so that one byte holds each. */
static void put_field(uint8_t **p, const char *name, const char *value) {
    *(*p)++ = 0x00;
    *(*p)++ = (uint8_t)strlen(name);
    put_text(p, name);
    *(*p)++ = (uint8_t)strlen(value);
    put_text(p, value);
}

static void put_table_size(struct conn *conn, uint8_t **p) {
    if (conn->table_shrunk)
        *(*p)++ = 0x20; /* the dynamic table's size is now 0: RFC 7541, 6.3 */
    conn->table_shrunk = false;
}

/* grpc-message is percent-encoded but for printable ASCII; what is too long is cut. */
static void percent_encode(char out[127], const char *text) {
    static const char hex[] = "0123456789ABCDEF";
    size_t length = 0;
    for (; *text != '\0' && length < 123; text++) {
        uint8_t byte = (uint8_t)*text;
        if (byte >= ' ' && byte <= '~' && byte != '%') {
            out[length++] = (char)byte;
        } else {
            out[length++] = '%';
            out[length++] = hex[byte >> 4];
            out[length++] = hex[byte & 15];
        }
    }
    out[length] = '\0';
}

/* An answer that is nothing but trailers. */
static void put_error(struct conn *conn, uint32_t stream, const char *http_status,
                      struct grpc_answer answer) {
    uint8_t block[512], *p = block;
    char message[127] = "", status[4] = {0};
    put_table_size(conn, &p);
    if (http_status == NULL) {
        *p++ = 0x88; /* :status 200 */
    } else {
        *p++ = 0x08; /* :status, literal without indexing */
        *p++ = 3;
        put_text(&p, http_status);
    }
    *p++ = 0x0f; /* content-type, literal without indexing */
    *p++ = 0x10;
    *p++ = 16;
    put_text(&p, "application/grpc");
    if (answer.status >= 10)
        status[0] = (char)('0' + answer.status / 10 % 10);
    status[strlen(status)] = (char)('0' + answer.status % 10);
    put_field(&p, "grpc-status", status);
    if (answer.message != NULL) {
        percent_encode(message, answer.message);
        put_field(&p, "grpc-message", message);
    }
    if (answer.fault != NULL && answer.fault->fault.text[0] != '\0')
        put_field(&p, "grpc-status-details-bin", answer.fault->fault.text);
    if (answer.status == GRPC_UNIMPLEMENTED)
        put_field(&p, "grpc-accept-encoding", ENCODINGS);
    size_t length = (size_t)(p - block);
    uint8_t *out = put_frame(conn, length, NGHTTP2_HEADERS,
                             NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, stream);
    memcpy(out, block, length);
}

/* An answer that is HTTP's and not gRPC's: what a proxy says. */
static void put_http(struct conn *conn, uint32_t stream, int64_t status, const char *retry_after) {
    uint8_t block[256], *p = block;
    char digits[4] = {(char)('0' + status / 100 % 10), (char)('0' + status / 10 % 10),
                      (char)('0' + status % 10)};
    put_table_size(conn, &p);
    *p++ = 0x08; /* :status, literal without indexing */
    *p++ = 3;
    put_text(&p, digits);
    put_field(&p, "content-type", "text/html");
    if (retry_after[0] != '\0')
        put_field(&p, "retry-after", retry_after);
    size_t length = (size_t)(p - block);
    uint8_t *out = put_frame(conn, length, NGHTTP2_HEADERS,
                             NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, stream);
    memcpy(out, block, length);
}

static void put_goaway(struct conn *conn, uint32_t code) {
    uint8_t *p = put_frame(conn, 8, NGHTTP2_GOAWAY, 0, 0);
    put32(p, conn->last_stream);
    put32(p + 4, code);
}

/* The headers of a good answer. From the second one on they are in the peer's HPACK table, which
 * makes them two bytes: nothing else is ever put there, "content-type" always first. */
static void put_good_headers(struct conn *conn, uint32_t stream) {
    uint8_t block[32], *p = block;
    put_table_size(conn, &p);
    *p++ = 0x88; /* :status 200 */
    if (conn->type_in_table) {
        *p++ = conn->success_in_table ? 0xbf : 0xbe; /* index 63 or 62 */
    } else {
        if (conn->table_unused) {
            *p++ = 0x0f;
            *p++ = 0x10;
        } else {
            *p++ = 0x5f; /* with incremental indexing */
            conn->type_in_table = true;
        }
        *p++ = 16;
        put_text(&p, "application/grpc");
    }
    size_t length = (size_t)(p - block);
    memcpy(put_frame(conn, length, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, stream), block,
           length);
}

static void put_good_trailers(struct conn *conn, uint32_t stream) {
    uint8_t block[32], *p = block;
    put_table_size(conn, &p);
    if (conn->success_in_table) {
        *p++ = 0xbe;
    } else {
        *p++ = conn->table_unused ? 0x00 : 0x40;
        *p++ = 11;
        put_text(&p, "grpc-status");
        *p++ = 1;
        *p++ = '0';
        conn->success_in_table = !conn->table_unused;
    }
    size_t length = (size_t)(p - block);
    uint8_t *out = put_frame(conn, length, NGHTTP2_HEADERS,
                             NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, stream);
    memcpy(out, block, length);
}

/* ---- streams ---- */

static struct stream **bucket_of(struct conn *conn, uint32_t id) {
    return &conn->buckets[(id >> 1) % BUCKETS];
}

static struct stream *stream_find(struct conn *conn, uint32_t id) {
    struct stream *stream = *bucket_of(conn, id);
    while (stream != NULL && stream->id != id)
        stream = stream->chain;
    return stream;
}

static struct stream *stream_open(struct conn *conn, uint32_t id) {
    struct conn_shared *shared = conn->shared;
    struct stream *stream = shared->free_streams;
    if (stream != NULL)
        shared->free_streams = stream->chain;
    else if ((stream = malloc(sizeof *stream)) == NULL)
        return NULL;
    memset(stream, 0, sizeof *stream);
    stream->id = id;
    stream->conn = conn;
    stream->opened = shared->now;
    stream->window = conn->peer_initial_window;
    stream->older = conn->newest;
    if (conn->newest != NULL)
        conn->newest->newer = stream;
    else
        conn->oldest = stream;
    conn->newest = stream;
    struct stream **bucket = bucket_of(conn, id);
    stream->chain = *bucket;
    *bucket = stream;
    conn->streams++;
    return stream;
}

/* Puts a good answer off until its time. Most come in the order of their times. */
static void stream_later(struct conn *conn, struct stream *stream, int64_t at) {
    struct conn_shared *shared = conn->shared;
    struct stream *sooner = shared->last_later;
    while (sooner != NULL && sooner->answer_at > at)
        sooner = sooner->sooner;
    stream->answer_at = at;
    stream->sooner = sooner;
    stream->later = sooner != NULL ? sooner->later : shared->first_later;
    if (sooner != NULL)
        sooner->later = stream;
    else
        shared->first_later = stream;
    if (stream->later != NULL)
        stream->later->sooner = stream;
    else
        shared->last_later = stream;
}

static void stream_not_later(struct conn_shared *shared, struct stream *stream) {
    if (stream->sooner != NULL)
        stream->sooner->later = stream->later;
    else
        shared->first_later = stream->later;
    if (stream->later != NULL)
        stream->later->sooner = stream->sooner;
    else
        shared->last_later = stream->sooner;
    stream->answer_at = 0;
}

static void stream_close(struct conn *conn, struct stream *stream) {
    struct conn_shared *shared = conn->shared;
    if (stream->answer_at != 0)
        stream_not_later(shared, stream);
    struct stream **link = bucket_of(conn, stream->id);
    while (*link != stream)
        link = &(*link)->chain;
    *link = stream->chain;
    if (stream->older != NULL)
        stream->older->newer = stream->newer;
    else
        conn->oldest = stream->newer;
    if (stream->newer != NULL)
        stream->newer->older = stream->older;
    else
        conn->newest = stream->older;
    conn->streams--;
    conn->blocked -= stream->answering;
    conn->bulk -= stream->bulk;
    conn->active = shared->now;
    if (conn->data_stream == stream)
        conn->data_stream = NULL;
    if (stream->buffer != NULL) {
        conn->owed -= stream->length - stream->have;
        pool_give(&shared->pool, stream->buffer);
    }
    free(stream->body);
    stream->chain = shared->free_streams;
    shared->free_streams = stream;
    if (conn->leaving && conn->streams == 0)
        conn->phase = ENDED;
}

/* Ends the connection for what the peer did: RFC 9113, 5.4.1. */
static void breach(struct conn *conn, uint32_t code) {
    if (conn->phase == ENDED)
        return;
    put_goaway(conn, code);
    conn->phase = ENDED;
    conn->shared->breaches++;
}

/* Counts a frame that makes work without bringing a message: what a flood is made of (rapid
 * resets, CVE-2023-44487; pings, settings, empty frames, CVE-2019-9511 to 9518). */
static void annoy(struct conn *conn) {
    if (++conn->nuisance > NUISANCE_MAX)
        breach(conn, NGHTTP2_ENHANCE_YOUR_CALM);
}

/* Ends one stream for what the peer did: RFC 9113, 5.4.2. */
static void stream_breach(struct conn *conn, struct stream *stream, uint32_t code) {
    put_reset(conn, stream->id, code);
    conn->cut = true;
    stream_close(conn, stream);
    annoy(conn);
}

/* Answers a call with an error and asks the peer to stop sending what is left of it: RFC 9113,
 * 8.1. */
static void stream_refuse(struct conn *conn, struct stream *stream, const char *http_status,
                          int status, const char *message) {
    put_error(conn, stream->id, http_status, (struct grpc_answer){status, message, 0, NULL, 0});
    if (!stream->ended) {
        put_reset(conn, stream->id, NGHTTP2_NO_ERROR);
        conn->cut = true;
    }
    conn->shared->refused++;
    stream_close(conn, stream);
}

/* Sends as much of a good answer as the peer's windows and our output allow; the rest follows when
 * there is room. */
static void stream_answer(struct conn *conn, struct stream *stream) {
    static const struct body empty = {.length = PREFIX, .head_length = PREFIX};
    const struct body *body = stream->body != NULL ? stream->body : &empty;
    if (!stream->opened_answer)
        put_good_headers(conn, stream->id);
    stream->opened_answer = true;
    while (stream->answered < body->length &&
           conn->output_end - conn->output_start <= OUTPUT_HIGH && conn->phase != ENDED) {
        int64_t window = stream->window < conn->send_window ? stream->window : conn->send_window;
        size_t at = stream->answered, piece = body->length - at;
        if (window <= 0)
            break;
        piece = piece < PIECE_MAX ? piece : PIECE_MAX;
        piece = (int64_t)piece < window ? piece : (size_t)window;
        uint8_t *p = put_frame(conn, piece, NGHTTP2_DATA, 0, stream->id);
        for (size_t i = 0; i < piece; i++)
            p[i] = at + i < body->head_length ? body->head[at + i] : 'x';
        stream->answered += (uint32_t)piece;
        stream->window -= (int64_t)piece;
        conn->send_window -= (int64_t)piece;
    }
    if (stream->answered < body->length) {
        conn->blocked += !stream->answering;
        stream->answering = true;
        return;
    }
    put_good_trailers(conn, stream->id);
    stream_close(conn, stream);
}

static void answer_blocked(struct conn *conn) {
    for (struct stream *stream = conn->oldest, *newer; stream != NULL && conn->blocked > 0;
         stream = newer) {
        newer = stream->newer;
        if (stream->answering && stream->window > 0 && conn->send_window > 0)
            stream_answer(conn, stream);
    }
}

/* ---- messages ---- */

/* The prefix is complete: is this a message to take in? Closes the stream and returns false when
 * it is not. */
static bool message_begin(struct conn *conn, struct stream *stream) {
    stream->length = get32(stream->prefix + 1);
    uint8_t flag = stream->prefix[0];
    if (flag > 1 || (flag == 1 && stream->encoding == HEAD_IDENTITY))
        stream_refuse(conn, stream, NULL, GRPC_INTERNAL,
                      "the message's compressed flag does not agree with grpc-encoding");
    else if (flag == 1 && stream->encoding == HEAD_OTHER_ENCODING)
        stream_refuse(conn, stream, NULL, GRPC_UNIMPLEMENTED,
                      "grpc-encoding: only " ENCODINGS " are known");
    else if (stream->length > conn->shared->limits.max_message)
        stream_refuse(conn, stream, NULL, GRPC_RESOURCE_EXHAUSTED,
                      "the message is larger than the receiver allows");
    else
        return true;
    return false;
}

/* Adds a piece to the message; closes the stream and returns false when there is no room. */
static bool message_append(struct conn *conn, struct stream *stream, const uint8_t *data,
                           size_t length) {
    struct message_pool *pool = &conn->shared->pool;
    if (stream->buffer == NULL) {
        stream->buffer = pool_take(pool, stream->length);
        conn->owed += stream->buffer != NULL ? stream->length : 0;
        stream->bulk = stream->length >= BULK_LENGTH;
        conn->bulk += stream->bulk;
    }
    if (stream->buffer == NULL || !pool_touch(pool, stream->buffer, stream->have + length)) {
        stream_refuse(conn, stream, NULL, GRPC_RESOURCE_EXHAUSTED,
                      "too many messages are on their way in");
        return false;
    }
    uint8_t *end = stream->buffer->data + stream->have;
    if (data != end) /* else it was read to its place: see conn_room */
        memcpy(end, data, length);
    stream->have += (uint32_t)length;
    conn->owed -= length;
    return true;
}

static size_t put_varint(uint8_t *p, uint64_t value) {
    size_t length = 0;
    for (; value > 127; value >>= 7)
        p[length++] = (uint8_t)(value | 128);
    p[length++] = (uint8_t)value;
    return length;
}

/* ExportTraceServiceResponse.partial_success = 1 {rejected_spans = 1; error_message = 2}, of which
 * the text is `text`, or `filling` bytes. */
static void partial_success(struct body *body, int64_t rejected, const char *text, size_t filling) {
    size_t text_length = text != NULL ? strlen(text) : filling;
    uint8_t inside[48], *p = body->head + PREFIX;
    size_t length = 0;
    inside[length++] = 0x08;
    length += put_varint(inside + length, (uint64_t)rejected);
    inside[length++] = 0x12;
    length += put_varint(inside + length, text_length);
    *p++ = 0x0a;
    p += put_varint(p, length + text_length);
    memcpy(p, inside, length);
    p += length;
    if (text != NULL) {
        memcpy(p, text, text_length);
        p += text_length;
    }
    body->head_length = (size_t)(p - body->head);
    body->length = body->head_length + (text != NULL ? 0 : filling);
}

/* The answer's message, for the faults that are in it. False: memory is short. */
static bool make_body(struct stream *stream, const struct grpc_answer *answer) {
    const struct fault *fault = &answer->fault->fault;
    struct body *body = stream->body = calloc(1, sizeof *body);
    if (body == NULL)
        return false;
    if (fault->kind == FAULT_PARTIAL) {
        partial_success(body, answer->rejected, "rejected on purpose", 0);
    } else if (fault->kind == FAULT_OVERSIZE) {
        partial_success(body, 0, NULL, (size_t)fault->low);
    } else {
        body->length = body->head_length = PREFIX + 16;
        body->head[PREFIX] = 0xff; /* no tag: its wire type is 7 */
        for (size_t i = 1; i < 16; i++)
            body->head[PREFIX + i] = (uint8_t)(answer->fault->random >> i * 4);
    }
    put32(body->head + 1, (uint32_t)(body->length - PREFIX));
    return true;
}

/* Does to the call what its fault asks for. True: it is to be answered all the same. */
static bool message_fault(struct conn *conn, struct stream *stream,
                          const struct grpc_answer *answer) {
    struct conn_shared *shared = conn->shared;
    const struct fault *fault = &answer->fault->fault;
    switch (fault->kind) {
    case FAULT_STATUS:
        put_error(conn, stream->id, NULL, *answer);
        break;
    case FAULT_HTTP:
        put_http(conn, stream->id, fault->low, fault->text);
        break;
    case FAULT_CONTENT_TYPE:
        put_http(conn, stream->id, 200, "");
        break;
    case FAULT_RST:
        put_reset(conn, stream->id, (uint32_t)fault->low);
        break;
    case FAULT_FRAMES:
        memset(reserve(conn, 64), 0xff, 64); /* a frame's head that breaks every rule */
        break;
    case FAULT_RESET:
        conn->aborted = true;
        conn->phase = ENDED;
        return false;
    case FAULT_HALF_CLOSE:
        conn->phase = ENDED;
        return false;
    case FAULT_PARTIAL:
        if (answer->rejected == 0)
            return true;
        /* fall through */
    case FAULT_GARBAGE:
    case FAULT_OVERSIZE:
        if (answer->status != GRPC_OK || make_body(stream, answer))
            return true;
        put_reset(conn, stream->id, NGHTTP2_INTERNAL_ERROR);
        break;
    case FAULT_GOAWAY:
        if (!conn->leaving)
            put_goaway(conn, NGHTTP2_NO_ERROR);
        conn->leaving = true;
        return true;
    case FAULT_SLOW_READ:
        if (conn->shut_until == 0)
            put_window_setting(conn, 0);
        conn->shut_until = shared->now + fault->low;
        return true;
    default:
        return true;
    }
    shared->refused++;
    stream_close(conn, stream);
    return false;
}

/* Decompresses the message; closes the stream and returns false when that can't be. */
static bool unpack(struct conn *conn, struct stream *stream, const uint8_t **whole,
                   size_t *length) {
    struct conn_shared *shared = conn->shared;
    size_t limit = shared->limits.max_message;
    bool zstd = stream->encoding == HEAD_ZSTD;
    switch (zstd ? unzstd_message(&shared->unzstd, *whole, *length, limit)
                 : gunzip_message(&shared->gunzip, *whole, *length, limit)) {
    case GUNZIP_OK:
        *whole = zstd ? shared->unzstd.out : shared->gunzip.out;
        *length = zstd ? shared->unzstd.length : shared->gunzip.length;
        return true;
    case GUNZIP_TOO_LONG:
        stream_refuse(conn, stream, NULL, GRPC_RESOURCE_EXHAUSTED,
                      "the decompressed message is larger than the receiver allows");
        break;
    case GUNZIP_BAD:
        stream_refuse(conn, stream, NULL, GRPC_INTERNAL,
                      zstd ? "the message is not zstd" : "the message is not gzip");
        break;
    case GUNZIP_NO_MEMORY:
        stream_refuse(conn, stream, NULL, GRPC_RESOURCE_EXHAUSTED, "memory is short");
        break;
    }
    return false;
}

/* The call is complete. `whole` is the message where it lay in one piece, else NULL. */
static void message_end(struct conn *conn, struct stream *stream, const uint8_t *whole) {
    struct conn_shared *shared = conn->shared;
    stream->ended = true;
    if (stream->content_length >= 0 && stream->content_length != stream->received) {
        stream_breach(conn, stream, NGHTTP2_PROTOCOL_ERROR); /* RFC 9113, 8.1.1 */
        return;
    }
    if (stream->prefix_have == 0) {
        stream_refuse(conn, stream, NULL, GRPC_UNIMPLEMENTED, "the call carries no message");
        return;
    }
    if (stream->prefix_have < PREFIX || stream->have < stream->length) {
        stream_refuse(conn, stream, NULL, GRPC_INTERNAL, "the call ends within its message");
        return;
    }
    size_t length = stream->length;
    if (whole == NULL)
        whole = stream->buffer != NULL ? stream->buffer->data : stream->prefix;
    if (stream->prefix[0] == 1 && !unpack(conn, stream, &whole, &length))
        return;
    struct grpc_answer answer = shared->deliver(shared->context, whole, length);
    conn->nuisance -= conn->nuisance < NUISANCE_PER_MESSAGE ? conn->nuisance : NUISANCE_PER_MESSAGE;
    if (answer.fault != NULL && answer.fault->fault.kind != FAULT_NONE &&
        !message_fault(conn, stream, &answer))
        return;
    if (answer.status != GRPC_OK)
        stream_refuse(conn, stream, NULL, answer.status, answer.message);
    else if (answer.at > shared->now)
        stream_later(conn, stream, answer.at);
    else
        stream_answer(conn, stream);
}

/* Takes a piece of a DATA frame's data. `whole_call`: the call ends with this very piece, so that
 * a message that lies in it entirely can be read in place. */
static void take_data(struct conn *conn, struct stream *stream, const uint8_t *data, size_t length,
                      bool whole_call) {
    const uint8_t *whole = NULL;
    stream->received += (int64_t)length;
    while (length > 0) {
        size_t piece;
        if (stream->prefix_have < PREFIX) {
            piece = (size_t)(PREFIX - stream->prefix_have);
            piece = piece < length ? piece : length;
            memcpy(stream->prefix + stream->prefix_have, data, piece);
            stream->prefix_have = (uint8_t)(stream->prefix_have + piece);
            if (stream->prefix_have == PREFIX && !message_begin(conn, stream))
                return;
        } else if (stream->have == stream->length) {
            stream_refuse(conn, stream, NULL, GRPC_UNIMPLEMENTED,
                          "the call carries more than one message");
            return;
        } else {
            piece = stream->length - stream->have;
            if (whole_call && stream->have == 0 && piece == length) {
                whole = data;
                stream->have = stream->length;
            } else {
                piece = piece < length ? piece : length;
                if (!message_append(conn, stream, data, piece))
                    return;
            }
        }
        data += piece;
        length -= piece;
    }
    if (whole_call)
        message_end(conn, stream, whole);
}

/* ---- header blocks ---- */

/* Decodes a whole block, which has to be done even for streams that are gone, because the tables
 * of both sides must agree. Ends the connection and returns false when that fails. */
static bool read_block(struct conn *conn, const uint8_t *block, size_t length, struct head *head) {
    switch (head_read(&conn->heads, block, length, head)) {
    case HEAD_BAD_CODE:
        breach(conn, NGHTTP2_COMPRESSION_ERROR); /* RFC 9113, 4.3 */
        return false;
    case HEAD_TOO_LARGE: /* an HPACK bomb: few bytes, many headers */
        breach(conn, NGHTTP2_ENHANCE_YOUR_CALM);
        return false;
    case HEAD_READ:
        break;
    }
    return true;
}

static void begin_call(struct conn *conn, uint32_t id, bool ends, const struct head *head) {
    conn->last_stream = id;
    if (conn->leaving) { /* it came after our GOAWAY, which the peer has not seen yet */
        conn->cut = true;
        annoy(conn);
        return;
    }
    if (conn->streams >= conn->shared->limits.max_streams) {
        put_reset(conn, id, NGHTTP2_REFUSED_STREAM); /* RFC 9113, 5.1.2 */
        conn->cut = true;
        annoy(conn);
        return;
    }
    struct stream *stream = stream_open(conn, id);
    if (stream == NULL) {
        breach(conn, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    stream->encoding = (uint8_t)head->encoding;
    stream->content_length = head->content_length;
    stream->ended = ends;
    if (!head_is_request(head))
        stream_breach(conn, stream, NGHTTP2_PROTOCOL_ERROR); /* RFC 9113, 8.1.1 */
    else if (!head->post)
        stream_refuse(conn, stream, "405", GRPC_INTERNAL, "a call is a POST");
    else if (!head->grpc)
        stream_refuse(conn, stream, "415", GRPC_INTERNAL, "content-type is not application/grpc");
    else if (!head->export_path)
        stream_refuse(conn, stream, NULL, GRPC_UNIMPLEMENTED,
                      "the only method is that of OTLP traces");
    else if (ends)
        message_end(conn, stream, NULL);
}

static void take_block(struct conn *conn, uint32_t id, bool ends, const uint8_t *block,
                       size_t length) {
    struct head head;
    if (!read_block(conn, block, length, &head))
        return;
    if (id > conn->last_stream) {
        begin_call(conn, id, ends, &head);
        return;
    }
    struct stream *stream = stream_find(conn, id);
    if (stream == NULL) {
        /* A stream that we ended may have had its trailers on their way. RFC 9113, 5.1 */
        if (!conn->cut)
            breach(conn, NGHTTP2_STREAM_CLOSED);
        else
            annoy(conn);
    } else if (stream->ended) {
        stream_breach(conn, stream, NGHTTP2_STREAM_CLOSED);
    } else if (!ends || !head_is_trailers(&head)) {
        stream_breach(conn, stream, NGHTTP2_PROTOCOL_ERROR); /* trailers: RFC 9113, 8.1 */
    } else {
        message_end(conn, stream, NULL);
    }
}

/* Adds to the header block that is open; the frames of one are counted as well as its bytes, since
 * empty CONTINUATION frames cost the sender next to nothing (CVE-2024-28182). */
static void take_fragment(struct conn *conn, const uint8_t *data, size_t length) {
    if (++conn->block_frames > CONTINUATIONS_MAX || conn->block_length + length > BLOCK_MAX) {
        breach(conn, NGHTTP2_ENHANCE_YOUR_CALM);
        return;
    }
    if (conn->block == NULL && (conn->block = malloc(BLOCK_MAX)) == NULL) {
        breach(conn, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    memcpy(conn->block + conn->block_length, data, length);
    conn->block_length += length;
    if (!(conn->flags & NGHTTP2_FLAG_END_HEADERS))
        return;
    uint32_t id = conn->block_stream;
    conn->block_stream = 0;
    take_block(conn, id, conn->block_ends_stream, conn->block, conn->block_length);
    free(conn->block);
    conn->block = NULL;
}

static void take_headers(struct conn *conn, const uint8_t *data, size_t length) {
    uint32_t id = conn->frame_stream;
    bool ends = (conn->flags & NGHTTP2_FLAG_END_STREAM) != 0;
    size_t padding = 0;
    if (id % 2 == 0) { /* RFC 9113, 5.1.1 */
        breach(conn, NGHTTP2_PROTOCOL_ERROR);
        return;
    }
    if (conn->flags & NGHTTP2_FLAG_PADDED) {
        if (length < 1) {
            breach(conn, NGHTTP2_FRAME_SIZE_ERROR);
            return;
        }
        padding = *data++;
        length--;
    }
    size_t priority = conn->flags & NGHTTP2_FLAG_PRIORITY ? 5 : 0;
    if (padding + priority > length) { /* RFC 9113, 6.2 */
        breach(conn, padding > length ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_FRAME_SIZE_ERROR);
        return;
    }
    data += priority;
    length -= priority + padding;
    if (conn->flags & NGHTTP2_FLAG_END_HEADERS) {
        take_block(conn, id, ends, data, length);
        return;
    }
    conn->block_stream = id;
    conn->block_ends_stream = ends;
    conn->block_length = 0;
    conn->block_frames = 0;
    take_fragment(conn, data, length);
}

/* ---- the other frames ---- */

/* RFC 9113, 6.5 */
static void take_settings(struct conn *conn, const uint8_t *data, size_t length) {
    if (conn->flags & NGHTTP2_FLAG_ACK) {
        annoy(conn);
        return;
    }
    for (; length > 0 && conn->phase != ENDED; data += 6, length -= 6) {
        uint16_t id = (uint16_t)(data[0] << 8 | data[1]);
        uint32_t value = get32(data + 2);
        switch (id) {
        case NGHTTP2_SETTINGS_HEADER_TABLE_SIZE:
            /* A smaller table must be acknowledged in the next block (RFC 7541, 4.2); we then do
             * without it, which is simpler than to fit in. */
            if (value < HPACK_TABLE && !conn->table_unused) {
                conn->table_shrunk = conn->table_unused = true;
                conn->type_in_table = conn->success_in_table = false;
            }
            break;
        case NGHTTP2_SETTINGS_ENABLE_PUSH:
            if (value > 1)
                breach(conn, NGHTTP2_PROTOCOL_ERROR);
            break;
        case NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE:
            if (value > (uint32_t)WINDOW_MAX) {
                breach(conn, NGHTTP2_FLOW_CONTROL_ERROR);
                break;
            }
            /* RFC 9113, 6.9.2: the windows of open streams move along, below zero if need be. */
            for (struct stream *s = conn->oldest; s != NULL; s = s->newer) {
                s->window += (int64_t)value - conn->peer_initial_window;
                if (s->window > WINDOW_MAX)
                    breach(conn, NGHTTP2_FLOW_CONTROL_ERROR);
            }
            conn->peer_initial_window = value;
            break;
        case NGHTTP2_SETTINGS_MAX_FRAME_SIZE:
            if (value < FRAME_MIN || value > FRAME_MAX)
                breach(conn, NGHTTP2_PROTOCOL_ERROR);
            break; /* our frames are smaller than any limit */
        default:
            break; /* RFC 9113, 6.5.2: unknown ones are ignored */
        }
    }
    if (conn->phase == ENDED)
        return;
    put_frame(conn, 0, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0);
    conn->settings_seen = true;
    annoy(conn);
    answer_blocked(conn);
}

static void take_ping(struct conn *conn, const uint8_t *data) {
    if (!(conn->flags & NGHTTP2_FLAG_ACK))
        memcpy(put_frame(conn, 8, NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0), data, 8);
    annoy(conn);
}

/* RFC 9113, 6.9 */
static void take_window_update(struct conn *conn, const uint8_t *data) {
    uint32_t increment = get32(data) & INT32_MAX;
    struct stream *stream = NULL;
    annoy(conn);
    if (conn->phase == ENDED)
        return;
    if (conn->frame_stream != 0 && (stream = stream_find(conn, conn->frame_stream)) == NULL)
        return; /* it may have been on its way when the stream ended */
    int64_t *window = stream != NULL ? &stream->window : &conn->send_window;
    *window += increment;
    if (increment > 0 && *window <= WINDOW_MAX) {
        if (stream == NULL)
            answer_blocked(conn);
        else if (stream->answering)
            stream_answer(conn, stream);
        return;
    }
    uint32_t code = increment == 0 ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_FLOW_CONTROL_ERROR;
    if (stream != NULL)
        stream_breach(conn, stream, code);
    else
        breach(conn, code);
}

/* A client that gives up a call: nothing of it counts. */
static void take_reset(struct conn *conn) {
    struct stream *stream = stream_find(conn, conn->frame_stream);
    if (stream != NULL)
        stream_close(conn, stream);
    annoy(conn);
}

static void take_payload(struct conn *conn, const uint8_t *data, size_t length) {
    conn->phase = IN_HEAD;
    switch (conn->type) {
    case NGHTTP2_HEADERS:
        take_headers(conn, data, length);
        break;
    case NGHTTP2_CONTINUATION:
        take_fragment(conn, data, length);
        break;
    case NGHTTP2_SETTINGS:
        take_settings(conn, data, length);
        break;
    case NGHTTP2_PING:
        take_ping(conn, data);
        break;
    case NGHTTP2_WINDOW_UPDATE:
        take_window_update(conn, data);
        break;
    case NGHTTP2_RST_STREAM:
        take_reset(conn);
        break;
    default: /* PRIORITY, which is to be ignored: RFC 9113, 5.3.2 */
        annoy(conn);
        break;
    }
}

/* ---- input ---- */

static void end_data(struct conn *conn) {
    conn->phase = conn->padding > 0 ? IN_SKIP : IN_HEAD;
    conn->left = conn->padding;
    if (conn->phase == IN_SKIP)
        return;
    struct stream *stream = conn->data_stream;
    conn->data_stream = NULL;
    if (stream == NULL)
        return;
    if (conn->flags & NGHTTP2_FLAG_END_STREAM)
        message_end(conn, stream, NULL);
    else if (conn->padded)
        put_window_update(conn, stream->id, conn->credit);
}

static void begin_data(struct conn *conn) {
    uint32_t id = conn->frame_stream, length = conn->left;
    if (id == 0 || id % 2 == 0 || id > conn->last_stream) { /* RFC 9113, 6.1 and 5.1 */
        breach(conn, NGHTTP2_PROTOCOL_ERROR);
        return;
    }
    conn->receive_window -= length;
    if (conn->receive_window < 0) {
        breach(conn, NGHTTP2_FLOW_CONTROL_ERROR);
        return;
    }
    if (conn->receive_window < WINDOW_MAX / 2) {
        put_window_update(conn, 0, (uint32_t)(WINDOW_MAX - conn->receive_window));
        conn->receive_window = WINDOW_MAX;
    }
    struct stream *stream = stream_find(conn, id);
    if (stream == NULL && !conn->cut) {
        breach(conn, NGHTTP2_STREAM_CLOSED);
        return;
    }
    if (stream != NULL && stream->ended) {
        stream_breach(conn, stream, NGHTTP2_STREAM_CLOSED);
        stream = NULL;
    }
    if (length == 0 && !(conn->flags & NGHTTP2_FLAG_END_STREAM))
        annoy(conn);
    if (conn->phase == ENDED)
        return;
    conn->data_stream = stream;
    conn->padding = 0;
    conn->padded = (conn->flags & NGHTTP2_FLAG_PADDED) != 0;
    if (conn->padded) {
        if (length == 0)
            breach(conn, NGHTTP2_FRAME_SIZE_ERROR);
        else
            conn->phase = IN_PAD_LENGTH;
        return;
    }
    conn->phase = IN_DATA;
    if (length == 0)
        end_data(conn);
}

static void take_pad_length(struct conn *conn, uint8_t padding) {
    conn->left--;
    annoy(conn);
    if (padding > conn->left)
        breach(conn, NGHTTP2_PROTOCOL_ERROR); /* RFC 9113, 6.1 */
    if (conn->phase == ENDED)
        return;
    conn->padding = padding;
    conn->credit = 1u + padding;
    conn->left -= padding;
    conn->phase = IN_DATA;
    if (conn->left == 0)
        end_data(conn);
}

/* The lengths and streams that RFC 9113, section 6, lets a frame have. Returns an error code. */
static uint32_t check_frame(const struct conn *conn) {
    uint32_t length = conn->left, id = conn->frame_stream;
    switch (conn->type) {
    case NGHTTP2_SETTINGS:
        if (length % 6 != 0 || (conn->flags & NGHTTP2_FLAG_ACK && length != 0))
            return NGHTTP2_FRAME_SIZE_ERROR;
        if (length > 6 * SETTINGS_MAX)
            return NGHTTP2_ENHANCE_YOUR_CALM;
        return id == 0 ? NGHTTP2_NO_ERROR : NGHTTP2_PROTOCOL_ERROR;
    case NGHTTP2_PING:
        if (length != 8)
            return NGHTTP2_FRAME_SIZE_ERROR;
        return id == 0 ? NGHTTP2_NO_ERROR : NGHTTP2_PROTOCOL_ERROR;
    case NGHTTP2_GOAWAY:
        if (length < 8)
            return NGHTTP2_FRAME_SIZE_ERROR;
        return id == 0 ? NGHTTP2_NO_ERROR : NGHTTP2_PROTOCOL_ERROR;
    case NGHTTP2_WINDOW_UPDATE:
        if (length != 4)
            return NGHTTP2_FRAME_SIZE_ERROR;
        /* A stream that was never opened can't be given anything: RFC 9113, 5.1 */
        return id <= conn->last_stream ? NGHTTP2_NO_ERROR : NGHTTP2_PROTOCOL_ERROR;
    case NGHTTP2_RST_STREAM:
        if (length != 4)
            return NGHTTP2_FRAME_SIZE_ERROR;
        return id != 0 && id <= conn->last_stream ? NGHTTP2_NO_ERROR : NGHTTP2_PROTOCOL_ERROR;
    case NGHTTP2_PRIORITY:
        if (length != 5)
            return NGHTTP2_FRAME_SIZE_ERROR;
        return id != 0 ? NGHTTP2_NO_ERROR : NGHTTP2_PROTOCOL_ERROR;
    case NGHTTP2_PUSH_PROMISE:
        return NGHTTP2_PROTOCOL_ERROR; /* RFC 9113, 8.4: a client can't push */
    case NGHTTP2_HEADERS:
    case NGHTTP2_CONTINUATION:
        return length <= BLOCK_MAX ? NGHTTP2_NO_ERROR : NGHTTP2_ENHANCE_YOUR_CALM;
    default:
        return NGHTTP2_NO_ERROR;
    }
}

static void begin_frame(struct conn *conn, const uint8_t head[FRAME_HEAD]) {
    uint64_t largest = (uint64_t)conn->shared->limits.max_message + PREFIX;
    if (largest < FRAME_MIN)
        largest = FRAME_MIN;
    conn->left = get32(head) >> 8;
    conn->type = head[3];
    conn->flags = head[4];
    conn->frame_stream = get32(head + 5) & INT32_MAX;
    if (conn->block_stream == 0)
        conn->frame_since = conn->shared->now;
    if (conn->left > largest) {
        breach(conn, NGHTTP2_FRAME_SIZE_ERROR);
        return;
    }
    /* RFC 9113, 3.4 and 6.10: SETTINGS come first, and nothing comes within a header block. */
    bool continues = conn->type == NGHTTP2_CONTINUATION;
    if ((!conn->settings_seen && (conn->type != NGHTTP2_SETTINGS || conn->flags & 1)) ||
        continues != (conn->block_stream != 0) ||
        (continues && conn->frame_stream != conn->block_stream)) {
        breach(conn, NGHTTP2_PROTOCOL_ERROR);
        return;
    }
    if (conn->type == NGHTTP2_DATA) {
        begin_data(conn);
        return;
    }
    uint32_t code = check_frame(conn);
    if (code != NGHTTP2_NO_ERROR) {
        breach(conn, code);
        return;
    }
    /* GOAWAY asks nothing of us, and unknown frames are to be ignored: RFC 9113, 5.5 */
    if (conn->type > NGHTTP2_CONTINUATION || conn->type == NGHTTP2_GOAWAY) {
        conn->data_stream = NULL;
        conn->padding = 0;
        conn->phase = conn->left > 0 ? IN_SKIP : IN_HEAD;
        annoy(conn);
    } else if (conn->left == 0) {
        take_payload(conn, head, 0);
    } else {
        conn->phase = IN_PAYLOAD;
    }
}

static size_t feed_preface(struct conn *conn, const uint8_t *data, size_t length) {
    size_t piece = PREFACE_LENGTH - conn->gathered_length;
    piece = piece < length ? piece : length;
    memcpy(conn->gathered + conn->gathered_length, data, piece);
    conn->gathered_length += piece;
    if (memcmp(conn->gathered, PREFACE, conn->gathered_length) != 0) {
        if (conn->gathered[0] >= 'A' && conn->gathered[0] <= 'Z') { /* a method of HTTP/1 */
            memcpy(reserve(conn, sizeof HTTP1_ANSWER - 1), HTTP1_ANSWER, sizeof HTTP1_ANSWER - 1);
            conn->shared->breaches++;
            conn->phase = ENDED;
        } else {
            breach(conn, NGHTTP2_PROTOCOL_ERROR);
        }
    } else if (conn->gathered_length == PREFACE_LENGTH) {
        conn->gathered_length = 0;
        conn->phase = IN_HEAD;
        put_preface(conn);
    }
    return piece;
}

static size_t feed_head(struct conn *conn, const uint8_t *data, size_t length) {
    if (conn->gathered_length == 0 && length >= FRAME_HEAD) {
        begin_frame(conn, data);
        return FRAME_HEAD;
    }
    size_t piece = FRAME_HEAD - conn->gathered_length;
    piece = piece < length ? piece : length;
    if (conn->gathered_length == 0 && conn->block_stream == 0)
        conn->frame_since = conn->shared->now;
    memcpy(conn->gathered + conn->gathered_length, data, piece);
    conn->gathered_length += piece;
    if (conn->gathered_length == FRAME_HEAD) {
        conn->gathered_length = 0;
        begin_frame(conn, conn->gathered);
    }
    return piece;
}

static size_t feed_payload(struct conn *conn, const uint8_t *data, size_t length) {
    if (conn->payload == NULL && length >= conn->left) {
        size_t whole = conn->left;
        take_payload(conn, data, whole);
        return whole;
    }
    if (conn->payload == NULL) {
        conn->payload = malloc(conn->left);
        conn->payload_length = 0;
        if (conn->payload == NULL) {
            breach(conn, NGHTTP2_INTERNAL_ERROR);
            return length;
        }
    }
    size_t piece = conn->left < length ? conn->left : length;
    memcpy(conn->payload + conn->payload_length, data, piece);
    conn->payload_length += piece;
    conn->left -= (uint32_t)piece;
    if (conn->left == 0) {
        uint8_t *payload = conn->payload;
        conn->payload = NULL;
        take_payload(conn, payload, conn->payload_length);
        free(payload);
    }
    return piece;
}

static size_t feed_data(struct conn *conn, const uint8_t *data, size_t length) {
    size_t piece = conn->left < length ? conn->left : length;
    struct stream *stream = conn->data_stream;
    conn->left -= (uint32_t)piece;
    bool last = conn->left == 0;
    bool whole_call = last && !conn->padded && conn->flags & NGHTTP2_FLAG_END_STREAM;
    if (whole_call) { /* take_data ends the call, and so the frame */
        conn->data_stream = NULL;
        conn->phase = IN_HEAD;
    }
    if (stream != NULL)
        take_data(conn, stream, data, piece, whole_call);
    if (last && conn->phase == IN_DATA)
        end_data(conn);
    return piece;
}

static size_t feed_skip(struct conn *conn, size_t length) {
    size_t piece = conn->left < length ? conn->left : length;
    conn->left -= (uint32_t)piece;
    if (conn->left > 0)
        return piece;
    if (conn->type == NGHTTP2_DATA) {
        conn->padding = 0;
        end_data(conn);
    } else {
        conn->phase = IN_HEAD;
    }
    return piece;
}

size_t conn_feed(struct conn *conn, const uint8_t *data, size_t length) {
    size_t taken = 0;
    while (taken < length) {
        const uint8_t *next = data + taken;
        size_t more = length - taken;
        switch (conn->phase) {
        case IN_PREFACE:
            taken += feed_preface(conn, next, more);
            break;
        case IN_HEAD:
            if (conn->output_end - conn->output_start > OUTPUT_HIGH)
                return taken;
            taken += feed_head(conn, next, more);
            break;
        case IN_PAYLOAD:
            taken += feed_payload(conn, next, more);
            break;
        case IN_PAD_LENGTH:
            take_pad_length(conn, *next);
            taken++;
            break;
        case IN_DATA:
            taken += feed_data(conn, next, more);
            break;
        case IN_SKIP:
            taken += feed_skip(conn, more);
            break;
        case ENDED:
            return length;
        }
    }
    return taken;
}

size_t conn_room(const struct conn *conn, uint8_t **where, size_t *after) {
    const struct stream *stream = conn->data_stream;
    *after = conn->bulk > 0 ? BULK_AFTER : SIZE_MAX;
    if (conn->phase != IN_DATA || stream == NULL || stream->buffer == NULL)
        return 0;
    size_t room = stream->length - stream->have;
    *where = stream->buffer->data + stream->have;
    return room < conn->left ? room : conn->left;
}

size_t conn_owed(const struct conn *conn) { return conn->owed; }

const uint8_t *conn_output(const struct conn *conn, size_t *length) {
    *length = conn->output_end - conn->output_start;
    return *length > 0 ? conn->output + conn->output_start : NULL;
}

void conn_sent(struct conn *conn, size_t length) {
    conn->output_start += length;
    if (conn->output_start != conn->output_end)
        return;
    conn->output_start = conn->output_end = 0;
    if (conn->blocked > 0 && conn->phase != ENDED)
        answer_blocked(conn);
}

void conn_hurry(struct conn *conn) {
    if (conn->shut_until == 0 || conn->shared->now < conn->shut_until || conn->phase == ENDED)
        return;
    put_window_setting(conn, stream_window(conn));
    conn->shut_until = 0;
}

bool conn_aborted(const struct conn *conn) { return conn->aborted; }

int64_t conn_due(const struct conn_shared *shared) {
    return shared->first_later != NULL ? shared->first_later->answer_at : INT64_MAX;
}

void *conn_next_due(struct conn_shared *shared) {
    struct stream *stream = shared->first_later;
    if (stream == NULL || stream->answer_at > shared->now)
        return NULL;
    struct conn *conn = stream->conn;
    stream_not_later(shared, stream);
    if (conn->phase != ENDED)
        stream_answer(conn, stream);
    return conn->owner;
}

bool conn_ended(const struct conn *conn) { return conn->phase == ENDED; }

void conn_goaway(struct conn *conn) {
    if (conn->phase != IN_PREFACE && conn->phase != ENDED) {
        put_goaway(conn, NGHTTP2_NO_ERROR);
    }
    conn->phase = ENDED;
}

void conn_tick(struct conn *conn) {
    struct conn_shared *shared = conn->shared;
    const struct conn_limits *limits = &shared->limits;
    int64_t now = shared->now;
    if (conn->phase == ENDED)
        return;
    conn->nuisance -= conn->nuisance < NUISANCE_PER_TICK ? conn->nuisance : NUISANCE_PER_TICK;
    if (!conn->settings_seen) {
        if (now - conn->accepted > limits->handshake_timeout) {
            shared->breaches++;
            conn_goaway(conn);
        }
        return;
    }
    bool resting = conn->phase == IN_HEAD && conn->gathered_length == 0 && conn->block_stream == 0;
    while (conn->oldest != NULL && now - conn->oldest->opened > limits->request_timeout) {
        struct stream *stream = conn->oldest;
        if (stream->opened_answer)
            stream_breach(conn, stream, NGHTTP2_CANCEL);
        else
            stream_refuse(conn, stream, NULL, GRPC_DEADLINE_EXCEEDED, "the call took too long");
    }
    if (!resting && now - conn->frame_since > limits->request_timeout)
        breach(conn, NGHTTP2_ENHANCE_YOUR_CALM);
    if (resting && conn->oldest == NULL && now - conn->active > limits->idle_timeout)
        conn_goaway(conn);
}

struct conn *conn_new(struct conn_shared *shared, void *owner) {
    struct conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL)
        return NULL;
    if (!head_reader_init(&conn->heads)) {
        free(conn);
        return NULL;
    }
    conn->shared = shared;
    conn->owner = owner;
    conn->send_window = conn->peer_initial_window = WINDOW_DEFAULT;
    conn->receive_window = WINDOW_DEFAULT;
    conn->accepted = conn->frame_since = conn->active = shared->now;
    return conn;
}

void conn_free(struct conn *conn) {
    while (conn->oldest != NULL)
        stream_close(conn, conn->oldest);
    head_reader_clear(&conn->heads);
    free(conn->payload);
    free(conn->block);
    free(conn->output);
    free(conn);
}

void conn_shared_init(struct conn_shared *shared, const struct conn_limits *limits,
                      size_t max_buffered, conn_deliver deliver, void *context) {
    memset(shared, 0, sizeof *shared);
    shared->limits = *limits;
    shared->deliver = deliver;
    shared->context = context;
    pool_init(&shared->pool, max_buffered);
}

void conn_shared_clear(struct conn_shared *shared) {
    while (shared->free_streams != NULL) {
        struct stream *stream = shared->free_streams;
        shared->free_streams = stream->chain;
        free(stream);
    }
    pool_clear(&shared->pool);
    gunzip_clear(&shared->gunzip);
    unzstd_clear(&shared->unzstd);
}
