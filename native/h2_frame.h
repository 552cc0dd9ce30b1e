/* HTTP/2 frames (RFC 9113, 4 and 6) as both ends write and read them; the constants are
 * libnghttp2's. Knows nothing of connections or sockets. */
#ifndef BLASTER_H2_FRAME_H
#define BLASTER_H2_FRAME_H

#include <nghttp2/nghttp2.h>
#include <stddef.h>
#include <stdint.h>

enum {
    H2_FRAME_HEADER = 9,
    H2_FRAME_SIZE_MIN = 1 << 14, /* the limits of SETTINGS_MAX_FRAME_SIZE (6.5.2) */
    H2_FRAME_SIZE_MAX = (1 << 24) - 1,
    H2_SETTING = 6,        /* bytes of one entry of SETTINGS */
    H2_TABLE_SIZE = 4096,  /* of HPACK's dynamic table, until the peer says otherwise (6.5.2) */
    H2_FIELD_OVERHEAD = 32 /* bytes that a field counts beyond its name and its value (6.5.2) */
};
#define H2_WINDOW_MAX ((int64_t)INT32_MAX) /* 6.9.1 */

/* The first nine bytes of a frame (4.1). */
struct h2_frame {
    uint32_t length, stream;
    uint8_t type, flags;
};

static inline uint32_t h2_get32(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline void h2_put32(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

static inline struct h2_frame h2_get_frame(const uint8_t *at) {
    return (struct h2_frame){
        .length = h2_get32(at) >> 8,
        .stream = h2_get32(at + 5) & INT32_MAX,
        .type = at[3],
        .flags = at[4],
    };
}

/* Writes a frame's header and returns where its payload goes. */
static inline uint8_t *h2_put_frame(uint8_t *at, size_t length, uint8_t type, uint8_t flags,
                                    uint32_t stream) {
    h2_put32(at, (uint32_t)length << 8 | type);
    at[4] = flags;
    h2_put32(at + 5, stream);
    return at + H2_FRAME_HEADER;
}

/* Writes one entry of SETTINGS and returns where the next goes. */
uint8_t *h2_put_setting(uint8_t *at, uint16_t id, uint32_t value);

/* The functions below return NGHTTP2_NO_ERROR or the code of a connection error (5.4.1). */

/* Checks the length of a control frame, and whether its stream may be 0 or must be: what section 6
 * says of its type. DATA, HEADERS and CONTINUATION, and unknown types, are always good. */
uint32_t h2_check_frame(const struct h2_frame *frame);

/* Checks the value of a setting (6.5.2); unknown ones are always good. */
uint32_t h2_check_setting(uint16_t id, uint32_t value);

/* Cuts the padding off the payload of DATA or HEADERS, where the flags say that there is some. */
uint32_t h2_strip_padding(uint8_t flags, const uint8_t **payload, size_t *length);

/* Cuts padding and priority off the payload of HEADERS: a fragment of the header block is left. */
uint32_t h2_strip_headers(uint8_t flags, const uint8_t **payload, size_t *length);

/* The name of a frame's type (6). */
const char *h2_type_name(uint8_t type);

#endif
