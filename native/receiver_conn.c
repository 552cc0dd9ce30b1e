#include "receiver_conn_private.h"

#include <stdlib.h>
#include <string.h>

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

void conn_reopen_windows(struct conn *conn) {
    if (conn->windows_shut_until == 0 || conn->shared->now < conn->windows_shut_until ||
        conn->phase == ENDED)
        return;
    output_window_setting(conn, conn_stream_window(conn));
    conn->windows_shut_until = 0;
}

bool conn_aborted(const struct conn *conn) { return conn->aborted; }

int64_t conn_due(const struct conn_shared *shared) {
    return shared->first_deferred != NULL ? shared->first_deferred->answer_at : INT64_MAX;
}

void *conn_next_due(struct conn_shared *shared) {
    struct stream *stream = shared->first_deferred;
    if (stream == NULL || stream->answer_at > shared->now)
        return NULL;
    struct conn *conn = stream->conn;
    stream_cancel_deferred(shared, stream);
    stream->since = shared->now;
    if (conn->phase != ENDED)
        stream_answer(conn, stream);
    return conn->owner;
}

bool conn_ended(const struct conn *conn) { return conn->phase == ENDED; }

void conn_goaway(struct conn *conn) {
    if (conn->phase != IN_PREFACE && conn->phase != ENDED) {
        output_goaway(conn, NGHTTP2_NO_ERROR);
    }
    conn->phase = ENDED;
}

void conn_tick(struct conn *conn) {
    struct conn_shared *shared = conn->shared;
    const struct conn_limits *limits = &shared->limits;
    int64_t now = shared->now;
    if (conn->phase == ENDED)
        return;
    conn->abuse -= conn->abuse < ABUSE_PER_TICK ? conn->abuse : ABUSE_PER_TICK;
    if (!conn->settings_seen) {
        if (now - conn->accepted > limits->handshake_timeout) {
            shared->connection_errors++;
            conn_goaway(conn);
        }
        return;
    }
    bool resting = conn->phase == IN_HEAD && conn->gathered_length == 0 && conn->block_stream == 0;
    for (struct stream *stream = conn->oldest, *newer; stream != NULL; stream = newer) {
        newer = stream->newer;
        /* A call that waits for its answer's time is ours to end, and not the peer's. */
        if (stream->answer_at != 0 || now - stream->since <= limits->request_timeout)
            continue;
        if (stream->opened_answer)
            stream_error(conn, stream, NGHTTP2_CANCEL);
        else
            stream_refuse(conn, stream, NULL, GRPC_DEADLINE_EXCEEDED, "the call took too long");
    }
    if (!resting && now - conn->frame_since > limits->request_timeout)
        connection_error(conn, NGHTTP2_ENHANCE_YOUR_CALM);
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
    conn->send_window = conn->peer_initial_window = NGHTTP2_INITIAL_WINDOW_SIZE;
    conn->receive_window = NGHTTP2_INITIAL_WINDOW_SIZE;
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
