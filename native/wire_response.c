#include "wire_conn_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the end of a stream ---- */

static void drop_body(struct wire_conn *conn, struct wire_stream *stream) {
    if (stream->body != NULL && stream->body != stream->small) {
        *conn->held_bytes -= stream->body_room;
        free(stream->body);
    }
    stream->body = NULL;
    stream->body_length = 0;
}

void wire_conn_forget(struct wire_conn *conn, struct wire_stream *stream) {
    wire_stream_erase(conn, stream);
    if (stream->queued) {
        struct wire_stream **link = &conn->writing;
        while (*link != stream)
            link = &(*link)->next;
        *link = stream->next;
        if (*link == NULL)
            conn->writing_tail = link;
        stream->queued = false;
    }
    wire_hold_in_burst(conn, stream);
    drop_body(conn, stream);
    conn->late_frames += WIRE_LATE_FRAMES;
    stream->conn = NULL;
}

void wire_conn_cancel(struct wire_conn *conn, struct wire_stream *stream) {
    wire_send_reset(conn, stream->id, NGHTTP2_CANCEL);
    wire_conn_forget(conn, stream);
}

void wire_stream_end(struct wire_conn *conn, struct wire_stream *stream,
                     const struct wire_end *how) {
    wire_conn_forget(conn, stream);
    conn->owner->ended(conn->owner->context, stream, how);
}

/* The peer has answered in full; if the request is still on its way, there is no use for it
 * (RFC 9113, 8.1). */
static void answered(struct wire_conn *conn, struct wire_stream *stream,
                     const struct wire_end *how) {
    if (!wire_all_framed(stream))
        wire_send_reset(conn, stream->id, NGHTTP2_CANCEL);
    conn->answered = true;
    wire_stream_end(conn, stream, how);
}

void wire_response_invalid(struct wire_conn *conn, struct wire_stream *stream, bool over,
                           uint32_t code, const char *message) {
    const struct wire_end how = {
        .status = WIRE_INVALID_RESPONSE,
        .retry_delay = -1,
        .message = message,
        .message_length = strlen(message),
    };
    if (!over || !wire_all_framed(stream))
        wire_send_reset(conn, stream->id, code);
    wire_stream_end(conn, stream, &how);
}

/* ---- a response ---- */

static bool can_unpack(const struct wire_stream *stream) {
    return stream->encoding == WIRE_GZIP || (UNZSTD_KNOWN && stream->encoding == WIRE_ZSTD);
}

const char *wire_response_take(struct wire_conn *conn, struct wire_stream *stream,
                               const uint8_t *bytes, size_t length) {
    size_t needed = stream->body_length + length;
    if (stream->body == NULL) {
        stream->body = stream->small;
        stream->body_room = sizeof stream->small;
    }
    if (needed > GRPC_PREFIX + WIRE_RESPONSE_MAX)
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
    if (stream->body_length >= GRPC_PREFIX) {
        /* grpc-go answers as it was asked, whatever grpc-accept-encoding says. */
        if (stream->body[0] > 1 || (stream->body[0] == 1 && !can_unpack(stream)))
            return "the response is compressed, which was not asked for";
        if (h2_get32(stream->body + 1) > WIRE_RESPONSE_MAX)
            return "the response is longer than 4 MiB";
        if (h2_get32(stream->body + 1) < stream->body_length - GRPC_PREFIX)
            return "there is more than one response message";
    }
    return NULL;
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
    if (stream->body_length < GRPC_PREFIX)
        return "grpc-status 0 without a response message";
    if (h2_get32(stream->body + 1) != stream->body_length - GRPC_PREFIX)
        return "the response message is cut off";
    const uint8_t *message = stream->body + GRPC_PREFIX;
    size_t length = stream->body_length - GRPC_PREFIX;
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

void wire_response_end(struct wire_conn *conn, struct wire_stream *stream,
                       const struct wire_answer *answer) {
    struct wire_end how = {.retry_delay = -1, .grpc = true, .message = ""};
    char text[WIRE_MESSAGE_MAX];
    int status = answer != NULL ? answer->grpc_status : WIRE_GRPC_NONE;
    if (status >= 0 && stream->content == 1) {
        how.status = status;
        how.message = answer->message;
        how.message_length = answer->message_length;
        how.retry_delay = answer->retry_delay;
        if (status == GRPC_OK) {
            const char *wrong = read_body(conn, stream, &how);
            if (wrong != NULL) {
                wire_response_invalid(conn, stream, true, NGHTTP2_CANCEL, wrong);
                return;
            }
            if (how.message_length > 0) /* it points into the body, which goes first */
                memcpy(text, how.message, how.message_length);
            how.message = text;
        }
        answered(conn, stream, &how);
    } else if (status == WIRE_GRPC_MALFORMED) {
        wire_response_invalid(conn, stream, true, NGHTTP2_CANCEL, "grpc-status is not a number");
    } else if (stream->http_status != 200) {
        how.status = status >= 0 ? status : wire_http_to_grpc(stream->http_status);
        how.grpc = status >= 0;
        how.message = text;
        how.message_length = (size_t)snprintf(
            text, sizeof text, "HTTP status %d without gRPC's own answer", stream->http_status);
        answered(conn, stream, &how);
    } else {
        wire_response_invalid(conn, stream, true, NGHTTP2_CANCEL,
                              answer != NULL ? "trailers without grpc-status"
                                             : "the response has no trailers");
    }
}
