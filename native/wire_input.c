#include "wire_conn_private.h"

#include <stdio.h>
#include <string.h>

enum { NANOSECONDS = 1000000000 }; /* of a second */

/* Frames that bring nothing: they cost the peer nothing either, so their rate has a cap. */
static int idle_frame(struct wire_conn *conn) {
    if (conn->now - conn->idle_since > NANOSECONDS) {
        conn->idle_since = conn->now;
        conn->idle_frames = 0;
    }
    if (++conn->idle_frames > WIRE_IDLE_FRAMES_MAX)
        return wire_conn_error(conn, NGHTTP2_ENHANCE_YOUR_CALM, "it floods us with empty frames");
    return 0;
}

/* A frame for a stream that is no longer there; only IDs that we used may come (RFC 9113, 5.1). */
static int on_closed(struct wire_conn *conn, uint32_t id) {
    if (id % 2 == 0 || id >= conn->next_id)
        return wire_conn_error(conn, NGHTTP2_PROTOCOL_ERROR,
                               "it uses stream %u, which was never opened", id);
    if (conn->late_frames > 0) {
        conn->late_frames--;
        return 0;
    }
    return idle_frame(conn);
}

/* A connection error for what is wrong with the frame itself: its length, padding or stream. */
static int malformed(struct wire_conn *conn, uint8_t type, uint32_t code) {
    return wire_conn_error(conn, code,
                           code == NGHTTP2_FRAME_SIZE_ERROR ? "its %s has a wrong length"
                                                            : "its %s breaks the protocol",
                           h2_type_name(type));
}

static int on_data(struct wire_conn *conn, const struct h2_frame *frame, const uint8_t *payload) {
    const uint32_t id = frame->stream;
    size_t length = frame->length;
    conn->received += (int64_t)length;
    if (conn->received > WIRE_RECEIVE_WINDOW)
        return wire_conn_error(conn, NGHTTP2_FLOW_CONTROL_ERROR,
                               "it sends more than the window allows");
    if (conn->received > WIRE_RECEIVE_WINDOW / 2) {
        wire_send_window_update(conn, (uint32_t)conn->received);
        conn->received = 0;
    }
    struct wire_stream *stream = wire_stream_find(conn, id);
    if (stream == NULL)
        return on_closed(conn, id);
    const uint32_t code = h2_strip_padding(frame->flags, &payload, &length);
    if (code != NGHTTP2_NO_ERROR)
        return malformed(conn, frame->type, code);
    const bool over = frame->flags & NGHTTP2_FLAG_END_STREAM;
    if (stream->http_status == 0) {
        wire_response_invalid(conn, stream, over, NGHTTP2_PROTOCOL_ERROR, "DATA before HEADERS");
        return 0;
    }
    if (length == 0 && !over)
        return idle_frame(conn);
    if (stream->http_status == 200) { /* of other answers only the status counts */
        const char *wrong = wire_response_take(conn, stream, payload, length);
        if (wrong != NULL) {
            wire_response_invalid(conn, stream, over, NGHTTP2_CANCEL, wrong);
            return 0;
        }
    }
    if (over)
        wire_response_end(conn, stream, NULL);
    return 0;
}

/* A header block is complete: conn->answer has its fields. */
static int on_block(struct wire_conn *conn) {
    struct wire_answer *answer = &conn->answer;
    struct wire_stream *stream = wire_stream_find(conn, conn->block_stream);
    bool over = conn->block_ends;
    uint32_t id = conn->block_stream;
    conn->block_stream = 0;
    if (stream == NULL)
        return on_closed(conn, id);
    bool first = stream->http_status == 0;
    if (answer->malformed || first != (answer->http_status != 0)) {
        wire_response_invalid(conn, stream, over, NGHTTP2_PROTOCOL_ERROR,
                              "malformed header fields");
        return 0;
    }
    if (first && answer->http_status < 200) { /* interim responses (RFC 9113, 8.1) */
        if (over || ++stream->informational > WIRE_INFORMATIONAL_MAX)
            wire_response_invalid(conn, stream, over, NGHTTP2_PROTOCOL_ERROR,
                                  "too many interim responses");
        return 0;
    }
    if (first) {
        stream->http_status = answer->http_status;
        stream->content = answer->content;
        stream->encoding = answer->encoding;
        if (stream->http_status == 200 && stream->content != 1) {
            wire_response_invalid(conn, stream, over, NGHTTP2_CANCEL,
                                  "the content-type is not application/grpc");
            return 0;
        }
    } else if (!over) {
        wire_response_invalid(conn, stream, over, NGHTTP2_PROTOCOL_ERROR,
                              "trailers that do not end the stream");
        return 0;
    }
    if (over)
        wire_response_end(conn, stream, answer);
    return 0;
}

static int on_fragment(struct wire_conn *conn, uint8_t flags, const uint8_t *bytes, size_t length) {
    const bool final = flags & NGHTTP2_FLAG_END_HEADERS;
    conn->block_bytes += (uint32_t)length;
    /* nghttp2 older than 1.61 does not count CONTINUATION frames (CVE-2024-28182): we do. */
    if (conn->block_bytes > WIRE_BLOCK_BYTES_MAX || conn->block_frames > WIRE_CONTINUATIONS_MAX)
        return wire_conn_error(conn, NGHTTP2_ENHANCE_YOUR_CALM, "its header block does not end");
    for (;;) {
        nghttp2_nv field;
        int emitted = 0;
        ssize_t used =
            nghttp2_hd_inflate_hd2(conn->inflater, &field, &emitted, bytes, length, final);
        if (used < 0)
            return wire_conn_error(conn, NGHTTP2_COMPRESSION_ERROR,
                                   "its header block is not HPACK");
        bytes += used;
        length -= (size_t)used;
        if (emitted & NGHTTP2_HD_INFLATE_EMIT) {
            conn->block_size += field.namelen + field.valuelen + H2_FIELD_OVERHEAD;
            if (++conn->block_fields > WIRE_FIELDS_MAX || conn->block_size > WIRE_FIELDS_BYTES_MAX)
                return wire_conn_error(conn, NGHTTP2_ENHANCE_YOUR_CALM,
                                       "its header fields are too many");
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
        return wire_conn_error(conn, NGHTTP2_COMPRESSION_ERROR, "its header block is not HPACK");
    return 0;
}

static int on_headers(struct wire_conn *conn, const struct h2_frame *frame,
                      const uint8_t *payload) {
    const uint32_t id = frame->stream;
    size_t length = frame->length;
    if (id % 2 == 0 || id >= conn->next_id)
        return on_closed(conn, id);
    const uint32_t code = h2_strip_headers(frame->flags, &payload, &length);
    if (code != NGHTTP2_NO_ERROR)
        return malformed(conn, frame->type, code);
    conn->block_stream = id;
    conn->block_ends = frame->flags & NGHTTP2_FLAG_END_STREAM;
    conn->block_bytes = conn->block_frames = conn->block_fields = 0;
    conn->block_size = 0;
    wire_answer_reset(&conn->answer);
    return on_fragment(conn, frame->flags, payload, length);
}

static int on_reset(struct wire_conn *conn, uint32_t id, const uint8_t *payload) {
    struct wire_stream *stream = wire_stream_find(conn, id);
    if (stream == NULL)
        return on_closed(conn, id);
    uint32_t code = h2_get32(payload);
    char text[64];
    int size = snprintf(text, sizeof text, "RST_STREAM with %s", nghttp2_http2_strerror(code));
    /* REFUSED_STREAM: certainly not processed (RFC 9113, 8.7). */
    const struct wire_end how = {
        .status = code == NGHTTP2_REFUSED_STREAM ? WIRE_REFUSED_STREAM : WIRE_STREAM_RESET,
        .retry_delay = -1,
        .message = text,
        .message_length = (size_t)size,
    };
    wire_stream_end(conn, stream, &how);
    return 0;
}

static int acknowledge(struct wire_conn *conn, uint8_t type, const uint8_t *payload,
                       size_t length) {
    if (++conn->acks > WIRE_ACKS_MAX)
        return wire_conn_error(conn, NGHTTP2_ENHANCE_YOUR_CALM,
                               "it wants more answers than it is willing to read");
    uint8_t *at = wire_control(conn, H2_FRAME_HEADER + length);
    if (at != NULL && length > 0)
        memcpy(h2_put_frame(at, length, type, NGHTTP2_FLAG_ACK, 0), payload, length);
    else if (at != NULL)
        h2_put_frame(at, 0, type, NGHTTP2_FLAG_ACK, 0);
    return 0;
}

/* All streams' windows move with the initial one and may become negative (RFC 9113, 6.9.2). */
static int on_initial_window(struct wire_conn *conn, uint32_t value) {
    for (uint32_t i = 0; value > conn->initial_window && i <= conn->mask; i++)
        if (conn->streams[i] != NULL && conn->streams[i]->window + value > H2_WINDOW_MAX)
            return wire_conn_error(conn, NGHTTP2_FLOW_CONTROL_ERROR,
                                   "it opens a window beyond 2^31 - 1");
    conn->initial_window = value;
    conn->refill = true;
    return idle_frame(conn); /* as it costs a walk over the streams */
}

static int on_setting(struct wire_conn *conn, uint16_t id, uint32_t value) {
    const uint32_t code = h2_check_setting(id, value);
    if (code != NGHTTP2_NO_ERROR)
        return wire_conn_error(conn, code, "its setting %u may not be %u", id, value);
    switch (id) {
    case NGHTTP2_SETTINGS_HEADER_TABLE_SIZE:
        if (value < conn->table) {
            conn->table = value;
            conn->first_sent = false;
            if (wire_headers_encode(&conn->headers, conn->fields, conn->field_count, value, 1) < 0)
                return wire_conn_error(conn, NGHTTP2_INTERNAL_ERROR,
                                       "no room for the header block");
        }
        return 0;
    case NGHTTP2_SETTINGS_ENABLE_PUSH:
        if (value != 0)
            return wire_conn_error(conn, NGHTTP2_PROTOCOL_ERROR, "it is a server and enables push");
        return 0;
    case NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS:
        conn->max_streams = value;
        return 0;
    case NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE:
        return on_initial_window(conn, value);
    case NGHTTP2_SETTINGS_MAX_FRAME_SIZE:
        /* A burst is the unit of writing: longer frames would gain nothing. */
        conn->max_frame = value < WIRE_BURST ? value : WIRE_BURST;
        return 0;
    default:
        return 0; /* unknown ones are ignored (RFC 9113, 6.5.2) */
    }
}

static int on_settings(struct wire_conn *conn, const struct h2_frame *frame,
                       const uint8_t *payload) {
    if (idle_frame(conn) < 0)
        return -1;
    if (frame->flags & NGHTTP2_FLAG_ACK)
        return 0;
    for (const uint8_t *end = payload + frame->length; payload < end; payload += H2_SETTING)
        if (on_setting(conn, (uint16_t)(payload[0] << 8 | payload[1]), h2_get32(payload + 2)) < 0)
            return -1;
    if (conn->state == WIRE_GREETING)
        conn->state = WIRE_OPEN;
    return acknowledge(conn, NGHTTP2_SETTINGS, NULL, 0);
}

static int on_ping(struct wire_conn *conn, const struct h2_frame *frame, const uint8_t *payload) {
    if (idle_frame(conn) < 0)
        return -1;
    return frame->flags & NGHTTP2_FLAG_ACK
               ? 0
               : acknowledge(conn, NGHTTP2_PING, payload, frame->length);
}

static int on_goaway(struct wire_conn *conn, const uint8_t *payload) {
    if (idle_frame(conn) < 0)
        return -1;
    wire_conn_error(conn, NGHTTP2_NO_ERROR, "it said GOAWAY with %s",
                    nghttp2_http2_strerror(h2_get32(payload + 4)));
    conn->state = WIRE_LEAVING;
    conn->owner->goaway(conn->owner->context, conn, h2_get32(payload) & INT32_MAX);
    return 0;
}

static int on_window_update(struct wire_conn *conn, uint32_t id, const uint8_t *payload) {
    const uint32_t increment = h2_get32(payload) & INT32_MAX;
    if (id == 0) {
        if (increment == 0)
            return wire_conn_error(conn, NGHTTP2_PROTOCOL_ERROR, "it opens a window by 0");
        if (conn->window + increment > H2_WINDOW_MAX)
            return wire_conn_error(conn, NGHTTP2_FLOW_CONTROL_ERROR,
                                   "it opens a window beyond 2^31 - 1");
        conn->window += increment;
        conn->refill = true;
        return 0;
    }
    struct wire_stream *stream = wire_stream_find(conn, id);
    if (stream == NULL) {
        if (id % 2 == 0 || id >= conn->next_id)
            return on_closed(conn, id);
        return 0; /* usual just after the end of a stream (RFC 9113, 5.1) */
    }
    if (increment == 0) {
        wire_response_invalid(conn, stream, false, NGHTTP2_PROTOCOL_ERROR,
                              "it opens a window by 0");
    } else if (conn->initial_window + stream->window + increment > H2_WINDOW_MAX) {
        wire_response_invalid(conn, stream, false, NGHTTP2_FLOW_CONTROL_ERROR,
                              "it opens a window beyond 2^31 - 1");
    } else {
        stream->window += increment;
        conn->refill = true;
    }
    return 0;
}

static int on_frame(struct wire_conn *conn, const struct h2_frame *frame, const uint8_t *payload) {
    if (conn->block_stream != 0) { /* nothing may stand within a header block (RFC 9113, 4.3) */
        if (frame->type != NGHTTP2_CONTINUATION || frame->stream != conn->block_stream)
            return wire_conn_error(conn, NGHTTP2_PROTOCOL_ERROR, "it breaks off a header block");
        conn->block_frames++;
        return on_fragment(conn, frame->flags, payload, frame->length);
    }
    const uint32_t code = h2_check_frame(frame);
    if (code != NGHTTP2_NO_ERROR)
        return malformed(conn, frame->type, code);
    switch (frame->type) {
    case NGHTTP2_DATA:
        return on_data(conn, frame, payload);
    case NGHTTP2_HEADERS:
        return on_headers(conn, frame, payload);
    case NGHTTP2_RST_STREAM:
        return on_reset(conn, frame->stream, payload);
    case NGHTTP2_SETTINGS:
        return on_settings(conn, frame, payload);
    case NGHTTP2_PUSH_PROMISE:
        return wire_conn_error(conn, NGHTTP2_PROTOCOL_ERROR, "it pushes, which was disabled");
    case NGHTTP2_PING:
        return on_ping(conn, frame, payload);
    case NGHTTP2_GOAWAY:
        return on_goaway(conn, payload);
    case NGHTTP2_WINDOW_UPDATE:
        return on_window_update(conn, frame->stream, payload);
    case NGHTTP2_CONTINUATION:
        return wire_conn_error(conn, NGHTTP2_PROTOCOL_ERROR, "CONTINUATION without HEADERS");
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
    while (conn->input_length - at >= H2_FRAME_HEADER) {
        const struct h2_frame frame = h2_get_frame(conn->input + at);
        /* The server's preface is SETTINGS (RFC 9113, 3.4). */
        if (conn->state == WIRE_GREETING && (frame.type != NGHTTP2_SETTINGS ||
                                             frame.flags & NGHTTP2_FLAG_ACK || frame.stream != 0)) {
            char what[120];
            wire_conn_describe(conn, what, sizeof what);
            return wire_conn_error(conn, NGHTTP2_PROTOCOL_ERROR, "%s", what);
        }
        if (frame.length > H2_FRAME_SIZE_MIN)
            return wire_conn_error(conn, NGHTTP2_FRAME_SIZE_ERROR,
                                   "its frame is longer than we allow");
        if (conn->input_length - at < H2_FRAME_HEADER + frame.length)
            break;
        if (on_frame(conn, &frame, conn->input + at + H2_FRAME_HEADER) < 0)
            return -1;
        at += H2_FRAME_HEADER + frame.length;
    }
    conn->input_length -= at;
    memmove(conn->input, conn->input + at, conn->input_length);
    return 0;
}
