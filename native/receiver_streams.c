#include "receiver_conn_private.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE_MAX = 1000 }; /* bytes of a message in one DATA frame of ours */

static struct stream **bucket_of(struct conn *conn, uint32_t id) {
    return &conn->buckets[(id >> 1) % BUCKETS];
}

struct stream *stream_find(struct conn *conn, uint32_t id) {
    struct stream *stream = *bucket_of(conn, id);
    while (stream != NULL && stream->id != id)
        stream = stream->chain;
    return stream;
}

struct stream *stream_open(struct conn *conn, uint32_t id) {
    struct conn_shared *shared = conn->shared;
    struct stream *stream = shared->free_streams;
    if (stream != NULL)
        shared->free_streams = stream->chain;
    else if ((stream = malloc(sizeof *stream)) == NULL)
        return NULL;
    memset(stream, 0, sizeof *stream);
    stream->id = id;
    stream->conn = conn;
    stream->since = shared->now;
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

void stream_defer_answer(struct conn *conn, struct stream *stream, int64_t at) {
    struct conn_shared *shared = conn->shared;
    struct stream *due_before = shared->last_deferred; /* most come in the order of their times */
    while (due_before != NULL && due_before->answer_at > at)
        due_before = due_before->due_before;
    stream->answer_at = at;
    stream->due_before = due_before;
    stream->due_after = due_before != NULL ? due_before->due_after : shared->first_deferred;
    if (due_before != NULL)
        due_before->due_after = stream;
    else
        shared->first_deferred = stream;
    if (stream->due_after != NULL)
        stream->due_after->due_before = stream;
    else
        shared->last_deferred = stream;
}

void stream_cancel_deferred(struct conn_shared *shared, struct stream *stream) {
    if (stream->due_before != NULL)
        stream->due_before->due_after = stream->due_after;
    else
        shared->first_deferred = stream->due_after;
    if (stream->due_after != NULL)
        stream->due_after->due_before = stream->due_before;
    else
        shared->last_deferred = stream->due_before;
    stream->answer_at = 0;
}

void stream_close(struct conn *conn, struct stream *stream) {
    struct conn_shared *shared = conn->shared;
    if (stream->answer_at != 0)
        stream_cancel_deferred(shared, stream);
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

bool stream_may_be_late(const struct conn *conn, uint32_t id) {
    if (!conn->ended_early)
        return false;
    for (size_t i = 0; i < RESETS_KNOWN; i++) {
        if (conn->resets[i] == id)
            return false;
    }
    return true;
}

void connection_error(struct conn *conn, uint32_t code) {
    if (conn->phase == ENDED)
        return;
    output_goaway(conn, code);
    conn->phase = ENDED;
    conn->shared->connection_errors++;
}

void count_abuse(struct conn *conn) {
    if (++conn->abuse > ABUSE_MAX)
        connection_error(conn, NGHTTP2_ENHANCE_YOUR_CALM);
}

void stream_error(struct conn *conn, struct stream *stream, uint32_t code) {
    output_reset(conn, stream->id, code);
    conn->ended_early |= !stream->ended;
    stream_close(conn, stream);
    count_abuse(conn);
}

void stream_refuse(struct conn *conn, struct stream *stream, const char *http_status, int status,
                   const char *message) {
    output_error(conn, stream->id, http_status, (struct grpc_answer){status, message, 0, NULL, 0});
    if (!stream->ended) {
        output_reset(conn, stream->id, NGHTTP2_NO_ERROR);
        conn->ended_early = true;
    }
    conn->shared->refused++;
    stream_close(conn, stream);
}

void stream_answer(struct conn *conn, struct stream *stream) {
    static const struct answer_body empty = {.length = GRPC_PREFIX, .head_length = GRPC_PREFIX};
    const struct answer_body *body = stream->body != NULL ? stream->body : &empty;
    if (!stream->opened_answer)
        output_good_headers(conn, stream->id);
    stream->opened_answer = true;
    while (stream->answered < body->length &&
           conn->output_end - conn->output_start <= OUTPUT_HIGH && conn->phase != ENDED) {
        int64_t window = stream->window < conn->send_window ? stream->window : conn->send_window;
        size_t at = stream->answered, piece = body->length - at;
        if (window <= 0)
            break;
        piece = piece < PIECE_MAX ? piece : PIECE_MAX;
        piece = (int64_t)piece < window ? piece : (size_t)window;
        uint8_t *p = output_frame(conn, piece, NGHTTP2_DATA, 0, stream->id);
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
    output_good_trailers(conn, stream->id);
    stream_close(conn, stream);
}

void answer_blocked(struct conn *conn) {
    for (struct stream *stream = conn->oldest, *newer; stream != NULL && conn->blocked > 0;
         stream = newer) {
        newer = stream->newer;
        if (stream->answering && stream->window > 0 && conn->send_window > 0)
            stream_answer(conn, stream);
    }
}
