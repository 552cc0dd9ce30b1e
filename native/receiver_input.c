#include "receiver_conn_private.h"

#include <stdlib.h>
#include <string.h>

enum {
    SETTINGS_MAX = 64, /* entries of one SETTINGS frame */
    BULK_AFTER = 4096, /* bytes read along with a bulk message: the heads of the next frames */
};

static const char HTTP1_ANSWER[] = "HTTP/1.1 505 HTTP Version Not Supported\r\n"
                                   "Content-Type: text/plain\r\n"
                                   "Content-Length: 35\r\n"
                                   "Connection: close\r\n\r\n"
                                   "This port speaks gRPC over HTTP/2.\n";

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
        output_window_update(conn, stream->id, conn->credit);
}

static void begin_data(struct conn *conn) {
    uint32_t id = conn->frame_stream, length = conn->left;
    if (id == 0 || id % 2 == 0 || id > conn->last_stream) { /* RFC 9113, 6.1 and 5.1 */
        connection_error(conn, NGHTTP2_PROTOCOL_ERROR);
        return;
    }
    conn->receive_window -= length;
    if (conn->receive_window < 0) {
        connection_error(conn, NGHTTP2_FLOW_CONTROL_ERROR);
        return;
    }
    if (conn->receive_window < H2_WINDOW_MAX / 2) {
        output_window_update(conn, 0, (uint32_t)(H2_WINDOW_MAX - conn->receive_window));
        conn->receive_window = H2_WINDOW_MAX;
    }
    struct stream *stream = stream_find(conn, id);
    if (stream == NULL && !stream_may_be_late(conn, id)) {
        connection_error(conn, NGHTTP2_STREAM_CLOSED);
        return;
    }
    if (stream != NULL && stream->ended) {
        stream_error(conn, stream, NGHTTP2_STREAM_CLOSED);
        stream = NULL;
    }
    if (length == 0 && !(conn->flags & NGHTTP2_FLAG_END_STREAM))
        count_abuse(conn);
    if (conn->phase == ENDED)
        return;
    conn->data_stream = stream;
    conn->padding = 0;
    conn->padded = (conn->flags & NGHTTP2_FLAG_PADDED) != 0;
    if (conn->padded) {
        if (length == 0)
            connection_error(conn, NGHTTP2_FRAME_SIZE_ERROR);
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
    count_abuse(conn);
    if (padding > conn->left)
        connection_error(conn, NGHTTP2_PROTOCOL_ERROR); /* RFC 9113, 6.1 */
    if (conn->phase == ENDED)
        return;
    conn->padding = padding;
    conn->credit = 1u + padding;
    conn->left -= padding;
    conn->phase = IN_DATA;
    if (conn->left == 0)
        end_data(conn);
}

/* What a client may send beyond what every peer may. Returns the code of a connection error. */
static uint32_t check_frame(const struct conn *conn, const struct h2_frame *frame) {
    uint32_t code = h2_check_frame(frame);
    if (code != NGHTTP2_NO_ERROR)
        return code;
    switch (frame->type) {
    case NGHTTP2_SETTINGS:
        return frame->length <= H2_SETTING * SETTINGS_MAX ? NGHTTP2_NO_ERROR
                                                          : NGHTTP2_ENHANCE_YOUR_CALM;
    case NGHTTP2_WINDOW_UPDATE:
    case NGHTTP2_RST_STREAM:
        /* A stream that was never opened can't be given anything, nor ended: RFC 9113, 5.1 */
        return frame->stream == 0 || (frame->stream % 2 == 1 && frame->stream <= conn->last_stream)
                   ? NGHTTP2_NO_ERROR
                   : NGHTTP2_PROTOCOL_ERROR;
    case NGHTTP2_PUSH_PROMISE:
        return NGHTTP2_PROTOCOL_ERROR; /* RFC 9113, 8.4: a client can't push */
    case NGHTTP2_HEADERS:
    case NGHTTP2_CONTINUATION:
        return frame->length <= BLOCK_MAX ? NGHTTP2_NO_ERROR : NGHTTP2_ENHANCE_YOUR_CALM;
    default:
        return NGHTTP2_NO_ERROR;
    }
}

static void begin_frame(struct conn *conn, const uint8_t head[H2_FRAME_HEADER]) {
    uint64_t largest = (uint64_t)conn->shared->limits.max_message + GRPC_PREFIX;
    if (largest < H2_FRAME_SIZE_MIN)
        largest = H2_FRAME_SIZE_MIN;
    const struct h2_frame frame = h2_get_frame(head);
    conn->left = frame.length;
    conn->type = frame.type;
    conn->flags = frame.flags;
    conn->frame_stream = frame.stream;
    if (conn->block_stream == 0)
        conn->frame_since = conn->shared->now;
    if (conn->left > largest) {
        connection_error(conn, NGHTTP2_FRAME_SIZE_ERROR);
        return;
    }
    /* RFC 9113, 3.4 and 6.10: SETTINGS come first, and nothing comes within a header block. */
    bool continues = conn->type == NGHTTP2_CONTINUATION;
    if ((!conn->settings_seen &&
         (conn->type != NGHTTP2_SETTINGS || conn->flags & NGHTTP2_FLAG_ACK)) ||
        continues != (conn->block_stream != 0) ||
        (continues && conn->frame_stream != conn->block_stream)) {
        connection_error(conn, NGHTTP2_PROTOCOL_ERROR);
        return;
    }
    if (conn->type == NGHTTP2_DATA) {
        begin_data(conn);
        return;
    }
    uint32_t code = check_frame(conn, &frame);
    if (code != NGHTTP2_NO_ERROR) {
        connection_error(conn, code);
        return;
    }
    /* GOAWAY asks nothing of us, and unknown frames are to be ignored: RFC 9113, 5.5 */
    if (conn->type > NGHTTP2_CONTINUATION || conn->type == NGHTTP2_GOAWAY) {
        conn->data_stream = NULL;
        conn->padding = 0;
        conn->phase = conn->left > 0 ? IN_SKIP : IN_HEAD;
        count_abuse(conn);
    } else if (conn->left == 0) {
        take_payload(conn, head, 0);
    } else {
        conn->phase = IN_PAYLOAD;
    }
}

static size_t feed_preface(struct conn *conn, const uint8_t *data, size_t length) {
    size_t piece = NGHTTP2_CLIENT_MAGIC_LEN - conn->gathered_length;
    piece = piece < length ? piece : length;
    memcpy(conn->gathered + conn->gathered_length, data, piece);
    conn->gathered_length += piece;
    if (memcmp(conn->gathered, NGHTTP2_CLIENT_MAGIC, conn->gathered_length) != 0) {
        if (conn->gathered[0] >= 'A' && conn->gathered[0] <= 'Z') { /* a method of HTTP/1 */
            memcpy(output_reserve(conn, sizeof HTTP1_ANSWER - 1), HTTP1_ANSWER,
                   sizeof HTTP1_ANSWER - 1);
            conn->shared->connection_errors++;
            conn->phase = ENDED;
        } else {
            connection_error(conn, NGHTTP2_PROTOCOL_ERROR);
        }
    } else if (conn->gathered_length == NGHTTP2_CLIENT_MAGIC_LEN) {
        conn->gathered_length = 0;
        conn->phase = IN_HEAD;
        output_preface(conn);
    }
    return piece;
}

static size_t feed_head(struct conn *conn, const uint8_t *data, size_t length) {
    if (conn->gathered_length == 0 && length >= H2_FRAME_HEADER) {
        begin_frame(conn, data);
        return H2_FRAME_HEADER;
    }
    size_t piece = H2_FRAME_HEADER - conn->gathered_length;
    piece = piece < length ? piece : length;
    if (conn->gathered_length == 0 && conn->block_stream == 0)
        conn->frame_since = conn->shared->now;
    memcpy(conn->gathered + conn->gathered_length, data, piece);
    conn->gathered_length += piece;
    if (conn->gathered_length == H2_FRAME_HEADER) {
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
            connection_error(conn, NGHTTP2_INTERNAL_ERROR);
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
        message_take(conn, stream, data, piece, whole_call);
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
