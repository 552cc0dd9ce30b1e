#include "h2_frame.h"

#include <stdbool.h>

uint8_t *h2_put_setting(uint8_t *at, uint16_t id, uint32_t value) {
    at[0] = (uint8_t)(id >> 8);
    at[1] = (uint8_t)id;
    h2_put32(at + 2, value);
    return at + H2_SETTING;
}

uint32_t h2_check_frame(const struct h2_frame *frame) {
    const uint32_t length = frame->length;
    const bool of_stream = frame->stream != 0;
    switch (frame->type) {
    case NGHTTP2_SETTINGS:
        if (length % H2_SETTING != 0 || (frame->flags & NGHTTP2_FLAG_ACK && length != 0))
            return NGHTTP2_FRAME_SIZE_ERROR;
        return of_stream ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_NO_ERROR;
    case NGHTTP2_PING:
        if (length != 8)
            return NGHTTP2_FRAME_SIZE_ERROR;
        return of_stream ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_NO_ERROR;
    case NGHTTP2_GOAWAY:
        if (length < 8)
            return NGHTTP2_FRAME_SIZE_ERROR;
        return of_stream ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_NO_ERROR;
    case NGHTTP2_WINDOW_UPDATE:
        return length != 4 ? NGHTTP2_FRAME_SIZE_ERROR : NGHTTP2_NO_ERROR;
    case NGHTTP2_RST_STREAM:
        if (length != 4)
            return NGHTTP2_FRAME_SIZE_ERROR;
        return of_stream ? NGHTTP2_NO_ERROR : NGHTTP2_PROTOCOL_ERROR;
    case NGHTTP2_PRIORITY:
        if (length != 5)
            return NGHTTP2_FRAME_SIZE_ERROR;
        return of_stream ? NGHTTP2_NO_ERROR : NGHTTP2_PROTOCOL_ERROR;
    default:
        return NGHTTP2_NO_ERROR;
    }
}

uint32_t h2_check_setting(uint16_t id, uint32_t value) {
    switch (id) {
    case NGHTTP2_SETTINGS_ENABLE_PUSH:
        return value > 1 ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_NO_ERROR;
    case NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE:
        return value > H2_WINDOW_MAX ? NGHTTP2_FLOW_CONTROL_ERROR : NGHTTP2_NO_ERROR;
    case NGHTTP2_SETTINGS_MAX_FRAME_SIZE:
        return value < H2_FRAME_SIZE_MIN || value > H2_FRAME_SIZE_MAX ? NGHTTP2_PROTOCOL_ERROR
                                                                      : NGHTTP2_NO_ERROR;
    default:
        return NGHTTP2_NO_ERROR;
    }
}

uint32_t h2_strip_padding(uint8_t flags, const uint8_t **payload, size_t *length) {
    if (!(flags & NGHTTP2_FLAG_PADDED))
        return NGHTTP2_NO_ERROR;
    if (*length == 0)
        return NGHTTP2_FRAME_SIZE_ERROR;
    if ((*payload)[0] >= *length) /* 6.1 */
        return NGHTTP2_PROTOCOL_ERROR;
    *length -= 1u + (*payload)[0];
    *payload += 1;
    return NGHTTP2_NO_ERROR;
}

uint32_t h2_strip_headers(uint8_t flags, const uint8_t **payload, size_t *length) {
    const uint32_t code = h2_strip_padding(flags, payload, length);
    if (code != NGHTTP2_NO_ERROR || !(flags & NGHTTP2_FLAG_PRIORITY))
        return code;
    if (*length < 5)
        return NGHTTP2_FRAME_SIZE_ERROR;
    *payload += 5;
    *length -= 5;
    return NGHTTP2_NO_ERROR;
}

const char *h2_type_name(uint8_t type) {
    static const char *const NAMES[] = {
        "DATA",         "HEADERS", "PRIORITY", "RST_STREAM",    "SETTINGS",
        "PUSH_PROMISE", "PING",    "GOAWAY",   "WINDOW_UPDATE", "CONTINUATION",
    };
    return type < sizeof NAMES / sizeof *NAMES ? NAMES[type] : "an unknown frame";
}
