#include "receiver_conn_private.h"

#include <stdlib.h>
#include <string.h>

enum { CONTINUATIONS_MAX = 32 }; /* frames of one header block */

/* Decodes a whole block, which has to be done even for streams that are gone, because the tables
 * of both sides must agree. Ends the connection and returns false when that fails. */
static bool read_block(struct conn *conn, const uint8_t *block, size_t length, struct head *head) {
    switch (head_read(&conn->heads, block, length, head)) {
    case HEAD_BAD_CODE:
        connection_error(conn, NGHTTP2_COMPRESSION_ERROR); /* RFC 9113, 4.3 */
        return false;
    case HEAD_TOO_LARGE: /* an HPACK bomb: few bytes, many headers */
        connection_error(conn, NGHTTP2_ENHANCE_YOUR_CALM);
        return false;
    case HEAD_READ:
        break;
    }
    return true;
}

static void begin_call(struct conn *conn, uint32_t id, bool ends, const struct head *head) {
    conn->last_stream = id;
    if (conn->leaving) { /* it came after our GOAWAY, which the peer has not seen yet */
        conn->ended_early = true;
        count_abuse(conn);
        return;
    }
    if (conn->streams >= conn->shared->limits.max_streams) {
        output_reset(conn, id, NGHTTP2_REFUSED_STREAM); /* RFC 9113, 5.1.2 */
        conn->ended_early = true;
        count_abuse(conn);
        return;
    }
    struct stream *stream = stream_open(conn, id);
    if (stream == NULL) {
        connection_error(conn, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    stream->encoding = (uint8_t)head->encoding;
    stream->content_length = head->content_length;
    stream->ended = ends;
    if (!head_is_request(head))
        stream_error(conn, stream, NGHTTP2_PROTOCOL_ERROR); /* RFC 9113, 8.1.1 */
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
        if (!stream_may_be_late(conn, id))
            connection_error(conn, NGHTTP2_STREAM_CLOSED);
        else
            count_abuse(conn);
    } else if (stream->ended) {
        stream_error(conn, stream, NGHTTP2_STREAM_CLOSED);
    } else if (!ends || !head_is_trailers(&head)) {
        stream_error(conn, stream, NGHTTP2_PROTOCOL_ERROR); /* trailers: RFC 9113, 8.1 */
    } else {
        message_end(conn, stream, NULL);
    }
}

/* Adds to the header block that is open; the frames of one are counted as well as its bytes, since
 * empty CONTINUATION frames cost the sender next to nothing (CVE-2024-28182). */
static void take_fragment(struct conn *conn, const uint8_t *data, size_t length) {
    if (++conn->block_frames > CONTINUATIONS_MAX || conn->block_length + length > BLOCK_MAX) {
        connection_error(conn, NGHTTP2_ENHANCE_YOUR_CALM);
        return;
    }
    if (conn->block == NULL && (conn->block = malloc(BLOCK_MAX)) == NULL) {
        connection_error(conn, NGHTTP2_INTERNAL_ERROR);
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
    if (id % 2 == 0) { /* RFC 9113, 5.1.1 */
        connection_error(conn, NGHTTP2_PROTOCOL_ERROR);
        return;
    }
    uint32_t code = h2_strip_headers(conn->flags, &data, &length);
    if (code != NGHTTP2_NO_ERROR) {
        connection_error(conn, code);
        return;
    }
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

/* RFC 9113, 6.5.2: unknown ones are ignored. */
static void take_setting(struct conn *conn, uint16_t id, uint32_t value) {
    uint32_t code = h2_check_setting(id, value);
    if (code != NGHTTP2_NO_ERROR) {
        connection_error(conn, code);
    } else if (id == NGHTTP2_SETTINGS_HEADER_TABLE_SIZE) {
        /* A smaller table must be acknowledged in the next block (RFC 7541, 4.2); we then do
         * without it, which is simpler than to fit in. */
        if (value < H2_TABLE_SIZE && !conn->table_unused) {
            conn->table_shrunk = conn->table_unused = true;
            conn->type_in_table = conn->success_in_table = false;
        }
    } else if (id == NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE) {
        /* RFC 9113, 6.9.2: the windows of open streams move along, below zero if need be. */
        for (struct stream *s = conn->oldest; s != NULL; s = s->newer) {
            s->window += (int64_t)value - conn->peer_initial_window;
            if (s->window > H2_WINDOW_MAX)
                connection_error(conn, NGHTTP2_FLOW_CONTROL_ERROR);
        }
        conn->peer_initial_window = value;
    }
}

static void take_settings(struct conn *conn, const uint8_t *data, size_t length) {
    if (conn->flags & NGHTTP2_FLAG_ACK) {
        count_abuse(conn);
        return;
    }
    for (; length > 0 && conn->phase != ENDED; data += H2_SETTING, length -= H2_SETTING)
        take_setting(conn, (uint16_t)(data[0] << 8 | data[1]), h2_get32(data + 2));
    if (conn->phase == ENDED)
        return;
    output_frame(conn, 0, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0);
    conn->settings_seen = true;
    count_abuse(conn);
    answer_blocked(conn);
}

static void take_ping(struct conn *conn, const uint8_t *data) {
    if (!(conn->flags & NGHTTP2_FLAG_ACK))
        memcpy(output_frame(conn, 8, NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0), data, 8);
    count_abuse(conn);
}

/* RFC 9113, 6.9 */
static void take_window_update(struct conn *conn, const uint8_t *data) {
    uint32_t increment = h2_get32(data) & INT32_MAX;
    struct stream *stream = NULL;
    count_abuse(conn);
    if (conn->phase == ENDED)
        return;
    if (conn->frame_stream != 0 && (stream = stream_find(conn, conn->frame_stream)) == NULL) {
        if (increment == 0)
            output_reset(conn, conn->frame_stream, NGHTTP2_PROTOCOL_ERROR);
        return; /* it may have been on its way when the stream ended */
    }
    int64_t *window = stream != NULL ? &stream->window : &conn->send_window;
    *window += increment;
    if (increment > 0 && *window <= H2_WINDOW_MAX) {
        if (stream == NULL)
            answer_blocked(conn);
        else if (stream->answering)
            stream_answer(conn, stream);
        return;
    }
    uint32_t code = increment == 0 ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_FLOW_CONTROL_ERROR;
    if (stream != NULL)
        stream_error(conn, stream, code);
    else
        connection_error(conn, code);
}

/* A client that gives up a call: nothing of it counts. */
static void take_reset(struct conn *conn) {
    struct stream *stream = stream_find(conn, conn->frame_stream);
    if (stream != NULL)
        stream_close(conn, stream);
    conn->resets[conn->next_reset++ % RESETS_KNOWN] = conn->frame_stream;
    count_abuse(conn);
}

void take_payload(struct conn *conn, const uint8_t *data, size_t length) {
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
        count_abuse(conn);
        break;
    }
}
