#include "wire_answer.h"

#include "grpc_status.h"
#include "varint.h"

#include <string.h>

void wire_answer_reset(struct wire_answer *answer) {
    answer->http_status = 0;
    answer->grpc_status = WIRE_GRPC_NONE;
    answer->content = 0;
    answer->encoding = WIRE_IDENTITY;
    answer->regular = false;
    answer->malformed = false;
    answer->retry_delay = -1;
    answer->message_length = 0;
}

static bool is(const uint8_t *name, size_t length, const char *what) {
    return length == strlen(what) && memcmp(name, what, length) == 0;
}

/* A decimal number of at most `digits` digits; -1 when it is anything else. */
static int decimal(const uint8_t *text, size_t length, size_t digits) {
    int value = 0;
    if (length == 0 || length > digits)
        return -1;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        value = value * 10 + (text[i] - '0');
    }
    return value;
}

/* application/grpc, application/grpc+proto or application/grpc;… */
static bool is_grpc(const uint8_t *value, size_t length) {
    static const char GRPC[] = "application/grpc";
    size_t plain = sizeof GRPC - 1;
    if (length < plain || memcmp(value, GRPC, plain) != 0)
        return false;
    return length == plain || value[plain] == '+' || value[plain] == ';' || value[plain] == ' ';
}

static int hex(uint8_t digit) {
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

/* Decoders "must not error out" on broken escapes: what is no escape stands for itself. */
static void percent_decode(struct wire_answer *answer, const uint8_t *value, size_t length) {
    size_t out = 0;
    for (size_t i = 0; i < length && out < WIRE_MESSAGE_MAX; i++) {
        int byte = value[i];
        if (byte == '%' && length - i > 2) {
            int high = hex(value[i + 1]), low = hex(value[i + 2]);
            if (high >= 0 && low >= 0) {
                byte = high * 16 + low;
                i += 2;
            }
        }
        answer->message[out++] = (char)byte;
    }
    answer->message_length = out;
}

static void details(struct wire_answer *answer, const uint8_t *value, size_t length) {
    uint8_t status[WIRE_DETAILS_MAX];
    int64_t decoded = wire_base64(value, length, status, sizeof status);
    if (decoded >= 0)
        answer->retry_delay = wire_retry_delay(status, (size_t)decoded);
}

void wire_answer_field(struct wire_answer *answer, const uint8_t *name, size_t name_length,
                       const uint8_t *value, size_t value_length) {
    if (name_length == 0) {
        answer->malformed = true;
        return;
    }
    if (name[0] == ':') {
        /* The only pseudo-header field of a response, once and before all others (8.3). */
        if (answer->regular || answer->http_status != 0 || !is(name, name_length, ":status"))
            answer->malformed = true;
        answer->http_status = decimal(value, value_length, 3);
        if (answer->http_status < 100)
            answer->malformed = true;
        return;
    }
    answer->regular = true;
    for (size_t i = 0; i < name_length; i++)
        if (name[i] >= 'A' && name[i] <= 'Z')
            answer->malformed = true; /* names are lower case (8.2.1) */

    if (is(name, name_length, "content-type")) {
        answer->content = is_grpc(value, value_length) ? 1 : -1;
    } else if (is(name, name_length, "grpc-status")) {
        int status = decimal(value, value_length, 9);
        if (answer->grpc_status != WIRE_GRPC_NONE || status < 0)
            answer->grpc_status = WIRE_GRPC_MALFORMED;
        else
            answer->grpc_status = status <= GRPC_UNAUTHENTICATED ? status : GRPC_UNKNOWN;
    } else if (is(name, name_length, "grpc-encoding")) {
        answer->encoding = is(value, value_length, "identity") ? WIRE_IDENTITY
                           : is(value, value_length, "gzip")   ? WIRE_GZIP
                           : is(value, value_length, "zstd")   ? WIRE_ZSTD
                                                               : WIRE_OTHER_ENCODING;
    } else if (is(name, name_length, "grpc-message")) {
        percent_decode(answer, value, value_length);
    } else if (is(name, name_length, "grpc-status-details-bin")) {
        details(answer, value, value_length);
    }
}

int wire_http_to_grpc(int http_status) {
    switch (http_status) {
    case 400:
        return GRPC_INTERNAL;
    case 401:
        return GRPC_UNAUTHENTICATED;
    case 403:
        return GRPC_PERMISSION_DENIED;
    case 404:
        return GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return GRPC_UNAVAILABLE;
    default:
        return GRPC_UNKNOWN;
    }
}

/* The protobuf wire format, as far as it is needed here. */
struct field {
    uint64_t number, varint;
    int type;
    const uint8_t *bytes;
    size_t length;
};

static bool varint(const uint8_t **at, const uint8_t *end, uint64_t *out) {
    const uint8_t *next = varint_read(*at, end, out);
    if (next != NULL)
        *at = next;
    return next != NULL;
}

/* 1: a field was read; 0: the message ends here; -1: it is malformed. */
static int next_field(const uint8_t **at, const uint8_t *end, struct field *field) {
    uint64_t tag, length = 0;
    *field = (struct field){0};
    if (*at == end)
        return 0;
    if (!varint(at, end, &tag) || tag >> 3 == 0)
        return -1;
    field->number = tag >> 3;
    field->type = (int)(tag & 7);
    switch (field->type) {
    case 0:
        return varint(at, end, &field->varint) ? 1 : -1;
    case 1:
        length = 8;
        break;
    case 2:
        if (!varint(at, end, &length))
            return -1;
        break;
    case 5:
        length = 4;
        break;
    default:
        return -1; /* groups are not of proto3 */
    }
    if (length > (uint64_t)(end - *at))
        return -1;
    field->bytes = *at;
    field->length = (size_t)length;
    *at += length;
    return 1;
}

int wire_partial_success(const uint8_t *message, size_t length, int64_t *rejected,
                         const uint8_t **error, size_t *error_length) {
    const uint8_t *at = message, *end = message + length;
    struct field outer, inner;
    int more;
    *rejected = 0;
    *error_length = 0;
    while ((more = next_field(&at, end, &outer)) == 1) {
        if (outer.number != 1 || outer.type != 2)
            continue;
        const uint8_t *part = outer.bytes, *part_end = outer.bytes + outer.length;
        while ((more = next_field(&part, part_end, &inner)) == 1) {
            if (inner.number == 1 && inner.type == 0) {
                *rejected = (int64_t)inner.varint;
            } else if (inner.number == 2 && inner.type == 2) {
                *error = inner.bytes;
                *error_length = inner.length;
            }
        }
        if (more < 0)
            return -1;
    }
    return more;
}

/* google.protobuf.Duration: seconds = 1, nanos = 2. -1 when it is malformed or negative. */
static int64_t duration(const uint8_t *at, const uint8_t *end) {
    int64_t seconds = 0, nanos = 0;
    struct field field;
    int more;
    while ((more = next_field(&at, end, &field)) == 1) {
        if (field.type == 0 && field.number == 1)
            seconds = (int64_t)field.varint;
        else if (field.type == 0 && field.number == 2)
            nanos = (int64_t)field.varint;
    }
    if (more < 0 || seconds < 0 || nanos < 0 || nanos > 999999999)
        return -1;
    if (seconds > INT64_MAX / 1000000000 - 1)
        return INT64_MAX;
    return seconds * 1000000000 + nanos;
}

int64_t wire_retry_delay(const uint8_t *status, size_t length) {
    static const char RETRY_INFO[] = "google.rpc.RetryInfo";
    const size_t suffix = sizeof RETRY_INFO - 1;
    const uint8_t *at = status, *end = status + length;
    struct field detail, part;
    /* google.rpc.Status.details = 3, each an Any: type_url = 1, value = 2. */
    while (next_field(&at, end, &detail) == 1) {
        if (detail.number != 3 || detail.type != 2)
            continue;
        const uint8_t *any = detail.bytes, *any_end = detail.bytes + detail.length;
        const uint8_t *info = NULL;
        size_t info_length = 0;
        bool named = false;
        while (next_field(&any, any_end, &part) == 1) {
            if (part.type == 2 && part.number == 1)
                named = part.length > suffix && part.bytes[part.length - suffix - 1] == '/' &&
                        memcmp(part.bytes + part.length - suffix, RETRY_INFO, suffix) == 0;
            else if (part.type == 2 && part.number == 2) {
                info = part.bytes;
                info_length = part.length;
            }
        }
        if (!named)
            continue;
        const uint8_t *field = info;
        int more = 0;
        while (info_length > 0 && (more = next_field(&field, info + info_length, &part)) == 1)
            if (part.type == 2 && part.number == 1) /* RetryInfo.retry_delay = 1 */
                return duration(part.bytes, part.bytes + part.length);
        return more; /* without a delay it is 0 */
    }
    return -1;
}

static int sextet(uint8_t c) {
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+')
        return 62;
    return c == '/' ? 63 : -1;
}

int64_t wire_base64(const uint8_t *text, size_t length, uint8_t *out, size_t room) {
    size_t produced = 0;
    uint32_t bits = 0;
    int held = 0;
    while (length > 0 && text[length - 1] == '=')
        length--;
    for (size_t i = 0; i < length; i++) {
        int value = sextet(text[i]);
        if (value < 0)
            return -1;
        bits = bits << 6 | (uint32_t)value;
        held += 6;
        if (held >= 8) {
            if (produced == room)
                return -1;
            held -= 8;
            out[produced++] = (uint8_t)(bits >> held);
        }
    }
    return (int64_t)produced;
}
