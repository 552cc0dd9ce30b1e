#include "wire_conn.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    DATA,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    PUSH_PROMISE,
    PING,
    GOAWAY,
    WINDOW_UPDATE,
    CONTINUATION
};
enum {
    FLAG_END_STREAM = 1,
    FLAG_ACK = 1,
    FLAG_END_HEADERS = 4,
    FLAG_PADDED = 8,
    FLAG_PRIORITY = 32
};
enum {
    NO_ERROR,
    PROTOCOL_ERROR,
    INTERNAL_ERROR,
    FLOW_CONTROL_ERROR,
    SETTINGS_TIMEOUT,
    STREAM_CLOSED,
    FRAME_SIZE_ERROR,
    REFUSED_STREAM,
    CANCEL,
    COMPRESSION_ERROR,
    CONNECT_ERROR,
    ENHANCE_YOUR_CALM
};
enum { SET_TABLE = 1, SET_PUSH, SET_STREAMS, SET_WINDOW, SET_FRAME, SET_FIELDS };
enum { WINDOW_MAX = INT32_MAX, SECOND = 1000000000 };

static const char PREFACE[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const char *wire_error_name(uint32_t code) {
    static const char *const NAMES[] = {
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    };
    return code < sizeof NAMES / sizeof *NAMES ? NAMES[code] : "an unknown code";
}

int wire_conn_error(struct wire_conn *conn, uint32_t code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(conn->reason, sizeof conn->reason, format, arguments);
    va_end(arguments);
    conn->error = code;
    return -1;
}

void wire_conn_describe(const struct wire_conn *conn, char *out, size_t room) {
    const uint8_t *bytes = conn->input;
    size_t length = conn->input_length;
    if (length == 0) {
        snprintf(out, room, "it says nothing");
    } else if (length >= 5 && memcmp(bytes, "HTTP/", 5) == 0) {
        snprintf(out, room, "it speaks HTTP/1, not HTTP/2");
    } else if (length >= 14 && memcmp(bytes, PREFACE, 14) == 0) {
        snprintf(out, room, "it echoes what it is sent");
    } else if (length >= 2 && (bytes[0] == 21 || bytes[0] == 22) && bytes[1] == 3) {
        snprintf(out, room, "it speaks TLS");
    } else {
        size_t at = 0;
        char text[33];
        for (; at < length && at < sizeof text - 1; at++)
            text[at] = bytes[at] >= 32 && bytes[at] < 127 ? (char)bytes[at] : '.';
        text[at] = 0;
        snprintf(out, room, "it does not speak HTTP/2: its first bytes are \"%s\"", text);
    }
}

/* Bytes of numbers, big-endian. */

static uint32_t get32(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put32(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

static uint8_t *put_frame(uint8_t *at, size_t length, int type, int flags, uint32_t stream) {
    put32(at, (uint32_t)length << 8 | (uint32_t)type);
    at[4] = (uint8_t)flags;
    put32(at + 5, stream);
    return at + WIRE_FRAME_HEADER;
}

/* Streams by ID. */

static uint32_t place(const struct wire_conn *conn, uint32_t id) { return (id >> 1) & conn->mask; }

static struct wire_stream *find(const struct wire_conn *conn, uint32_t id) {
    for (uint32_t i = place(conn, id);; i = (i + 1) & conn->mask) {
        struct wire_stream *stream = conn->streams[i];
        if (stream == NULL || stream->id == id)
            return stream;
    }
}

static void insert(struct wire_conn *conn, struct wire_stream *stream) {
    uint32_t i = place(conn, stream->id);
    while (conn->streams[i] != NULL)
        i = (i + 1) & conn->mask;
    conn->streams[i] = stream;
    conn->count++;
}

static void erase(struct wire_conn *conn, const struct wire_stream *stream) {
    uint32_t hole = place(conn, stream->id);
    while (conn->streams[hole] != stream)
        hole = (hole + 1) & conn->mask;
    /* Move back what would no longer be found across the hole. */
    for (uint32_t i = (hole + 1) & conn->mask; conn->streams[i] != NULL; i = (i + 1) & conn->mask) {
        uint32_t home = place(conn, conn->streams[i]->id);
        if (((i - home) & conn->mask) >= ((i - hole) & conn->mask)) {
            conn->streams[hole] = conn->streams[i];
            hole = i;
        }
    }
    conn->streams[hole] = NULL;
    conn->count--;
}

/* Life and death. */

int wire_conn_init(struct wire_conn *conn, uint32_t capacity, const struct wire_owner *owner,
                   const struct wire_field *fields, size_t count, int64_t *held_bytes) {
    uint32_t size = 16;
    memset(conn, 0, sizeof *conn);
    conn->fd = -1;
    conn->owner = owner;
    conn->fields = fields;
    conn->field_count = count;
    conn->held_bytes = held_bytes;
    while (size < 4 * capacity)
        size *= 2;
    conn->mask = size - 1;
    conn->streams = calloc(size, sizeof *conn->streams);
    /* One RST_STREAM for each stream, and the other kinds, which are bounded. */
    conn->control_room = 8192 + 16 * (size_t)capacity;
    conn->control = malloc(conn->control_room);
    return conn->streams != NULL && conn->control != NULL ? 0 : -1;
}

void wire_conn_free(struct wire_conn *conn) {
    wire_tls_end(conn->tls, conn->fd);
    if (conn->fd >= 0)
        close(conn->fd);
    if (conn->inflater != NULL)
        nghttp2_hd_inflate_del(conn->inflater);
    gunzip_clear(&conn->gunzip);
    unzstd_clear(&conn->unzstd);
    free(conn->streams);
    free(conn->control);
}

/* Room for a control frame; NULL when there is none left, which ends the connection. */
static uint8_t *control(struct wire_conn *conn, size_t length) {
    if (length > conn->control_room - conn->control_length) {
        conn->overflow = true;
        return NULL;
    }
    conn->control_length += length;
    return conn->control + conn->control_length - length;
}

static void send_window_update(struct wire_conn *conn, uint32_t increment) {
    uint8_t *at = control(conn, WIRE_FRAME_HEADER + 4);
    if (at != NULL)
        put32(put_frame(at, 4, WINDOW_UPDATE, 0, 0), increment);
}

static void send_reset(struct wire_conn *conn, uint32_t stream, uint32_t code) {
    uint8_t *at = control(conn, WIRE_FRAME_HEADER + 4);
    if (at != NULL)
        put32(put_frame(at, 4, RST_STREAM, 0, stream), code);
}

int wire_conn_start(struct wire_conn *conn, int fd) {
    static const struct {
        uint16_t key;
        uint32_t value;
    } OURS[] = {
        {SET_PUSH, 0},
        {SET_WINDOW, WIRE_RESPONSE_MAX + WIRE_WINDOW_DEFAULT},
        {SET_FIELDS, WIRE_FIELDS_BYTES_MAX},
    };
    if (conn->inflater != NULL)
        nghttp2_hd_inflate_del(conn->inflater);
    conn->inflater = NULL;
    if (nghttp2_hd_inflate_new(&conn->inflater) != 0)
        return -1;

    conn->state = WIRE_GREETING;
    conn->fd = fd;
    conn->answered = false;
    conn->reason[0] = 0;
    conn->error = NO_ERROR;
    conn->max_frame = WIRE_FRAME_DEFAULT;
    conn->max_streams = UINT32_MAX; /* until the peer says (RFC 9113, 6.5.2) */
    conn->initial_window = WIRE_WINDOW_DEFAULT;
    conn->window = WIRE_WINDOW_DEFAULT;
    conn->table = WIRE_TABLE_DEFAULT;
    conn->first_sent = false;
    conn->next_id = 1;
    conn->writing = NULL;
    conn->writing_tail = &conn->writing;
    conn->iov_count = conn->iov_at = conn->arena_length = conn->burst_bytes = 0;
    conn->sealed = conn->blocked = conn->overflow = conn->refill = false;
    conn->burst = 1;
    conn->framed = conn->written = 0;
    conn->held_count = 0;
    conn->control_length = conn->control_in_burst = 0;
    conn->acks = 0;
    conn->input_length = 0;
    conn->block_stream = 0;
    conn->received = 0;
    conn->idle_frames = 0;
    conn->late_frames = 0;
    if (wire_headers_encode(&conn->headers, conn->fields, conn->field_count, WIRE_TABLE_DEFAULT,
                            0) < 0)
        return -1;

    size_t count = sizeof OURS / sizeof *OURS;
    uint8_t *at = control(conn, sizeof PREFACE - 1);
    memcpy(at, PREFACE, sizeof PREFACE - 1);
    at = control(conn, WIRE_FRAME_HEADER + 6 * count);
    at = put_frame(at, 6 * count, SETTINGS, 0, 0);
    for (size_t i = 0; i < count; i++, at += 6) {
        at[0] = 0;
        at[1] = (uint8_t)OURS[i].key;
        put32(at + 2, OURS[i].value);
    }
    send_window_update(conn, WIRE_RECEIVE_WINDOW - WIRE_WINDOW_DEFAULT);
    return 0;
}

static void let_go(struct wire_chunk *chunk) {
    if (--chunk->holds > 0 || chunk->spare == NULL)
        return;
    chunk->generation++;
    chunk->next = *chunk->spare;
    *chunk->spare = chunk;
}

void wire_stream_release(struct wire_stream *stream) {
    if (stream->holding)
        let_go(stream->chunk);
    stream->holding = false;
}

static void burst_gone(struct wire_conn *conn) {
    for (size_t i = 0; i < conn->held_count; i++)
        let_go(conn->held[i]);
    conn->held_count = 0;
    conn->iov_count = conn->iov_at = conn->arena_length = conn->burst_bytes = 0;
    conn->control_length -= conn->control_in_burst;
    memmove(conn->control, conn->control + conn->control_in_burst, conn->control_length);
    conn->control_in_burst = 0;
    conn->sealed = false;
    conn->burst++;
    conn->refill = true;
}

/* As sendmsg. */
static ssize_t write_pieces(struct wire_conn *conn, const struct iovec *pieces, size_t count) {
    if (conn->tls != NULL)
        return wire_tls_send(conn->tls, conn->fd, pieces, count);
    const struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)pieces,
                                   .msg_iovlen = count};
    return sendmsg(conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void wire_conn_close(struct wire_conn *conn) {
    if (conn->fd >= 0) {
        uint8_t bytes[WIRE_FRAME_HEADER + 8];
        uint8_t *at = put_frame(bytes, 8, GOAWAY, 0, 0);
        put32(at, 0);
        put32(at + 4, conn->error);
        /* A courtesy: only where it would not stand in the middle of another frame. */
        const struct iovec piece = {bytes, sizeof bytes};
        if (conn->state >= WIRE_GREETING && !conn->sealed)
            (void)!write_pieces(conn, &piece, 1);
        wire_tls_end(conn->tls, conn->fd);
        close(conn->fd);
    }
    conn->tls = NULL;
    conn->fd = -1;
    conn->state = WIRE_FREE;
    burst_gone(conn);
}

/* Sending. */

/* Adds bytes to the burst: a new piece, or more of the last one when they follow it in memory. */
static void add(struct wire_conn *conn, const uint8_t *bytes, size_t length) {
    struct iovec *last = conn->iov_count > 0 ? &conn->iov[conn->iov_count - 1] : NULL;
    if (last != NULL && (const uint8_t *)last->iov_base + last->iov_len == bytes) {
        last->iov_len += length;
    } else {
        conn->iov[conn->iov_count++] = (struct iovec){(void *)(uintptr_t)bytes, length};
    }
    conn->burst_bytes += length;
    conn->framed += length;
}

/* Room for the header of a DATA frame with the gRPC prefix, its bytes, and the control frames. */
static bool burst_full(const struct wire_conn *conn) {
    return conn->sealed || conn->burst_bytes >= WIRE_BURST || conn->iov_count + 3 > WIRE_IOVECS ||
           conn->arena_length + WIRE_FRAME_HEADER + WIRE_GRPC_PREFIX > WIRE_ARENA;
}

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

/* Frames as much of the stream as the windows and the burst have room for. */
static void frame_data(struct wire_conn *conn, struct wire_stream *stream) {
    const int64_t total = WIRE_GRPC_PREFIX + stream->length;
    while (stream->framed < total && !burst_full(conn)) {
        int64_t window = min64(conn->window, conn->initial_window + stream->window);
        int64_t length = min64(total - stream->framed, min64(window, conn->max_frame));
        if (length <= 0)
            break;
        uint8_t *start = conn->arena + conn->arena_length;
        bool last = stream->framed + length == total;
        uint8_t *at =
            put_frame(start, (size_t)length, DATA, last ? FLAG_END_STREAM : 0, stream->id);
        int64_t rest = length;
        if (stream->framed < WIRE_GRPC_PREFIX) {
            uint8_t prefix[WIRE_GRPC_PREFIX] = {stream->compressed}; /* and the length */
            put32(prefix + 1, (uint32_t)stream->length);
            int64_t part = min64(length, WIRE_GRPC_PREFIX - stream->framed);
            memcpy(at, prefix + stream->framed, (size_t)part);
            at += part;
            rest -= part;
        }
        conn->arena_length += (size_t)(at - start);
        add(conn, start, (size_t)(at - start));
        if (rest > 0) {
            int64_t from = stream->framed + (length - rest) - WIRE_GRPC_PREFIX;
            add(conn, stream->data + from, (size_t)rest);
            stream->burst = conn->burst;
        }
        stream->framed += length;
        stream->window -= length;
        conn->window -= length;
    }
}

/* The burst takes over the hold on the bytes that it points to. */
static void hand_over(struct wire_conn *conn, struct wire_stream *stream) {
    if (stream->holding && stream->burst == conn->burst) {
        conn->held[conn->held_count++] = stream->chunk;
        stream->holding = false;
    }
    wire_stream_release(stream);
}

static bool all_framed(const struct wire_stream *stream) {
    return stream->framed == WIRE_GRPC_PREFIX + stream->length;
}

bool wire_conn_takes(const struct wire_conn *conn) {
    return conn->state == WIRE_OPEN && conn->window > 0 && conn->count < conn->max_streams &&
           conn->count <= conn->mask / 2 && conn->next_id <= INT32_MAX && !burst_full(conn) &&
           conn->arena_length + conn->headers.first_length + 3 * WIRE_FRAME_HEADER < WIRE_ARENA;
}

void wire_conn_open(struct wire_conn *conn, struct wire_stream *stream) {
    bool first = !conn->first_sent;
    const uint8_t *block = first ? conn->headers.first : conn->headers.later;
    size_t length = first ? conn->headers.first_length : conn->headers.later_length;
    stream->conn = conn;
    stream->id = conn->next_id;
    conn->next_id += 2;
    stream->framed = 0;
    stream->window = 0;
    stream->burst = 0;
    stream->begins = conn->framed;
    stream->queued = false;
    stream->http_status = stream->informational = stream->content = 0;
    stream->encoding = WIRE_IDENTITY;
    stream->body_length = 0;
    insert(conn, stream);

    uint8_t *start = conn->arena + conn->arena_length;
    memcpy(put_frame(start, length, HEADERS, FLAG_END_HEADERS, stream->id), block, length);
    conn->arena_length += WIRE_FRAME_HEADER + length;
    conn->first_sent = true;
    add(conn, start, WIRE_FRAME_HEADER + length);
    frame_data(conn, stream);
    if (all_framed(stream)) {
        hand_over(conn, stream);
    } else {
        stream->next = NULL;
        stream->queued = true;
        *conn->writing_tail = stream;
        conn->writing_tail = &stream->next;
    }
}

void wire_conn_fill(struct wire_conn *conn) {
    if (!conn->refill || conn->sealed)
        return;
    conn->refill = false;
    struct wire_stream **link = &conn->writing;
    while (*link != NULL) {
        struct wire_stream *stream = *link;
        if (burst_full(conn)) {
            conn->refill = true;
            return;
        }
        if (conn->window <= 0)
            return;
        frame_data(conn, stream);
        if (all_framed(stream)) {
            *link = stream->next;
            if (*link == NULL)
                conn->writing_tail = link;
            stream->queued = false;
            hand_over(conn, stream);
        } else {
            link = &stream->next;
        }
    }
}

bool wire_conn_has_output(const struct wire_conn *conn) {
    return conn->iov_count > 0 || conn->control_length > 0 ||
           (conn->tls != NULL && wire_tls_pending(conn->tls));
}

static int write_failed(struct wire_conn *conn) {
    if (conn->tls != NULL && errno == EPROTO)
        return wire_conn_error(conn, NO_ERROR, "%s", wire_tls_reason(conn->tls));
    return wire_conn_error(conn, NO_ERROR, "writing failed: %s", strerror(errno));
}

int wire_conn_flush(struct wire_conn *conn) {
    if (conn->overflow)
        return wire_conn_error(conn, ENHANCE_YOUR_CALM,
                               "it wants more answers than it is willing to read");
    if (conn->tls != NULL && wire_tls_pending(conn->tls) && write_pieces(conn, NULL, 0) < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : write_failed(conn);
    if (!conn->sealed && conn->control_length > 0) {
        conn->control_in_burst = conn->control_length;
        conn->acks = 0;
        add(conn, conn->control, conn->control_length);
    }
    while (conn->iov_at < conn->iov_count) {
        ssize_t sent = write_pieces(conn, conn->iov + conn->iov_at, conn->iov_count - conn->iov_at);
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK) {
                conn->sealed = true;
                return 0;
            }
            return write_failed(conn);
        }
        conn->written += (uint64_t)sent;
        size_t rest = (size_t)sent;
        while (conn->iov_at < conn->iov_count && rest >= conn->iov[conn->iov_at].iov_len)
            rest -= conn->iov[conn->iov_at++].iov_len;
        if (rest > 0) {
            struct iovec *piece = &conn->iov[conn->iov_at];
            piece->iov_base = (uint8_t *)piece->iov_base + rest;
            piece->iov_len -= rest;
        }
        if (conn->iov_at < conn->iov_count)
            conn->sealed = true;
    }
    burst_gone(conn);
    return conn->tls == NULL || !wire_tls_pending(conn->tls);
}

/* Ends of streams. */

static void drop_body(struct wire_conn *conn, struct wire_stream *stream) {
    if (stream->body != NULL && stream->body != stream->small) {
        *conn->held_bytes -= stream->body_room;
        free(stream->body);
    }
    stream->body = NULL;
    stream->body_length = 0;
}

void wire_conn_forget(struct wire_conn *conn, struct wire_stream *stream) {
    erase(conn, stream);
    if (stream->queued) {
        struct wire_stream **link = &conn->writing;
        while (*link != stream)
            link = &(*link)->next;
        *link = stream->next;
        if (*link == NULL)
            conn->writing_tail = link;
        stream->queued = false;
    }
    hand_over(conn, stream);
    drop_body(conn, stream);
    conn->late_frames += WIRE_LATE_FRAMES;
    stream->conn = NULL;
}

void wire_conn_cancel(struct wire_conn *conn, struct wire_stream *stream) {
    send_reset(conn, stream->id, CANCEL);
    wire_conn_forget(conn, stream);
}

/* `message` must not point into the stream's body. */
static void end(struct wire_conn *conn, struct wire_stream *stream, const struct wire_end *how) {
    wire_conn_forget(conn, stream);
    conn->owner->ended(conn->owner->context, stream, how);
}

/* The peer has answered in full; if the request is still on its way, there is no use for it
 * (RFC 9113, 8.1). */
static void answered(struct wire_conn *conn, struct wire_stream *stream,
                     const struct wire_end *how) {
    if (!all_framed(stream))
        send_reset(conn, stream->id, CANCEL);
    conn->answered = true;
    end(conn, stream, how);
}

/* The answer is of no use. `over`: the peer has already ended the stream. */
static void invalid(struct wire_conn *conn, struct wire_stream *stream, bool over, uint32_t code,
                    const char *message) {
    struct wire_end how = {WIRE_INVALID_RESPONSE, 0, -1, false, message, strlen(message)};
    if (!over || !all_framed(stream))
        send_reset(conn, stream->id, code);
    end(conn, stream, &how);
}

/* Decompresses a response's message. */
static bool unpack(struct wire_conn *conn, const struct wire_stream *stream,
                   const uint8_t **message, size_t *length) {
    bool zstd = stream->encoding == WIRE_ZSTD;
    if ((zstd ? unzstd_message(&conn->unzstd, *message, *length, WIRE_UNPACKED_MAX)
              : gunzip_message(&conn->gunzip, *message, *length, WIRE_UNPACKED_MAX)) != GUNZIP_OK)
        return false;
    *message = zstd ? conn->unzstd.out : conn->gunzip.out;
    *length = zstd ? conn->unzstd.length : conn->gunzip.length;
    return true;
}

/* What the response's message says; NULL or what is wrong with it. */
static const char *read_body(struct wire_conn *conn, const struct wire_stream *stream,
                             struct wire_end *how) {
    const uint8_t *error = NULL;
    size_t error_length = 0;
    if (stream->body_length < WIRE_GRPC_PREFIX)
        return "grpc-status 0 without a response message";
    if (get32(stream->body + 1) != stream->body_length - WIRE_GRPC_PREFIX)
        return "the response message is cut off";
    const uint8_t *message = stream->body + WIRE_GRPC_PREFIX;
    size_t length = stream->body_length - WIRE_GRPC_PREFIX;
    if (stream->body[0] == 1 && !unpack(conn, stream, &message, &length))
        return "the response does not decompress to 64 KiB at most";
    if (wire_partial_success(message, length, &how->rejected, &error, &error_length) < 0)
        return "the response is not an ExportTraceServiceResponse";
    if (how->rejected < 0 || (how->rejected > stream->spans && !stream->hello))
        return "partial_success rejects more spans than were sent";
    how->message = (const char *)error;
    how->message_length = error_length < WIRE_MESSAGE_MAX ? error_length : WIRE_MESSAGE_MAX;
    return NULL;
}

/* The stream has ended with the fields in conn->answer, or without trailers (NULL). */
static void conclude(struct wire_conn *conn, struct wire_stream *stream,
                     const struct wire_answer *answer) {
    struct wire_end how = {0, 0, -1, true, "", 0};
    char text[WIRE_MESSAGE_MAX];
    int status = answer != NULL ? answer->grpc_status : WIRE_GRPC_NONE;
    if (status >= 0 && stream->content == 1) {
        how.status = status;
        how.message = answer->message;
        how.message_length = answer->message_length;
        how.retry_delay = answer->retry_delay;
        if (status == WIRE_OK) {
            const char *wrong = read_body(conn, stream, &how);
            if (wrong != NULL) {
                invalid(conn, stream, true, CANCEL, wrong);
                return;
            }
            if (how.message_length > 0) /* it points into the body, which goes first */
                memcpy(text, how.message, how.message_length);
            how.message = text;
        }
        answered(conn, stream, &how);
    } else if (status == WIRE_GRPC_MALFORMED) {
        invalid(conn, stream, true, CANCEL, "grpc-status is not a number");
    } else if (stream->http_status != 200) {
        how.status = status >= 0 ? status : wire_http_to_grpc(stream->http_status);
        how.grpc = status >= 0;
        how.message = text;
        how.message_length = (size_t)snprintf(
            text, sizeof text, "HTTP status %d without gRPC's own answer", stream->http_status);
        answered(conn, stream, &how);
    } else {
        invalid(conn, stream, true, CANCEL,
                answer != NULL ? "trailers without grpc-status" : "the response has no trailers");
    }
}

/* Receiving. */

/* Frames that bring nothing: they cost the peer nothing either, so their rate has a cap. */
static int idle_frame(struct wire_conn *conn) {
    if (conn->now - conn->idle_since > SECOND) {
        conn->idle_since = conn->now;
        conn->idle_frames = 0;
    }
    if (++conn->idle_frames > WIRE_IDLE_FRAMES_MAX)
        return wire_conn_error(conn, ENHANCE_YOUR_CALM, "it floods us with empty frames");
    return 0;
}

/* A frame for a stream that is no longer there; only IDs that we used may come (RFC 9113, 5.1). */
static int on_closed(struct wire_conn *conn, uint32_t id) {
    if (id % 2 == 0 || id >= conn->next_id)
        return wire_conn_error(conn, PROTOCOL_ERROR, "it uses stream %u, which was never opened",
                               id);
    if (conn->late_frames > 0) {
        conn->late_frames--;
        return 0;
    }
    return idle_frame(conn);
}

/* Removes the padding (RFC 9113, 6.1). */
static int unpad(struct wire_conn *conn, int flags, const uint8_t **payload, size_t *length) {
    if ((flags & FLAG_PADDED) == 0)
        return 0;
    if (*length == 0 || (*payload)[0] >= *length)
        return wire_conn_error(conn, PROTOCOL_ERROR, "it pads a frame beyond its length");
    *length -= 1u + (*payload)[0];
    *payload += 1;
    return 0;
}

static bool can_unpack(const struct wire_stream *stream) {
    return stream->encoding == WIRE_GZIP || (UNZSTD_KNOWN && stream->encoding == WIRE_ZSTD);
}

/* Keeps the bytes of a response; NULL or what is wrong with them. */
static const char *keep(struct wire_conn *conn, struct wire_stream *stream, const uint8_t *bytes,
                        size_t length) {
    size_t needed = stream->body_length + length;
    if (stream->body == NULL) {
        stream->body = stream->small;
        stream->body_room = sizeof stream->small;
    }
    if (needed > WIRE_GRPC_PREFIX + WIRE_RESPONSE_MAX)
        return "the response is longer than 4 MiB";
    if (needed > stream->body_room) {
        uint32_t room = stream->body_room;
        while (room < needed)
            room *= 2;
        bool small = stream->body == stream->small;
        int64_t more = (int64_t)room - (small ? 0 : (int64_t)stream->body_room);
        if (*conn->held_bytes + more > WIRE_RESPONSES_MAX)
            return "the responses on their way are longer than 16 MiB together";
        uint8_t *grown = realloc(small ? NULL : stream->body, room);
        if (grown == NULL)
            return "no memory for the response";
        if (small)
            memcpy(grown, stream->small, stream->body_length);
        *conn->held_bytes += more;
        stream->body = grown;
        stream->body_room = room;
    }
    memcpy(stream->body + stream->body_length, bytes, length);
    stream->body_length += (uint32_t)length;
    if (stream->body_length >= WIRE_GRPC_PREFIX) {
        /* grpc-go answers as it was asked, whatever grpc-accept-encoding says. */
        if (stream->body[0] > 1 || (stream->body[0] == 1 && !can_unpack(stream)))
            return "the response is compressed, which was not asked for";
        if (get32(stream->body + 1) > WIRE_RESPONSE_MAX)
            return "the response is longer than 4 MiB";
        if (get32(stream->body + 1) < stream->body_length - WIRE_GRPC_PREFIX)
            return "there is more than one response message";
    }
    return NULL;
}

static int on_data(struct wire_conn *conn, int flags, uint32_t id, const uint8_t *payload,
                   size_t length) {
    conn->received += (int64_t)length;
    if (conn->received > WIRE_RECEIVE_WINDOW)
        return wire_conn_error(conn, FLOW_CONTROL_ERROR, "it sends more than the window allows");
    if (conn->received > WIRE_RECEIVE_WINDOW / 2) {
        send_window_update(conn, (uint32_t)conn->received);
        conn->received = 0;
    }
    struct wire_stream *stream = find(conn, id);
    if (stream == NULL)
        return on_closed(conn, id);
    if (unpad(conn, flags, &payload, &length) < 0)
        return -1;
    bool over = flags & FLAG_END_STREAM;
    if (stream->http_status == 0) {
        invalid(conn, stream, over, PROTOCOL_ERROR, "DATA before HEADERS");
        return 0;
    }
    if (length == 0 && !over)
        return idle_frame(conn);
    if (stream->http_status == 200) { /* of other answers only the status counts */
        const char *wrong = keep(conn, stream, payload, length);
        if (wrong != NULL) {
            invalid(conn, stream, over, CANCEL, wrong);
            return 0;
        }
    }
    if (over)
        conclude(conn, stream, NULL);
    return 0;
}

/* A header block is complete: conn->answer has its fields. */
static int on_block(struct wire_conn *conn) {
    struct wire_answer *answer = &conn->answer;
    struct wire_stream *stream = find(conn, conn->block_stream);
    bool over = conn->block_ends;
    uint32_t id = conn->block_stream;
    conn->block_stream = 0;
    if (stream == NULL)
        return on_closed(conn, id);
    bool first = stream->http_status == 0;
    if (answer->malformed || first != (answer->http_status != 0)) {
        invalid(conn, stream, over, PROTOCOL_ERROR, "malformed header fields");
        return 0;
    }
    if (first && answer->http_status < 200) { /* interim responses (RFC 9113, 8.1) */
        if (over || ++stream->informational > WIRE_INFORMATIONAL_MAX)
            invalid(conn, stream, over, PROTOCOL_ERROR, "too many interim responses");
        return 0;
    }
    if (first) {
        stream->http_status = answer->http_status;
        stream->content = answer->content;
        stream->encoding = answer->encoding;
        if (stream->http_status == 200 && stream->content != 1) {
            invalid(conn, stream, over, CANCEL, "the content-type is not application/grpc");
            return 0;
        }
    } else if (!over) {
        invalid(conn, stream, over, PROTOCOL_ERROR, "trailers that do not end the stream");
        return 0;
    }
    if (over)
        conclude(conn, stream, answer);
    return 0;
}

static int on_fragment(struct wire_conn *conn, int flags, const uint8_t *bytes, size_t length) {
    const bool final = flags & FLAG_END_HEADERS;
    conn->block_bytes += (uint32_t)length;
    /* nghttp2 older than 1.61 does not count CONTINUATION frames (CVE-2024-28182): we do. */
    if (conn->block_bytes > WIRE_BLOCK_BYTES_MAX || conn->block_frames > WIRE_CONTINUATIONS_MAX)
        return wire_conn_error(conn, ENHANCE_YOUR_CALM, "its header block does not end");
    for (;;) {
        nghttp2_nv field;
        int emitted = 0;
        ssize_t used =
            nghttp2_hd_inflate_hd2(conn->inflater, &field, &emitted, bytes, length, final);
        if (used < 0)
            return wire_conn_error(conn, COMPRESSION_ERROR, "its header block is not HPACK");
        bytes += used;
        length -= (size_t)used;
        if (emitted & NGHTTP2_HD_INFLATE_EMIT) {
            conn->block_size += field.namelen + field.valuelen + 32;
            if (++conn->block_fields > WIRE_FIELDS_MAX || conn->block_size > WIRE_FIELDS_BYTES_MAX)
                return wire_conn_error(conn, ENHANCE_YOUR_CALM, "its header fields are too many");
            wire_answer_field(&conn->answer, field.name, field.namelen, field.value,
                              field.valuelen);
        }
        if (emitted & NGHTTP2_HD_INFLATE_FINAL) {
            nghttp2_hd_inflate_end_headers(conn->inflater);
            return on_block(conn);
        }
        if (length == 0 && !(emitted & NGHTTP2_HD_INFLATE_EMIT))
            break;
    }
    if (final)
        return wire_conn_error(conn, COMPRESSION_ERROR, "its header block is not HPACK");
    return 0;
}

static int on_headers(struct wire_conn *conn, int flags, uint32_t id, const uint8_t *payload,
                      size_t length) {
    if (id % 2 == 0 || id >= conn->next_id)
        return on_closed(conn, id);
    if (unpad(conn, flags, &payload, &length) < 0)
        return -1;
    if (flags & FLAG_PRIORITY) {
        if (length < 5)
            return wire_conn_error(conn, FRAME_SIZE_ERROR, "its HEADERS are too short");
        payload += 5;
        length -= 5;
    }
    conn->block_stream = id;
    conn->block_ends = flags & FLAG_END_STREAM;
    conn->block_bytes = conn->block_frames = conn->block_fields = 0;
    conn->block_size = 0;
    wire_answer_reset(&conn->answer);
    return on_fragment(conn, flags, payload, length);
}

static int on_reset(struct wire_conn *conn, uint32_t id, const uint8_t *payload, size_t length) {
    if (length != 4)
        return wire_conn_error(conn, FRAME_SIZE_ERROR, "its RST_STREAM has a wrong length");
    struct wire_stream *stream = find(conn, id);
    if (stream == NULL)
        return on_closed(conn, id);
    uint32_t code = get32(payload);
    char text[64];
    int size = snprintf(text, sizeof text, "RST_STREAM with %s", wire_error_name(code));
    /* REFUSED_STREAM: certainly not processed (RFC 9113, 8.7). */
    struct wire_end how = {code == REFUSED_STREAM ? WIRE_REFUSED_STREAM : WIRE_STREAM_RESET,
                           0,
                           -1,
                           false,
                           text,
                           (size_t)size};
    end(conn, stream, &how);
    return 0;
}

static int acknowledge(struct wire_conn *conn, int type, const uint8_t *payload, size_t length) {
    if (++conn->acks > WIRE_ACKS_MAX)
        return wire_conn_error(conn, ENHANCE_YOUR_CALM,
                               "it wants more answers than it is willing to read");
    uint8_t *at = control(conn, WIRE_FRAME_HEADER + length);
    if (at != NULL && length > 0)
        memcpy(put_frame(at, length, type, FLAG_ACK, 0), payload, length);
    else if (at != NULL)
        put_frame(at, 0, type, FLAG_ACK, 0);
    return 0;
}

/* All streams' windows move with the initial one and may become negative (RFC 9113, 6.9.2). */
static int on_initial_window(struct wire_conn *conn, uint32_t value) {
    if (value > WINDOW_MAX)
        return wire_conn_error(conn, FLOW_CONTROL_ERROR, "its initial window is over 2^31 - 1");
    for (uint32_t i = 0; value > conn->initial_window && i <= conn->mask; i++)
        if (conn->streams[i] != NULL && conn->streams[i]->window + value > WINDOW_MAX)
            return wire_conn_error(conn, FLOW_CONTROL_ERROR, "it opens a window beyond 2^31 - 1");
    conn->initial_window = value;
    conn->refill = true;
    return idle_frame(conn); /* as it costs a walk over the streams */
}

static int on_setting(struct wire_conn *conn, uint32_t key, uint32_t value) {
    switch (key) {
    case SET_TABLE:
        if (value < conn->table) {
            conn->table = value;
            conn->first_sent = false;
            if (wire_headers_encode(&conn->headers, conn->fields, conn->field_count, value, 1) < 0)
                return wire_conn_error(conn, INTERNAL_ERROR, "no room for the header block");
        }
        return 0;
    case SET_PUSH:
        if (value != 0)
            return wire_conn_error(conn, PROTOCOL_ERROR, "it is a server and enables push");
        return 0;
    case SET_STREAMS:
        conn->max_streams = value;
        return 0;
    case SET_WINDOW:
        return on_initial_window(conn, value);
    case SET_FRAME:
        if (value < WIRE_FRAME_DEFAULT || value > 0xffffff)
            return wire_conn_error(conn, PROTOCOL_ERROR, "its maximal frame size is invalid");
        /* A burst is the unit of writing: longer frames would gain nothing. */
        conn->max_frame = value < WIRE_BURST ? value : WIRE_BURST;
        return 0;
    default:
        return 0; /* unknown ones are ignored (RFC 9113, 6.5.2) */
    }
}

static int on_settings(struct wire_conn *conn, int flags, uint32_t id, const uint8_t *payload,
                       size_t length) {
    if (id != 0)
        return wire_conn_error(conn, PROTOCOL_ERROR, "its SETTINGS are for a stream");
    if (length % 6 != 0 || ((flags & FLAG_ACK) && length != 0))
        return wire_conn_error(conn, FRAME_SIZE_ERROR, "its SETTINGS have a wrong length");
    if (idle_frame(conn) < 0)
        return -1;
    if (flags & FLAG_ACK)
        return 0;
    for (; length > 0; payload += 6, length -= 6)
        if (on_setting(conn, (uint32_t)payload[0] << 8 | payload[1], get32(payload + 2)) < 0)
            return -1;
    if (conn->state == WIRE_GREETING)
        conn->state = WIRE_OPEN;
    return acknowledge(conn, SETTINGS, NULL, 0);
}

static int on_ping(struct wire_conn *conn, int flags, uint32_t id, const uint8_t *payload,
                   size_t length) {
    if (id != 0)
        return wire_conn_error(conn, PROTOCOL_ERROR, "its PING is for a stream");
    if (length != 8)
        return wire_conn_error(conn, FRAME_SIZE_ERROR, "its PING has a wrong length");
    if (idle_frame(conn) < 0)
        return -1;
    return flags & FLAG_ACK ? 0 : acknowledge(conn, PING, payload, length);
}

static int on_goaway(struct wire_conn *conn, uint32_t id, const uint8_t *payload, size_t length) {
    if (id != 0)
        return wire_conn_error(conn, PROTOCOL_ERROR, "its GOAWAY is for a stream");
    if (length < 8)
        return wire_conn_error(conn, FRAME_SIZE_ERROR, "its GOAWAY has a wrong length");
    if (idle_frame(conn) < 0)
        return -1;
    wire_conn_error(conn, NO_ERROR, "it said GOAWAY with %s", wire_error_name(get32(payload + 4)));
    conn->state = WIRE_LEAVING;
    conn->owner->goaway(conn->owner->context, conn, get32(payload) & 0x7fffffff);
    return 0;
}

static int on_window_update(struct wire_conn *conn, uint32_t id, const uint8_t *payload,
                            size_t length) {
    if (length != 4)
        return wire_conn_error(conn, FRAME_SIZE_ERROR, "its WINDOW_UPDATE has a wrong length");
    uint32_t increment = get32(payload) & 0x7fffffff;
    if (id == 0) {
        if (increment == 0)
            return wire_conn_error(conn, PROTOCOL_ERROR, "it opens a window by 0");
        if (conn->window + increment > WINDOW_MAX)
            return wire_conn_error(conn, FLOW_CONTROL_ERROR, "it opens a window beyond 2^31 - 1");
        conn->window += increment;
        conn->refill = true;
        return 0;
    }
    struct wire_stream *stream = find(conn, id);
    if (stream == NULL) {
        if (id % 2 == 0 || id >= conn->next_id)
            return on_closed(conn, id);
        return 0; /* usual just after the end of a stream (RFC 9113, 5.1) */
    }
    if (increment == 0) {
        invalid(conn, stream, false, PROTOCOL_ERROR, "it opens a window by 0");
    } else if (conn->initial_window + stream->window + increment > WINDOW_MAX) {
        invalid(conn, stream, false, FLOW_CONTROL_ERROR, "it opens a window beyond 2^31 - 1");
    } else {
        stream->window += increment;
        conn->refill = true;
    }
    return 0;
}

static int on_frame(struct wire_conn *conn, int type, int flags, uint32_t id,
                    const uint8_t *payload, size_t length) {
    if (conn->block_stream != 0) { /* nothing may stand within a header block (RFC 9113, 4.3) */
        if (type != CONTINUATION || id != conn->block_stream)
            return wire_conn_error(conn, PROTOCOL_ERROR, "it breaks off a header block");
        conn->block_frames++;
        return on_fragment(conn, flags, payload, length);
    }
    switch (type) {
    case DATA:
        return on_data(conn, flags, id, payload, length);
    case HEADERS:
        return on_headers(conn, flags, id, payload, length);
    case RST_STREAM:
        return on_reset(conn, id, payload, length);
    case SETTINGS:
        return on_settings(conn, flags, id, payload, length);
    case PUSH_PROMISE:
        return wire_conn_error(conn, PROTOCOL_ERROR, "it pushes, which was disabled");
    case PING:
        return on_ping(conn, flags, id, payload, length);
    case GOAWAY:
        return on_goaway(conn, id, payload, length);
    case WINDOW_UPDATE:
        return on_window_update(conn, id, payload, length);
    case CONTINUATION:
        return wire_conn_error(conn, PROTOCOL_ERROR, "CONTINUATION without HEADERS");
    default:
        return idle_frame(conn); /* PRIORITY and unknown types are ignored (RFC 9113, 4.1) */
    }
}

uint8_t *wire_conn_room(struct wire_conn *conn, size_t *room) {
    *room = WIRE_INPUT - conn->input_length;
    return conn->input + conn->input_length;
}

int wire_conn_received(struct wire_conn *conn, size_t length) {
    size_t at = 0;
    conn->input_length += length;
    while (conn->input_length - at >= WIRE_FRAME_HEADER) {
        const uint8_t *frame = conn->input + at;
        size_t size = get32(frame) >> 8;
        int type = frame[3], flags = frame[4];
        uint32_t id = get32(frame + 5) & 0x7fffffff;
        /* The server's preface is SETTINGS (RFC 9113, 3.4). */
        if (conn->state == WIRE_GREETING && (type != SETTINGS || (flags & FLAG_ACK) || id != 0)) {
            char what[120];
            wire_conn_describe(conn, what, sizeof what);
            return wire_conn_error(conn, PROTOCOL_ERROR, "%s", what);
        }
        if (size > WIRE_FRAME_DEFAULT)
            return wire_conn_error(conn, FRAME_SIZE_ERROR, "its frame is longer than we allow");
        if (conn->input_length - at < WIRE_FRAME_HEADER + size)
            break;
        if (on_frame(conn, type, flags, id, frame + WIRE_FRAME_HEADER, size) < 0)
            return -1;
        at += WIRE_FRAME_HEADER + size;
    }
    conn->input_length -= at;
    memmove(conn->input, conn->input + at, conn->input_length);
    return 0;
}
