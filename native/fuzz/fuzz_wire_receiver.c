/* libFuzzer over a connection of the native receiver, fed as a client feeds it.
 *
 * sources: receiver_conn.c receiver_input.c receiver_frames.c receiver_messages.c
 * sources: receiver_streams.c receiver_output.c receiver_head.c receiver_pool.c
 * sources: h2_frame.c receiver_gunzip.c unzstd.c scan.c json_scan.c idset.c
 * libs: libnghttp2 zlib libzstd
 * seeds: seeds_wire_receiver.py
 *
 * Nothing outside the input is read (ASan), what is answered consists of whole HTTP/2 frames, no
 * more output piles up than promised, and all memory comes back. */
#include "receiver_conn.h"
#include "scan.h"

#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

enum { OUTPUT_MOST = 1 << 20, ANSWER_MOST = 1024 };

/* The first byte of the input. */
enum {
    RAW_START = 1,
    RAW_FRAMES = 2,
    DIRECT = 4,
    TICKS = 8,
    SLOW_READER = 16,
    PIECES = 32,
    LATER = 64,
    FAULTS = 128
};

/* Follows the frames of the output across its pieces. */
struct reader {
    uint8_t head[9];
    size_t have;
    size_t left;
};

static void follow(struct reader *reader, const uint8_t *data, size_t length) {
    while (length > 0) {
        if (reader->left > 0) {
            size_t piece = reader->left < length ? reader->left : length;
            reader->left -= piece;
            data += piece;
            length -= piece;
            continue;
        }
        reader->head[reader->have++] = *data++;
        length--;
        if (reader->have == sizeof reader->head) {
            reader->left = (size_t)(reader->head[1] << 8 | reader->head[2]);
            REQUIRE(reader->head[0] == 0 && reader->left <= ANSWER_MOST);
            REQUIRE(reader->head[3] <= 8);
            reader->have = 0;
        }
    }
}

struct session {
    struct conn_shared shared;
    struct scanner *scanner;
    struct conn *conn;
    struct reader reader;
    uint8_t options;
    size_t piece;
    int64_t answer_at;
    struct fault_draw draw;
    bool garbled; /* what was sent is no HTTP/2 any more */
};

static struct grpc_answer deliver(void *context, const uint8_t *message, size_t length) {
    struct session *session = context;
    int64_t spans = scanner_request(session->scanner, SCAN_PROTOBUF, message, length);
    if (spans < 0)
        return (struct grpc_answer){GRPC_INVALID_ARGUMENT, "100 % wrong\n", 0, NULL, 0};
    if (session->options & LATER)
        session->answer_at = session->shared.now + 70000000;
    struct fault_draw *draw = &session->draw;
    draw->fault.kind = FAULT_NONE;
    if (session->options & FAULTS) { /* each kind in its turn */
        draw->random++;
        draw->fault = (struct fault){.kind = (enum fault_kind)(draw->random % FAULT_KINDS),
                                     .low = draw->random % 7 == 0 ? 300000 : 7};
        strcpy(draw->fault.text, draw->random % 2 ? "CA4" : "");
        session->garbled |= draw->fault.kind == FAULT_FRAMES;
        if (draw->fault.kind == FAULT_STATUS)
            return (struct grpc_answer){7, "on purpose", 0, draw, 0};
    }
    return (struct grpc_answer){GRPC_OK, NULL, session->answer_at, draw, spans};
}

/* A slow reader takes a little at a time; and nothing at all until a lot is waiting. */
static void drain(struct session *session) {
    size_t length;
    const uint8_t *output = conn_output(session->conn, &length);
    REQUIRE((output == NULL) == (length == 0) && length <= OUTPUT_MOST);
    if (output == NULL || (session->options & SLOW_READER && length < 1 << 18))
        return;
    if (session->options & SLOW_READER && length > 100)
        length = 100;
    if (!session->garbled && memcmp(output, "HTTP/", length < 5 ? length : 5) != 0)
        follow(&session->reader, output, length);
    conn_sent(session->conn, length);
}

static void feed(struct session *session, const uint8_t *data, size_t length) {
    while (length > 0) {
        size_t piece = session->options & PIECES ? 1 + session->piece++ % 23 : length, after;
        uint8_t *room;
        if (piece > length)
            piece = length;
        size_t fits = conn_room(session->conn, &room, &after);
        REQUIRE(after > 0);
        if (session->options & DIRECT && fits > 0) {
            piece = piece < fits ? piece : fits;
            memcpy(room, data, piece);
            REQUIRE(conn_feed(session->conn, room, piece) == piece);
        } else {
            /* A copy of its own, so that ASan sees a byte too far. */
            uint8_t *copy = malloc(piece);
            REQUIRE(copy != NULL);
            memcpy(copy, data, piece);
            size_t taken = conn_feed(session->conn, copy, piece);
            free(copy);
            REQUIRE(taken <= piece);
            piece = taken;
        }
        drain(session);
        data += piece;
        length -= piece;
        if (session->options & TICKS) {
            session->shared.now += 50000000;
            conn_tick(session->conn);
            conn_reopen_windows(session->conn);
            void *owner = conn_next_due(&session->shared);
            REQUIRE(owner == NULL || owner == session);
            REQUIRE(owner != NULL || conn_due(&session->shared) > session->shared.now);
            drain(session);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t start[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    struct session session = {0};
    struct conn_limits limits = {
        .max_message = 100000,
        .max_streams = 5,
        .handshake_timeout = 1000000000,
        .request_timeout = 3000000000,
        .idle_timeout = 5000000000,
    };
    if (size == 0)
        return 0;
    session.scanner = scanner_new(64);
    REQUIRE(session.scanner != NULL);
    conn_shared_init(&session.shared, &limits, 20000, deliver, &session);
    session.shared.now = 1;
    session.conn = conn_new(&session.shared, &session);
    REQUIRE(session.conn != NULL);
    session.options = data[0];
    data++;
    size--;
    if (!(session.options & RAW_START)) {
        feed(&session, start, sizeof start); /* the last byte is the string's own zero */
    }
    if (session.options & RAW_FRAMES) {
        feed(&session, data, size);
    } else {
        /* Frames whose lengths are always right: type, flags, stream, length / 16, payload. */
        while (size >= 4) {
            size_t length = (size_t)data[3] * 16;
            if (length > size - 4)
                length = size - 4;
            uint8_t head[9] = {
                0, (uint8_t)(length >> 8), (uint8_t)length, data[0], data[1], 0, 0, 0, data[2]};
            feed(&session, head, sizeof head);
            feed(&session, data + 4, length);
            data += 4 + length;
            size -= 4 + length;
        }
    }
    drain(&session);
    if (session.options & TICKS)
        conn_goaway(session.conn);
    conn_free(session.conn);
    conn_shared_clear(&session.shared);
    REQUIRE(session.shared.pool.committed == 0 && session.shared.pool.idle_bytes == 0);
    REQUIRE(conn_due(&session.shared) == INT64_MAX);
    scanner_free(session.scanner);
    return 0;
}
