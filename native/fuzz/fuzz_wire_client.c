/* libFuzzer over the client's side of a connection: the input is what the peer sends.
 *
 * Whatever it is, every stream ends at most once, what is still open is found at the end, no
 * byte is sent beyond the windows, and all memory and all buffers are given back.
 *
 * sources: wire_conn.c wire_output.c wire_input.c wire_response.c wire_headers.c wire_answer.c
 * sources: wire_tls.c h2_frame.c receiver_gunzip.c unzstd.c
 * libs: libnghttp2 zlib libzstd
 * seeds: seeds_wire_client.py
 */
#include "wire_conn.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

enum { STREAMS = 16, SPANS = 1000, MESSAGE = 70000 };

struct run {
    struct wire_conn *conn;
    struct wire_stream streams[STREAMS];
    enum { UNUSED, OPEN, ENDED } states[STREAMS];
    struct wire_chunk chunk;
    int ends, requeued;
};

static void on_ended(void *context, struct wire_stream *stream, const struct wire_end *end) {
    struct run *run = context;
    size_t i = (size_t)(stream - run->streams);
    REQUIRE(i < STREAMS && run->states[i] == OPEN && stream->conn == NULL);
    REQUIRE(end->status >= 0 && end->status < WIRE_STATUS_COUNT);
    REQUIRE(end->rejected >= 0 && end->rejected <= SPANS);
    REQUIRE(end->message_length <= WIRE_MESSAGE_MAX && end->retry_delay >= -1);
    for (size_t k = 0; k < end->message_length; k++) /* for ASan: all of it can be read */
        run->ends += end->message[k] & 1;
    run->states[i] = ENDED;
    wire_stream_release(stream);
}

static void on_goaway(void *context, struct wire_conn *conn, uint32_t last) {
    struct run *run = context;
    for (size_t i = 0; i < STREAMS; i++) {
        if (run->states[i] == OPEN && run->streams[i].id > last) {
            wire_conn_forget(conn, &run->streams[i]);
            wire_stream_release(&run->streams[i]);
            run->states[i] = ENDED;
        }
    }
}

static void open_streams(struct run *run, const uint8_t *message, int most) {
    for (size_t i = 0; i < STREAMS && most > 0 && wire_conn_takes(run->conn); i++) {
        if (run->states[i] == OPEN)
            continue;
        run->streams[i] = (struct wire_stream){
            .chunk = &run->chunk,
            .holding = true,
            .data = message,
            .length = i % 2 ? MESSAGE : (int64_t)i,
            .spans = SPANS,
            .compressed = i % 3 == 0,
        };
        run->chunk.holds++;
        run->states[i] = OPEN;
        wire_conn_open(run->conn, &run->streams[i]);
        most--;
    }
}

/* Reads away what the client wrote, unless the input wants the socket to be full. */
static void drain(int fd) {
    uint8_t bytes[65536];
    while (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t SETTINGS[] = {0, 0, 0, 4, 0, 0, 0, 0, 0};
    static const struct wire_field FIELDS[] = {
        {":method", 7, "POST", 4}, {":path", 5, "/a/b", 4}, {"te", 2, "trailers", 8}};
    static uint8_t message[MESSAGE];
    int64_t held_bytes = 0;
    int fds[2];
    if (size < 3)
        return 0;
    struct run *run = calloc(1, sizeof *run);
    struct wire_conn *conn = malloc(sizeof *conn);
    const struct wire_owner owner = {on_ended, on_goaway, run};
    REQUIRE(run != NULL && conn != NULL && socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    run->conn = conn;
    REQUIRE(wire_conn_init(conn, STREAMS, &owner, FIELDS, 3, &held_bytes) == 0);
    REQUIRE(wire_conn_start(conn, fds[0]) == 0);

    const bool reads = data[0] & 1, greeted = data[0] & 2;
    const int most = data[1] % 8;
    size_t piece = 1 + (size_t)data[2] * 8;
    int alive = 0;
    if (greeted) {
        size_t room;
        memcpy(wire_conn_room(conn, &room), SETTINGS, sizeof SETTINGS);
        alive = wire_conn_received(conn, sizeof SETTINGS);
    }
    for (size_t at = 3; at < size && alive == 0; at += piece) {
        size_t length = size - at < piece ? size - at : piece, room;
        conn->now += 1000000;
        if (conn->state >= WIRE_OPEN)
            wire_conn_fill(conn);
        open_streams(run, message, most);
        if (conn->state != WIRE_FREE && wire_conn_has_output(conn))
            alive = wire_conn_flush(conn) < 0 ? -1 : 0;
        if (reads)
            drain(fds[1]);
        if (alive < 0)
            break;
        REQUIRE(conn->window <= INT32_MAX);
        memcpy(wire_conn_room(conn, &room), data + at, length);
        REQUIRE(room >= length);
        alive = wire_conn_received(conn, length);
        if (at % 7 == 0 && run->states[0] == OPEN) {
            wire_conn_cancel(conn, &run->streams[0]);
            wire_stream_release(&run->streams[0]);
            run->states[0] = ENDED;
        }
    }
    REQUIRE(alive == 0 || conn->reason[0] != 0);
    uint32_t open = 0;
    for (size_t i = 0; i < STREAMS; i++)
        open += run->states[i] == OPEN;
    REQUIRE(conn->count == open);
    for (size_t i = 0; i < STREAMS; i++) {
        if (run->states[i] == OPEN) {
            wire_conn_forget(conn, &run->streams[i]);
            wire_stream_release(&run->streams[i]);
        }
    }
    wire_conn_close(conn);
    REQUIRE(conn->count == 0 && run->chunk.holds == 0 && held_bytes == 0);
    wire_conn_free(conn);
    close(fds[1]);
    free(conn);
    free(run);
    return 0;
}
