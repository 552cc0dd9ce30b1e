#include "receiver_conn_private.h"

#include <stdlib.h>
#include <string.h>

uint8_t *output_reserve(struct conn *conn, size_t length) {
    if (conn->output_capacity - conn->output_end >= length) {
        conn->output_end += length;
        return conn->output + conn->output_end - length;
    }
    size_t waiting = conn->output_end - conn->output_start;
    if (conn->output_start > 0) {
        memmove(conn->output, conn->output + conn->output_start, waiting);
        conn->output_start = 0;
        conn->output_end = waiting;
    }
    if (conn->output_capacity - waiting < length) {
        size_t capacity = conn->output_capacity == 0 ? 4096 : 2 * conn->output_capacity;
        uint8_t *grown = realloc(conn->output, capacity); /* length <= sizeof spill <= capacity/2 */
        if (grown == NULL) {
            conn->phase = ENDED;
            return conn->shared->spill;
        }
        conn->output = grown;
        conn->output_capacity = capacity;
    }
    conn->output_end += length;
    return conn->output + conn->output_end - length;
}

uint8_t *output_frame(struct conn *conn, size_t length, uint8_t type, uint8_t flags,
                      uint32_t stream) {
    uint8_t *p = output_reserve(conn, H2_FRAME_HEADER + length);
    return h2_put_frame(p, length, type, flags, stream);
}

void output_reset(struct conn *conn, uint32_t stream, uint32_t code) {
    h2_put32(output_frame(conn, 4, NGHTTP2_RST_STREAM, 0, stream), code);
}

void output_window_update(struct conn *conn, uint32_t stream, uint32_t increment) {
    h2_put32(output_frame(conn, 4, NGHTTP2_WINDOW_UPDATE, 0, stream), increment);
}

/* A whole message fits into one frame, and into a stream's window without any update. */
uint32_t conn_stream_window(const struct conn *conn) {
    const int64_t window =
        (int64_t)conn->shared->limits.max_message + GRPC_PREFIX + NGHTTP2_INITIAL_WINDOW_SIZE;
    return (uint32_t)(window > H2_WINDOW_MAX ? H2_WINDOW_MAX : window);
}

void output_window_setting(struct conn *conn, uint32_t window) {
    uint8_t *p = output_frame(conn, H2_SETTING, NGHTTP2_SETTINGS, 0, 0);
    h2_put_setting(p, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window);
}

void output_preface(struct conn *conn) {
    uint64_t whole = (uint64_t)conn->shared->limits.max_message + GRPC_PREFIX;
    uint64_t frame = whole < H2_FRAME_SIZE_MIN ? H2_FRAME_SIZE_MIN : whole;
    if (frame > H2_FRAME_SIZE_MAX)
        frame = H2_FRAME_SIZE_MAX;
    uint8_t *p = output_frame(conn, 4 * H2_SETTING, NGHTTP2_SETTINGS, 0, 0);
    p = h2_put_setting(p, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                       conn->shared->limits.max_streams);
    p = h2_put_setting(p, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, conn_stream_window(conn));
    p = h2_put_setting(p, NGHTTP2_SETTINGS_MAX_FRAME_SIZE, (uint32_t)frame);
    h2_put_setting(p, NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEAD_SIZE_MAX);
    output_window_update(conn, 0, (uint32_t)(H2_WINDOW_MAX - NGHTTP2_INITIAL_WINDOW_SIZE));
    conn->receive_window = H2_WINDOW_MAX;
}

static void put_text(uint8_t **p, const char *text) {
    size_t length = strlen(text);
    memcpy(*p, text, length);
    *p += length;
}

/* A literal field without indexing and with a new name (RFC 7541, 6.2.2); all lengths are below
 * 127, so that one byte holds each. */
static void put_field(uint8_t **p, const char *name, const char *value) {
    *(*p)++ = 0x00;
    *(*p)++ = (uint8_t)strlen(name);
    put_text(p, name);
    *(*p)++ = (uint8_t)strlen(value);
    put_text(p, value);
}

static void put_table_size(struct conn *conn, uint8_t **p) {
    if (conn->table_shrunk)
        *(*p)++ = 0x20; /* the dynamic table's size is now 0: RFC 7541, 6.3 */
    conn->table_shrunk = false;
}

/* grpc-message is percent-encoded but for printable ASCII; what is too long is cut. */
static void percent_encode(char out[127], const char *text) {
    static const char hex[] = "0123456789ABCDEF";
    size_t length = 0;
    for (; *text != '\0' && length < 123; text++) {
        uint8_t byte = (uint8_t)*text;
        if (byte >= ' ' && byte <= '~' && byte != '%') {
            out[length++] = (char)byte;
        } else {
            out[length++] = '%';
            out[length++] = hex[byte >> 4];
            out[length++] = hex[byte & 15];
        }
    }
    out[length] = '\0';
}

void output_error(struct conn *conn, uint32_t stream, const char *http_status,
                  struct grpc_answer answer) {
    uint8_t block[512], *p = block;
    char message[127] = "", status[4] = {0};
    put_table_size(conn, &p);
    if (http_status == NULL) {
        *p++ = 0x88; /* :status 200 */
    } else {
        *p++ = 0x08; /* :status, literal without indexing */
        *p++ = 3;
        put_text(&p, http_status);
    }
    *p++ = 0x0f; /* content-type, literal without indexing */
    *p++ = 0x10;
    *p++ = 16;
    put_text(&p, "application/grpc");
    if (answer.status >= 10)
        status[0] = (char)('0' + answer.status / 10 % 10);
    status[strlen(status)] = (char)('0' + answer.status % 10);
    put_field(&p, "grpc-status", status);
    if (answer.message != NULL) {
        percent_encode(message, answer.message);
        put_field(&p, "grpc-message", message);
    }
    if (answer.fault != NULL && answer.fault->fault.text[0] != '\0')
        put_field(&p, "grpc-status-details-bin", answer.fault->fault.text);
    if (answer.status == GRPC_UNIMPLEMENTED)
        put_field(&p, "grpc-accept-encoding", ENCODINGS);
    size_t length = (size_t)(p - block);
    uint8_t *out = output_frame(conn, length, NGHTTP2_HEADERS,
                                NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, stream);
    memcpy(out, block, length);
}

void output_http(struct conn *conn, uint32_t stream, int64_t status, const char *retry_after) {
    uint8_t block[256], *p = block;
    char digits[4] = {(char)('0' + status / 100 % 10), (char)('0' + status / 10 % 10),
                      (char)('0' + status % 10)};
    put_table_size(conn, &p);
    *p++ = 0x08; /* :status, literal without indexing */
    *p++ = 3;
    put_text(&p, digits);
    put_field(&p, "content-type", "text/html");
    if (retry_after[0] != '\0')
        put_field(&p, "retry-after", retry_after);
    size_t length = (size_t)(p - block);
    uint8_t *out = output_frame(conn, length, NGHTTP2_HEADERS,
                                NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, stream);
    memcpy(out, block, length);
}

void output_goaway(struct conn *conn, uint32_t code) {
    uint8_t *p = output_frame(conn, 8, NGHTTP2_GOAWAY, 0, 0);
    h2_put32(p, conn->last_stream);
    h2_put32(p + 4, code);
}

/* The headers of a good answer. From the second one on they are in the peer's HPACK table, which
 * makes them two bytes: nothing else is ever put there, "content-type" always first. */
void output_good_headers(struct conn *conn, uint32_t stream) {
    uint8_t block[32], *p = block;
    put_table_size(conn, &p);
    *p++ = 0x88; /* :status 200 */
    if (conn->type_in_table) {
        *p++ = conn->success_in_table ? 0xbf : 0xbe; /* index 63 or 62 */
    } else {
        if (conn->table_unused) {
            *p++ = 0x0f;
            *p++ = 0x10;
        } else {
            *p++ = 0x5f; /* with incremental indexing */
            conn->type_in_table = true;
        }
        *p++ = 16;
        put_text(&p, "application/grpc");
    }
    size_t length = (size_t)(p - block);
    memcpy(output_frame(conn, length, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, stream), block,
           length);
}

void output_good_trailers(struct conn *conn, uint32_t stream) {
    uint8_t block[32], *p = block;
    put_table_size(conn, &p);
    if (conn->success_in_table) {
        *p++ = 0xbe;
    } else {
        *p++ = conn->table_unused ? 0x00 : 0x40;
        *p++ = 11;
        put_text(&p, "grpc-status");
        *p++ = 1;
        *p++ = '0';
        conn->success_in_table = !conn->table_unused;
    }
    size_t length = (size_t)(p - block);
    uint8_t *out = output_frame(conn, length, NGHTTP2_HEADERS,
                                NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, stream);
    memcpy(out, block, length);
}
