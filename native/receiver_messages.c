#include "receiver_conn_private.h"

#include "varint.h"

#include <stdlib.h>
#include <string.h>

/* The prefix is complete: is this a message to take in? Closes the stream and returns false when
 * it is not. */
static bool message_begin(struct conn *conn, struct stream *stream) {
    stream->length = h2_get32(stream->prefix + 1);
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

/* ExportTraceServiceResponse.partial_success = 1 {rejected_spans = 1; error_message = 2}, of which
 * the text is `text`, or `filling` bytes. */
static void partial_success(struct answer_body *body, int64_t rejected, const char *text,
                            size_t filling) {
    size_t text_length = text != NULL ? strlen(text) : filling;
    const size_t length = 1 + varint_length((uint64_t)rejected) + 1 + varint_length(text_length);
    uint8_t *p = body->head + GRPC_PREFIX;
    *p++ = 0x0a;
    p = varint_write(p, length + text_length);
    *p++ = 0x08;
    p = varint_write(p, (uint64_t)rejected);
    *p++ = 0x12;
    p = varint_write(p, text_length);
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
    struct answer_body *body = stream->body = calloc(1, sizeof *body);
    if (body == NULL)
        return false;
    if (fault->kind == FAULT_PARTIAL) {
        partial_success(body, answer->rejected, "rejected on purpose", 0);
    } else if (fault->kind == FAULT_OVERSIZE) {
        partial_success(body, 0, NULL, (size_t)fault->low);
    } else {
        body->length = body->head_length = GRPC_PREFIX + 16;
        body->head[GRPC_PREFIX] = 0xff; /* no tag: its wire type is 7 */
        for (size_t i = 1; i < 16; i++)
            body->head[GRPC_PREFIX + i] = (uint8_t)(answer->fault->random >> i * 4);
    }
    h2_put32(body->head + 1, (uint32_t)(body->length - GRPC_PREFIX));
    return true;
}

/* Does to the call what its fault asks for. True: it is to be answered all the same. */
static bool message_fault(struct conn *conn, struct stream *stream,
                          const struct grpc_answer *answer) {
    struct conn_shared *shared = conn->shared;
    const struct fault *fault = &answer->fault->fault;
    switch (fault->kind) {
    case FAULT_STATUS:
        output_error(conn, stream->id, NULL, *answer);
        break;
    case FAULT_HTTP:
        output_http(conn, stream->id, fault->low, fault->text);
        break;
    case FAULT_CONTENT_TYPE:
        output_http(conn, stream->id, 200, "");
        break;
    case FAULT_RST:
        output_reset(conn, stream->id, (uint32_t)fault->low);
        break;
    case FAULT_FRAMES:
        memset(output_reserve(conn, 64), 0xff, 64); /* a frame's head that breaks every rule */
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
        output_reset(conn, stream->id, NGHTTP2_INTERNAL_ERROR);
        break;
    case FAULT_GOAWAY:
        if (!conn->leaving)
            output_goaway(conn, NGHTTP2_NO_ERROR);
        conn->leaving = true;
        return true;
    case FAULT_SLOW_READ:
        if (conn->windows_shut_until == 0)
            output_window_setting(conn, 0);
        conn->windows_shut_until = shared->now + fault->low;
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

void message_end(struct conn *conn, struct stream *stream, const uint8_t *whole) {
    struct conn_shared *shared = conn->shared;
    stream->ended = true;
    if (stream->content_length >= 0 && stream->content_length != stream->received) {
        stream_error(conn, stream, NGHTTP2_PROTOCOL_ERROR); /* RFC 9113, 8.1.1 */
        return;
    }
    if (stream->prefix_have == 0) {
        stream_refuse(conn, stream, NULL, GRPC_UNIMPLEMENTED, "the call carries no message");
        return;
    }
    if (stream->prefix_have < GRPC_PREFIX || stream->have < stream->length) {
        stream_refuse(conn, stream, NULL, GRPC_INTERNAL, "the call ends within its message");
        return;
    }
    size_t length = stream->length;
    if (whole == NULL)
        whole = stream->buffer != NULL ? stream->buffer->data : stream->prefix;
    if (stream->prefix[0] == 1 && !unpack(conn, stream, &whole, &length))
        return;
    struct grpc_answer answer = shared->deliver(shared->context, whole, length);
    conn->abuse -= conn->abuse < ABUSE_PER_MESSAGE ? conn->abuse : ABUSE_PER_MESSAGE;
    if (answer.fault != NULL && answer.fault->fault.kind != FAULT_NONE &&
        !message_fault(conn, stream, &answer))
        return;
    if (answer.status != GRPC_OK)
        stream_refuse(conn, stream, NULL, answer.status, answer.message);
    else if (answer.at > shared->now)
        stream_defer_answer(conn, stream, answer.at);
    else
        stream_answer(conn, stream);
}

void message_take(struct conn *conn, struct stream *stream, const uint8_t *data, size_t length,
                  bool whole_call) {
    const uint8_t *whole = NULL;
    stream->received += (int64_t)length;
    while (length > 0) {
        size_t piece;
        if (stream->prefix_have < GRPC_PREFIX) {
            piece = (size_t)(GRPC_PREFIX - stream->prefix_have);
            piece = piece < length ? piece : length;
            memcpy(stream->prefix + stream->prefix_have, data, piece);
            stream->prefix_have = (uint8_t)(stream->prefix_have + piece);
            if (stream->prefix_have == GRPC_PREFIX && !message_begin(conn, stream))
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
