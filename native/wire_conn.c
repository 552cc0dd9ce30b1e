#include "wire_conn_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
    } else if (length >= 14 && memcmp(bytes, NGHTTP2_CLIENT_MAGIC, 14) == 0) {
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

static uint32_t place(const struct wire_conn *conn, uint32_t id) { return (id >> 1) & conn->mask; }

struct wire_stream *wire_stream_find(const struct wire_conn *conn, uint32_t id) {
    for (uint32_t i = place(conn, id);; i = (i + 1) & conn->mask) {
        struct wire_stream *stream = conn->streams[i];
        if (stream == NULL || stream->id == id)
            return stream;
    }
}

void wire_stream_insert(struct wire_conn *conn, struct wire_stream *stream) {
    uint32_t i = place(conn, stream->id);
    while (conn->streams[i] != NULL)
        i = (i + 1) & conn->mask;
    conn->streams[i] = stream;
    conn->count++;
}

void wire_stream_erase(struct wire_conn *conn, const struct wire_stream *stream) {
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

int wire_conn_start(struct wire_conn *conn, int fd) {
    static const struct {
        uint16_t key;
        uint32_t value;
    } OURS[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WIRE_RESPONSE_MAX + NGHTTP2_INITIAL_WINDOW_SIZE},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, WIRE_FIELDS_BYTES_MAX},
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
    conn->error = NGHTTP2_NO_ERROR;
    conn->max_frame = H2_FRAME_SIZE_MIN;
    conn->max_streams = UINT32_MAX; /* until the peer says (RFC 9113, 6.5.2) */
    conn->initial_window = NGHTTP2_INITIAL_WINDOW_SIZE;
    conn->window = NGHTTP2_INITIAL_WINDOW_SIZE;
    conn->table = H2_TABLE_SIZE;
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
    if (wire_headers_encode(&conn->headers, conn->fields, conn->field_count, H2_TABLE_SIZE, 0) < 0)
        return -1;

    size_t count = sizeof OURS / sizeof *OURS;
    uint8_t *at = wire_control(conn, NGHTTP2_CLIENT_MAGIC_LEN);
    memcpy(at, NGHTTP2_CLIENT_MAGIC, NGHTTP2_CLIENT_MAGIC_LEN);
    at = wire_control(conn, H2_FRAME_HEADER + 6 * count);
    at = h2_put_frame(at, 6 * count, NGHTTP2_SETTINGS, 0, 0);
    for (size_t i = 0; i < count; i++, at += 6) {
        at[0] = 0;
        at[1] = (uint8_t)OURS[i].key;
        h2_put32(at + 2, OURS[i].value);
    }
    wire_send_window_update(conn, WIRE_RECEIVE_WINDOW - NGHTTP2_INITIAL_WINDOW_SIZE);
    return 0;
}

void wire_conn_close(struct wire_conn *conn) {
    if (conn->fd >= 0) {
        uint8_t bytes[H2_FRAME_HEADER + 8];
        uint8_t *at = h2_put_frame(bytes, 8, NGHTTP2_GOAWAY, 0, 0);
        h2_put32(at, 0);
        h2_put32(at + 4, conn->error);
        /* A courtesy: only where it would not stand in the middle of another frame. */
        const struct iovec piece = {bytes, sizeof bytes};
        if (conn->state >= WIRE_GREETING && !conn->sealed)
            (void)!wire_write_pieces(conn, &piece, 1);
        wire_tls_end(conn->tls, conn->fd);
        close(conn->fd);
    }
    conn->tls = NULL;
    conn->fd = -1;
    conn->state = WIRE_FREE;
    wire_end_burst(conn);
}
