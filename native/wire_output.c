#include "wire_conn_private.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* ---- control frames ---- */

uint8_t *wire_control(struct wire_conn *conn, size_t length) {
    if (length > conn->control_room - conn->control_length) {
        conn->overflow = true;
        return NULL;
    }
    conn->control_length += length;
    return conn->control + conn->control_length - length;
}

void wire_send_window_update(struct wire_conn *conn, uint32_t increment) {
    uint8_t *at = wire_control(conn, H2_FRAME_HEADER + 4);
    if (at != NULL)
        h2_put32(h2_put_frame(at, 4, NGHTTP2_WINDOW_UPDATE, 0, 0), increment);
}

void wire_send_reset(struct wire_conn *conn, uint32_t stream, uint32_t code) {
    uint8_t *at = wire_control(conn, H2_FRAME_HEADER + 4);
    if (at != NULL)
        h2_put32(h2_put_frame(at, 4, NGHTTP2_RST_STREAM, 0, stream), code);
}

/* ---- the burst ---- */

void wire_chunk_release(struct wire_chunk *chunk) {
    if (--chunk->holds > 0 || chunk->spare == NULL)
        return;
    chunk->next = *chunk->spare;
    *chunk->spare = chunk;
}

void wire_stream_release(struct wire_stream *stream) {
    if (stream->holding)
        wire_chunk_release(stream->chunk);
    stream->holding = false;
}

void wire_end_burst(struct wire_conn *conn) {
    for (size_t i = 0; i < conn->held_count; i++)
        wire_chunk_release(conn->held[i]);
    conn->held_count = 0;
    conn->iov_count = conn->iov_at = conn->arena_length = conn->burst_bytes = 0;
    conn->control_length -= conn->control_in_burst;
    memmove(conn->control, conn->control + conn->control_in_burst, conn->control_length);
    conn->control_in_burst = 0;
    conn->sealed = false;
    conn->burst++;
    conn->refill = true;
}

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
           conn->arena_length + H2_FRAME_HEADER + GRPC_PREFIX > WIRE_ARENA;
}

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

/* Frames as much of the stream as the windows and the burst have room for. */
static void frame_data(struct wire_conn *conn, struct wire_stream *stream) {
    const int64_t total = GRPC_PREFIX + stream->length;
    while (stream->framed < total && !burst_full(conn)) {
        int64_t window = min64(conn->window, conn->initial_window + stream->window);
        int64_t length = min64(total - stream->framed, min64(window, conn->max_frame));
        if (length <= 0)
            break;
        uint8_t *start = conn->arena + conn->arena_length;
        bool last = stream->framed + length == total;
        uint8_t *at = h2_put_frame(start, (size_t)length, NGHTTP2_DATA,
                                   last ? NGHTTP2_FLAG_END_STREAM : 0, stream->id);
        int64_t rest = length;
        if (stream->framed < GRPC_PREFIX) {
            uint8_t prefix[GRPC_PREFIX] = {stream->compressed}; /* and the length */
            h2_put32(prefix + 1, (uint32_t)stream->length);
            int64_t part = min64(length, GRPC_PREFIX - stream->framed);
            memcpy(at, prefix + stream->framed, (size_t)part);
            at += part;
            rest -= part;
        }
        conn->arena_length += (size_t)(at - start);
        add(conn, start, (size_t)(at - start));
        if (rest > 0) {
            int64_t from = stream->framed + (length - rest) - GRPC_PREFIX;
            add(conn, stream->data + from, (size_t)rest);
            stream->burst = conn->burst;
        }
        stream->framed += length;
        stream->window -= length;
        conn->window -= length;
    }
}

void wire_hold_in_burst(struct wire_conn *conn, struct wire_stream *stream) {
    if (!stream->holding || stream->burst != conn->burst)
        return;
    conn->held[conn->held_count++] = stream->chunk;
    stream->chunk->holds++;
    stream->burst = 0;
}

/* All of it is in frames. */
static void hand_over(struct wire_conn *conn, struct wire_stream *stream) {
    wire_hold_in_burst(conn, stream);
    if (stream->chunk != NULL && stream->chunk->rewritable)
        wire_stream_release(stream);
}

bool wire_all_framed(const struct wire_stream *stream) {
    return stream->framed == GRPC_PREFIX + stream->length;
}

bool wire_conn_takes(const struct wire_conn *conn) {
    return conn->state == WIRE_OPEN && conn->window > 0 && conn->count < conn->max_streams &&
           conn->count <= conn->mask / 2 && conn->next_id <= INT32_MAX && !burst_full(conn) &&
           conn->arena_length + conn->headers.first_length + 3 * H2_FRAME_HEADER < WIRE_ARENA;
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
    wire_stream_insert(conn, stream);

    uint8_t *start = conn->arena + conn->arena_length;
    memcpy(h2_put_frame(start, length, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, stream->id),
           block, length);
    conn->arena_length += H2_FRAME_HEADER + length;
    conn->first_sent = true;
    add(conn, start, H2_FRAME_HEADER + length);
    frame_data(conn, stream);
    if (wire_all_framed(stream)) {
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
        if (wire_all_framed(stream)) {
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

/* ---- writing ---- */

ssize_t wire_write_pieces(struct wire_conn *conn, const struct iovec *pieces, size_t count) {
    if (conn->tls != NULL)
        return wire_tls_send(conn->tls, conn->fd, pieces, count);
    const struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)pieces,
                                   .msg_iovlen = count};
    return sendmsg(conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

bool wire_conn_has_output(const struct wire_conn *conn) {
    return conn->iov_count > 0 || conn->control_length > 0 ||
           (conn->tls != NULL && wire_tls_pending(conn->tls));
}

static int write_failed(struct wire_conn *conn) {
    if (conn->tls != NULL && errno == EPROTO)
        return wire_conn_error(conn, NGHTTP2_NO_ERROR, "%s", wire_tls_reason(conn->tls));
    return wire_conn_error(conn, NGHTTP2_NO_ERROR, "writing failed: %s", strerror(errno));
}

int wire_conn_flush(struct wire_conn *conn) {
    if (conn->overflow)
        return wire_conn_error(conn, NGHTTP2_ENHANCE_YOUR_CALM,
                               "it wants more answers than it is willing to read");
    if (conn->tls != NULL && wire_tls_pending(conn->tls) && wire_write_pieces(conn, NULL, 0) < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : write_failed(conn);
    if (!conn->sealed && conn->control_length > 0) {
        conn->control_in_burst = conn->control_length;
        conn->acks = 0;
        add(conn, conn->control, conn->control_length);
    }
    while (conn->iov_at < conn->iov_count) {
        ssize_t sent =
            wire_write_pieces(conn, conn->iov + conn->iov_at, conn->iov_count - conn->iov_at);
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
    wire_end_burst(conn);
    return conn->tls == NULL || !wire_tls_pending(conn->tls);
}
