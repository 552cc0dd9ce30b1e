/* What is checked: the grammar of RFC 8259, UTF-8 included, and the type and range of every value
 * that the OTLP schema names, as protobuf's JSON has them (https://protobuf.dev/programming-guides/
 * json) with the differences that OTLP makes (https://opentelemetry.io/docs/specs/otlp/
 * #json-protobuf-encoding): IDs are hexadecimal, enums are numbers, unknown names are ignored.
 *
 * Where readers differ, this is what is done here:
 * - Names are lowerCamelCase or those of the .proto files, as in protobuf and the Collector.
 * - A known name that comes twice, in either form, and a second value of an AnyValue are malformed,
 *   as the conformance tests of protobuf ask. The Collector takes the last of scalars and adds up
 *   lists: which spans count would depend on the reader.
 * - null leaves a field unset; as an item of a list it is malformed (protobuf; the Collector takes
 *   it for an empty message).
 * - Integers may be text, and both may have a fraction or an exponent when the value is whole. Text
 *   may have leading zeros. Neither may be out of range.
 * - Enums may be numbers, numbers as text, or names; an unknown name is malformed (the Collector,
 * and protobuf unless it is told to ignore unknown fields).
 * - IDs are hexadecimal digits in either case, in pairs; a span whose IDs have a wrong length is
 *   counted as invalid, as in protobuf's encoding (the Collector refuses the request).
 * - bytesValue is base64 in either alphabet, padded or not.
 * - Half a surrogate pair is malformed in any string (protobuf; the Collector makes it U+FFFD), as
 *   is a byte order mark (RFC 8259, 8.1).
 * - Messages nest 100 deep, as in protobuf, and values of unknown names 100 deep in themselves.
 *
 * Every function that reads is given where to begin, reads before `end`, and returns where it
 * stopped, or NULL when the bytes are malformed.
 */
#include "json_scan.h"

#include "utf8.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* The names of fields, of all messages. */
enum name {
    UNKNOWN,
    ARRAY_VALUE_,
    ATTRIBUTES,
    BOOL_VALUE,
    BYTES_VALUE,
    CODE,
    DESCRIPTION_KEYS,
    DOUBLE_VALUE,
    DROPPED_ATTRIBUTES_COUNT,
    DROPPED_EVENTS_COUNT,
    DROPPED_LINKS_COUNT,
    END_TIME_UNIX_NANO,
    ENTITY_REFS,
    EVENTS,
    FLAGS,
    ID_KEYS,
    INT_VALUE,
    KEY,
    KIND,
    KVLIST_VALUE,
    LINKS,
    MESSAGE_,
    NAME,
    PARENT_SPAN_ID,
    RESOURCE_,
    RESOURCE_SPANS_,
    SCHEMA_URL,
    SCOPE_,
    SCOPE_SPANS_,
    SPANS,
    SPAN_ID,
    START_TIME_UNIX_NANO,
    STATUS_,
    STRING_VALUE,
    TIME_UNIX_NANO,
    TRACE_ID,
    TRACE_STATE,
    TYPE,
    VALUE,
    VALUES,
    VERSION,
    NAMES
};

enum { LONGEST_NAME = 24 };

#define IS(text, name)                                                                             \
    if (memcmp(s, text, sizeof text - 1) == 0)                                                     \
        return name;

static inline enum name name_of(const uint8_t *s, size_t size) {
    switch (size) {
    case 3:
        IS("key", KEY)
        break;
    case 4:
        IS("name", NAME)
        IS("kind", KIND)
        IS("code", CODE)
        IS("type", TYPE)
        break;
    case 5:
        IS("value", VALUE)
        IS("spans", SPANS)
        IS("flags", FLAGS)
        IS("links", LINKS)
        IS("scope", SCOPE_)
        break;
    case 6:
        IS("spanId", SPAN_ID)
        IS("status", STATUS_)
        IS("values", VALUES)
        IS("events", EVENTS)
        IS("idKeys", ID_KEYS)
        break;
    case 7:
        IS("traceId", TRACE_ID)
        IS("span_id", SPAN_ID)
        IS("message", MESSAGE_)
        IS("version", VERSION)
        IS("id_keys", ID_KEYS)
        break;
    case 8:
        IS("intValue", INT_VALUE)
        IS("trace_id", TRACE_ID)
        IS("resource", RESOURCE_)
        break;
    case 9:
        IS("boolValue", BOOL_VALUE)
        IS("int_value", INT_VALUE)
        IS("schemaUrl", SCHEMA_URL)
        break;
    case 10:
        IS("attributes", ATTRIBUTES)
        IS("traceState", TRACE_STATE)
        IS("bool_value", BOOL_VALUE)
        IS("arrayValue", ARRAY_VALUE_)
        IS("bytesValue", BYTES_VALUE)
        IS("scopeSpans", SCOPE_SPANS_)
        IS("schema_url", SCHEMA_URL)
        IS("entityRefs", ENTITY_REFS)
        break;
    case 11:
        IS("stringValue", STRING_VALUE)
        IS("doubleValue", DOUBLE_VALUE)
        IS("kvlistValue", KVLIST_VALUE)
        IS("array_value", ARRAY_VALUE_)
        IS("bytes_value", BYTES_VALUE)
        IS("trace_state", TRACE_STATE)
        IS("scope_spans", SCOPE_SPANS_)
        IS("entity_refs", ENTITY_REFS)
        break;
    case 12:
        IS("parentSpanId", PARENT_SPAN_ID)
        IS("timeUnixNano", TIME_UNIX_NANO)
        IS("string_value", STRING_VALUE)
        IS("double_value", DOUBLE_VALUE)
        IS("kvlist_value", KVLIST_VALUE)
        break;
    case 13:
        IS("resourceSpans", RESOURCE_SPANS_)
        break;
    case 14:
        IS("resource_spans", RESOURCE_SPANS_)
        IS("parent_span_id", PARENT_SPAN_ID)
        IS("time_unix_nano", TIME_UNIX_NANO)
        break;
    case 15:
        IS("endTimeUnixNano", END_TIME_UNIX_NANO)
        IS("descriptionKeys", DESCRIPTION_KEYS)
        break;
    case 16:
        IS("description_keys", DESCRIPTION_KEYS)
        break;
    case 17:
        IS("startTimeUnixNano", START_TIME_UNIX_NANO)
        IS("droppedLinksCount", DROPPED_LINKS_COUNT)
        break;
    case 18:
        IS("end_time_unix_nano", END_TIME_UNIX_NANO)
        IS("droppedEventsCount", DROPPED_EVENTS_COUNT)
        break;
    case 19:
        IS("dropped_links_count", DROPPED_LINKS_COUNT)
        break;
    case 20:
        IS("start_time_unix_nano", START_TIME_UNIX_NANO)
        IS("dropped_events_count", DROPPED_EVENTS_COUNT)
        break;
    case 22:
        IS("droppedAttributesCount", DROPPED_ATTRIBUTES_COUNT)
        break;
    case LONGEST_NAME:
        IS("dropped_attributes_count", DROPPED_ATTRIBUTES_COUNT)
        break;
    }
    return UNKNOWN;
}

enum message {
    REQUEST,
    RESOURCE_SPANS,
    RESOURCE,
    ENTITY_REF,
    SCOPE_SPANS,
    SCOPE,
    SPAN,
    ATTRIBUTE, /* a KeyValue of a span */
    KEY_VALUE, /* any other */
    ANY_VALUE,
    ARRAY_VALUE,
    KEY_VALUE_LIST,
    EVENT,
    LINK,
    STATUS,
    MESSAGES
};

/* What stands in a field. Those that count have a kind of their own. */
enum kind {
    ANYTHING, /* an unknown name's */
    ONE,      /* message */
    MANY,     /* messages */
    TEXT,
    TEXTS,
    BOOL,
    DOUBLE,
    BASE64,
    HEX,
    SPAN_KIND,
    INT64,
    UINT32,
    UINT64,
    START,
    END,
    STATUS_CODE,
    ID_OF_TRACE,
    ID_OF_SPAN,
    ATTRIBUTE_KEY
};

struct field {
    uint8_t kind;
    uint8_t message;
};

static const struct field fields[MESSAGES][NAMES] = {
    [REQUEST] = {[RESOURCE_SPANS_] = {MANY, RESOURCE_SPANS}},
    [RESOURCE_SPANS] = {[RESOURCE_] = {ONE, RESOURCE},
                        [SCOPE_SPANS_] = {MANY, SCOPE_SPANS},
                        [SCHEMA_URL] = {TEXT, 0}},
    [RESOURCE] = {[ATTRIBUTES] = {MANY, KEY_VALUE},
                  [DROPPED_ATTRIBUTES_COUNT] = {UINT32, 0},
                  [ENTITY_REFS] = {MANY, ENTITY_REF}},
    [ENTITY_REF] = {[SCHEMA_URL] = {TEXT, 0},
                    [TYPE] = {TEXT, 0},
                    [ID_KEYS] = {TEXTS, 0},
                    [DESCRIPTION_KEYS] = {TEXTS, 0}},
    [SCOPE_SPANS] = {[SCOPE_] = {ONE, SCOPE}, [SPANS] = {MANY, SPAN}, [SCHEMA_URL] = {TEXT, 0}},
    [SCOPE] = {[NAME] = {TEXT, 0},
               [VERSION] = {TEXT, 0},
               [ATTRIBUTES] = {MANY, KEY_VALUE},
               [DROPPED_ATTRIBUTES_COUNT] = {UINT32, 0}},
    [SPAN] = {[TRACE_ID] = {ID_OF_TRACE, 0},
              [SPAN_ID] = {ID_OF_SPAN, 0},
              [TRACE_STATE] = {TEXT, 0},
              [PARENT_SPAN_ID] = {HEX, 0},
              [FLAGS] = {UINT32, 0},
              [NAME] = {TEXT, 0},
              [KIND] = {SPAN_KIND, 0},
              [START_TIME_UNIX_NANO] = {START, 0},
              [END_TIME_UNIX_NANO] = {END, 0},
              [ATTRIBUTES] = {MANY, ATTRIBUTE},
              [DROPPED_ATTRIBUTES_COUNT] = {UINT32, 0},
              [EVENTS] = {MANY, EVENT},
              [DROPPED_EVENTS_COUNT] = {UINT32, 0},
              [LINKS] = {MANY, LINK},
              [DROPPED_LINKS_COUNT] = {UINT32, 0},
              [STATUS_] = {ONE, STATUS}},
    [ATTRIBUTE] = {[KEY] = {ATTRIBUTE_KEY, 0}, [VALUE] = {ONE, ANY_VALUE}},
    [KEY_VALUE] = {[KEY] = {TEXT, 0}, [VALUE] = {ONE, ANY_VALUE}},
    [ANY_VALUE] = {[STRING_VALUE] = {TEXT, 0},
                   [BOOL_VALUE] = {BOOL, 0},
                   [INT_VALUE] = {INT64, 0},
                   [DOUBLE_VALUE] = {DOUBLE, 0},
                   [ARRAY_VALUE_] = {ONE, ARRAY_VALUE},
                   [KVLIST_VALUE] = {ONE, KEY_VALUE_LIST},
                   [BYTES_VALUE] = {BASE64, 0}},
    [ARRAY_VALUE] = {[VALUES] = {MANY, ANY_VALUE}},
    [KEY_VALUE_LIST] = {[VALUES] = {MANY, KEY_VALUE}},
    [EVENT] = {[TIME_UNIX_NANO] = {UINT64, 0},
               [NAME] = {TEXT, 0},
               [ATTRIBUTES] = {MANY, KEY_VALUE},
               [DROPPED_ATTRIBUTES_COUNT] = {UINT32, 0}},
    [LINK] = {[TRACE_ID] = {HEX, 0},
              [SPAN_ID] = {HEX, 0},
              [TRACE_STATE] = {TEXT, 0},
              [ATTRIBUTES] = {MANY, KEY_VALUE},
              [DROPPED_ATTRIBUTES_COUNT] = {UINT32, 0},
              [FLAGS] = {UINT32, 0}},
    [STATUS] = {[MESSAGE_] = {TEXT, 0}, [CODE] = {STATUS_CODE, 0}},
};

/* ---- strings ---- */

/* The first byte from p on that ends a run of plain characters in a string: a quotation mark, a
 * backslash, a control character; `end` when there is none. */
static inline const uint8_t *plain_end(const uint8_t *p, const uint8_t *end) {
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\');
    const __m128i control = _mm_set1_epi8(0x1f);
    while (end - p >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i ends = _mm_or_si128(
            _mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, backslash)),
            _mm_cmpeq_epi8(_mm_min_epu8(bytes, control), bytes));
        unsigned mask = (unsigned)_mm_movemask_epi8(ends);
        if (mask != 0)
            return p + __builtin_ctz(mask);
        p += 16;
    }
#endif
    while (p < end && *p != '"' && *p != '\\' && *p >= 0x20)
        p++;
    return p;
}

static int hex_value(uint8_t digit) {
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* The four digits of \u. */
static const uint8_t *read_unit(const uint8_t *p, const uint8_t *end, unsigned *unit) {
    if (end - p < 4)
        return NULL;
    *unit = 0;
    for (int i = 0; i < 4; i++) {
        int value = hex_value(*p++);
        if (value < 0)
            return NULL;
        *unit = *unit << 4 | (unsigned)value;
    }
    return p;
}

/* What follows a backslash. The character goes to *out when it is ASCII, else 0xff does, which is
 * part of nothing that is looked for. */
static const uint8_t *read_escape(const uint8_t *p, const uint8_t *end, uint8_t *out) {
    static const char named[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    unsigned unit, low;
    if (p == end)
        return NULL;
    if (*p != 'u') {
        const char *found = *p != 0 ? strchr(named, *p) : NULL;
        if (found == NULL)
            return NULL;
        *out = (uint8_t)meant[found - named];
        return p + 1;
    }
    if ((p = read_unit(p + 1, end, &unit)) == NULL)
        return NULL;
    *out = unit < 0x80 ? (uint8_t)unit : 0xff;
    if (unit < 0xd800 || unit > 0xdfff)
        return p;
    if (unit >= 0xdc00 || end - p < 2 || p[0] != '\\' || p[1] != 'u' ||
        (p = read_unit(p + 2, end, &low)) == NULL)
        return NULL;
    return low >= 0xdc00 && low <= 0xdfff ? p : NULL;
}

/* What stands between two quotation marks, well-formed. */
struct text {
    const uint8_t *p, *end;
    bool escaped;
};

static inline const uint8_t *read_text(const uint8_t *p, const uint8_t *end, struct text *text) {
    if (p == end || *p != '"')
        return NULL;
    text->p = ++p;
    text->escaped = false;
    for (;;) {
        p = plain_end(p, end);
        if (p == end)
            return NULL;
        if (*p == '"') {
            text->end = p;
            return p + 1;
        }
        uint8_t ignored;
        if (*p != '\\' || (p = read_escape(p + 1, end, &ignored)) == NULL)
            return NULL;
        text->escaped = true;
    }
}

/* The next character, escapes resolved; -1 at the end. */
static int next(struct text *text) {
    if (text->p == text->end)
        return -1;
    uint8_t c = *text->p++;
    if (c == '\\')
        text->p = read_escape(text->p, text->end, &c);
    return c;
}

/* The characters of a text, or the first `room` of them, and how many those are. */
static size_t unescape(struct text text, uint8_t *out, size_t room) {
    size_t size = 0;
    for (int c; size < room && (c = next(&text)) >= 0;)
        out[size++] = (uint8_t)c;
    return size;
}

static bool equal(struct text text, const char *wanted) {
    for (; *wanted != '\0'; wanted++)
        if (next(&text) != (uint8_t)*wanted)
            return false;
    return text.p == text.end;
}

/* Sixteen hexadecimal digits as eight bytes; false when they are none. */
static inline bool hex_word(const uint8_t *p, uint8_t *out) {
#ifdef __SSE2__
    __m128i text = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i digits = _mm_sub_epi8(text, _mm_set1_epi8('0'));
    __m128i letters = _mm_sub_epi8(_mm_or_si128(text, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
    __m128i is_digit = _mm_cmpeq_epi8(_mm_min_epu8(digits, _mm_set1_epi8(9)), digits);
    __m128i is_letter = _mm_cmpeq_epi8(_mm_min_epu8(letters, _mm_set1_epi8(5)), letters);
    __m128i values =
        _mm_or_si128(_mm_and_si128(digits, is_digit),
                     _mm_and_si128(_mm_add_epi8(letters, _mm_set1_epi8(10)), is_letter));
    /* Each two of them, the first of which is the higher, into one byte. */
    __m128i high = _mm_and_si128(_mm_slli_epi16(values, 4), _mm_set1_epi16(0xf0));
    __m128i bytes = _mm_or_si128(high, _mm_srli_epi16(values, 8));
    _mm_storel_epi64((__m128i *)(void *)out, _mm_packus_epi16(bytes, bytes));
    return _mm_movemask_epi8(_mm_or_si128(is_digit, is_letter)) == 0xffff;
#else
    int wrong = 0;
    for (size_t i = 0; i < 8; i++) {
        int high = hex_value(p[2 * i]), low = hex_value(p[2 * i + 1]);
        wrong |= high | low;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return wrong >= 0;
#endif
}

/* Reads pairs of hexadecimal digits, of which the first `most` bytes (a multiple of 8) go to `out`.
 */
static inline const uint8_t *read_hex(const uint8_t *p, const uint8_t *end, uint8_t *out,
                                      size_t most, size_t *size) {
    if ((size_t)(end - p) > 2 * most + 1 && p[0] == '"' && p[2 * most + 1] == '"') {
        bool right = true;
        for (size_t i = 0; i < most; i += 8)
            right &= hex_word(p + 1 + 2 * i, out + i);
        *size = most;
        if (right)
            return p + 2 * most + 2;
    }
    struct text text;
    if ((p = read_text(p, end, &text)) == NULL)
        return NULL;
    *size = 0;
    for (int c; (c = next(&text)) >= 0; ++*size) {
        int high = hex_value((uint8_t)c), low = (c = next(&text)) < 0 ? -1 : hex_value((uint8_t)c);
        if (high < 0 || low < 0)
            return NULL;
        if (*size < most)
            out[*size] = (uint8_t)(high << 4 | low);
    }
    return p;
}

static bool is_base64(struct text text) {
    size_t digits = 0, padding = 0;
    for (int c; (c = next(&text)) >= 0;) {
        if (c == '=') {
            padding++;
        } else {
            bool digit = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                         (c >= '0' && c <= '9') || c == '+' || c == '/' || c == '-' || c == '_';
            if (!digit || padding != 0)
                return false;
            digits++;
        }
    }
    return digits % 4 != 1 && padding <= 2;
}

/* ---- numbers ---- */

enum { DECIMAL_DIGITS = 20 }; /* of the largest 64-bit number */

/* A number as it is written: 0.DIGITS * 10**point, or 0 when `size` is 0. The first digit is none
 * of 0, and neither is the last, unless there are more than can be kept. */
struct decimal {
    bool negative;
    uint8_t digits[DECIMAL_DIGITS];
    size_t size; /* of all of them, though only so many are kept */
    int64_t point;
};

/* Reads the whole text as a number of RFC 8259; leading zeros are for text between marks. */
static bool read_decimal(struct text text, bool leading_zeros, struct decimal *out) {
    const int64_t exponent_limit = INT64_C(1) << 40; /* more than any number has digits */
    size_t zeros = 0, whole = 0, fraction = 0;
    int64_t exponent = 0;
    *out = (struct decimal){0};
    int c = next(&text);
    if (c == '-') {
        out->negative = true;
        c = next(&text);
    }
    int first = c;
    bool dot = false;
    for (;; c = next(&text)) {
        if (c == '.' && !dot && whole != 0) {
            dot = true;
            continue;
        }
        if (c < '0' || c > '9')
            break;
        if (dot)
            fraction++;
        else
            whole++;
        if (c == '0') { /* that may be the last of the digits, or stand before the first */
            zeros += out->size != 0;
            out->point -= out->size == 0 && dot;
            out->point += out->size != 0 && !dot;
            continue;
        }
        for (; zeros != 0; zeros--, out->size++)
            if (out->size < DECIMAL_DIGITS)
                out->digits[out->size] = 0;
        if (out->size < DECIMAL_DIGITS)
            out->digits[out->size] = (uint8_t)(c - '0');
        out->size++;
        out->point += !dot;
    }
    if (whole == 0 || (dot && fraction == 0) || (!leading_zeros && first == '0' && whole > 1))
        return false;
    if (c == 'e' || c == 'E') {
        c = next(&text);
        bool negative = c == '-';
        if (c == '-' || c == '+')
            c = next(&text);
        if (c < '0' || c > '9')
            return false;
        for (; c >= '0' && c <= '9'; c = next(&text))
            if (exponent < exponent_limit)
                exponent = exponent * 10 + (c - '0');
        out->point += negative ? -exponent : exponent;
    }
    return c < 0;
}

/* Whether it is a whole number from -lowest to highest, which then goes to *value. */
static bool whole_number(const struct decimal *decimal, uint64_t lowest, uint64_t highest,
                         uint64_t *value) {
    uint64_t limit = decimal->negative ? lowest : highest, sum = 0;
    *value = 0;
    if (decimal->size == 0)
        return true;
    if (decimal->point > DECIMAL_DIGITS || decimal->point < (int64_t)decimal->size)
        return false;
    for (int64_t i = 0; i < decimal->point; i++) {
        uint64_t digit = i < (int64_t)decimal->size ? decimal->digits[i] : 0;
        if (sum > (limit - digit) / 10 || digit > limit)
            return false;
        sum = sum * 10 + digit;
    }
    *value = decimal->negative ? 0 - sum : sum;
    return true;
}

/* Whether a double has it, to 20 digits. */
static bool fits_double(const struct decimal *decimal) {
    static const char too_large[] = "17976931348623158080"; /* … and 289 digits: 2**1024 - 2**970 */
    if (decimal->size == 0 || decimal->point != 309)
        return decimal->size == 0 || decimal->point < 309;
    for (size_t i = 0; i < DECIMAL_DIGITS; i++) {
        int digit = i < decimal->size ? decimal->digits[i] : 0;
        if (digit != too_large[i] - '0')
            return digit < too_large[i] - '0';
    }
    return false;
}

static inline bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

/* A number that is no text, as it is written. */
static const uint8_t *read_number(const uint8_t *p, const uint8_t *end, struct decimal *decimal) {
    struct text text = {.p = p};
    while (p < end && (is_digit(*p) || *p == '-' || *p == '+' || *p == '.' || (*p | 0x20) == 'e'))
        p++;
    text.end = p;
    return read_decimal(text, false, decimal) ? p : NULL;
}

/* Eight decimal digits; false when they are none. Two, four, then eight digits are made one number
 * in each multiplication. */
static inline bool eight_digits(const uint8_t *p, uint64_t *value) {
    uint64_t text = load_fixed64(p);
    if ((text & 0xf0f0f0f0f0f0f0f0) != 0x3030303030303030 ||
        ((text + 0x0606060606060606) & 0xf0f0f0f0f0f0f0f0) != 0x3030303030303030)
        return false;
    text = (text & 0x0f0f0f0f0f0f0f0f) * (10 << 8 | 1) >> 8;
    text = (text & 0x00ff00ff00ff00ff) * (100 << 16 | 1) >> 16;
    *value = (text & 0x0000ffff0000ffff) * (UINT64_C(10000) << 32 | 1) >> 32;
    return true;
}

/* Digits and nothing else, as a number or as text; NULL for all else, right or wrong. */
static inline const uint8_t *read_digits(const uint8_t *p, const uint8_t *end, uint64_t *value) {
    bool quoted = *p == '"';
    const uint8_t *first = p += quoted;
    uint64_t sum = 0, high, low;
    if (end - p > 16 && eight_digits(p, &high) && eight_digits(p + 8, &low)) {
        sum = high * 100000000 + low;
        p += 16;
    }
    while (p < end && is_digit(*p) && p - first < 19) /* as many as surely fit */
        sum = sum * 10 + (uint64_t)(*p++ - '0');
    if (p == first || p == end)
        return NULL;
    *value = sum;
    if (quoted)
        return *p == '"' ? p + 1 : NULL;
    bool more = is_digit(*p) || *p == '.' || (*p | 0x20) == 'e';
    return more || (*first == '0' && p - first > 1) ? NULL : p;
}

/* A whole number from -lowest to highest, as a number or as text. */
static inline const uint8_t *read_integer(const uint8_t *p, const uint8_t *end, uint64_t lowest,
                                          uint64_t highest, uint64_t *value) {
    const uint8_t *after = read_digits(p, end, value);
    if (after != NULL && *value <= highest)
        return after;
    struct text text;
    struct decimal decimal;
    if (*p != '"')
        p = read_number(p, end, &decimal);
    else if ((p = read_text(p, end, &text)) != NULL && !read_decimal(text, true, &decimal))
        return NULL;
    return p != NULL && whole_number(&decimal, lowest, highest, value) ? p : NULL;
}

static const uint8_t *read_uint64(const uint8_t *p, const uint8_t *end, uint64_t *value) {
    return read_integer(p, end, 0, UINT64_MAX, value);
}

static const char *const kinds[] = {"SPAN_KIND_UNSPECIFIED", "SPAN_KIND_INTERNAL",
                                    "SPAN_KIND_SERVER",      "SPAN_KIND_CLIENT",
                                    "SPAN_KIND_PRODUCER",    "SPAN_KIND_CONSUMER"};
static const char *const codes[] = {"STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"};

/* One of the names, which stands for its index, or a number. */
static const uint8_t *read_enum(const uint8_t *p, const uint8_t *end, const char *const *names,
                                uint32_t count, uint32_t *value) {
    struct text text;
    uint64_t number;
    const uint8_t *after = read_integer(p, end, (uint64_t)INT32_MAX + 1, INT32_MAX, &number);
    if (after != NULL) {
        *value = (uint32_t)number;
        return after;
    }
    if ((p = read_text(p, end, &text)) == NULL)
        return NULL;
    for (*value = 0; *value < count; ++*value)
        if (equal(text, names[*value]))
            return p;
    return NULL;
}

static const uint8_t *read_double(const uint8_t *p, const uint8_t *end) {
    struct text text;
    struct decimal decimal;
    if (*p != '"')
        p = read_number(p, end, &decimal);
    else if ((p = read_text(p, end, &text)) != NULL && !read_decimal(text, true, &decimal))
        return equal(text, "NaN") || equal(text, "Infinity") || equal(text, "-Infinity") ? p : NULL;
    return p != NULL && fits_double(&decimal) ? p : NULL;
}

/* ---- values ---- */

static const uint8_t *skip_spaces(const uint8_t *p, const uint8_t *end) {
#ifdef __SSE2__
    const __m128i space = _mm_set1_epi8(' '), line = _mm_set1_epi8('\n');
    const __m128i tab = _mm_set1_epi8('\t'), carriage = _mm_set1_epi8('\r');
    while (end - p >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i spaces =
            _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(bytes, space), _mm_cmpeq_epi8(bytes, line)),
                         _mm_or_si128(_mm_cmpeq_epi8(bytes, tab), _mm_cmpeq_epi8(bytes, carriage)));
        unsigned others = (unsigned)_mm_movemask_epi8(spaces) ^ 0xffff;
        if (others != 0)
            return p + __builtin_ctz(others);
        p += 16;
    }
#endif
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r'))
        p++;
    return p;
}

/* The first byte that is no white space. Most often there is none to skip, or one space. */
static inline const uint8_t *skip_space(const uint8_t *p, const uint8_t *end) {
    if (p < end && *p == ' ')
        p++;
    return p < end && *p <= ' ' ? skip_spaces(p, end) : p;
}

static const uint8_t *read_literal(const uint8_t *p, const uint8_t *end, const char *literal) {
    size_t size = strlen(literal);
    return (size_t)(end - p) >= size && memcmp(p, literal, size) == 0 ? p + size : NULL;
}

/* The name of a member and the colon after it, from the quotation mark to the value. */
static inline const uint8_t *read_name(const uint8_t *p, const uint8_t *end, enum name *name) {
    struct text text;
    if ((p = read_text(p, end, &text)) == NULL)
        return NULL;
    if (!text.escaped) {
        *name = name_of(text.p, (size_t)(text.end - text.p));
    } else {
        uint8_t plain[LONGEST_NAME + 1];
        *name = name_of(plain, unescape(text, plain, sizeof plain));
    }
    p = skip_space(p, end);
    if (p == end || *p != ':')
        return NULL;
    p = skip_space(p + 1, end);
    return p < end ? p : NULL;
}

/* What follows an item: another, from p on, or (*last) the end of the list or object. */
static inline const uint8_t *after_item(const uint8_t *p, const uint8_t *end, uint8_t closing,
                                        bool *last) {
    p = skip_space(p, end);
    if (p == end || (*p != ',' && *p != closing))
        return NULL;
    *last = *p == closing;
    return *last ? p + 1 : skip_space(p + 1, end);
}

/* Any value, of which nothing counts. */
static const uint8_t *skip_value(const uint8_t *p, const uint8_t *end) {
    uint8_t closing[MOST_DEPTH];
    size_t depth = 0;
    struct text ignored;
    struct decimal number;
    enum name name;
    for (;;) {
        bool last = true;
        if (p == end)
            return NULL;
        switch (*p) {
        case '{':
        case '[':
            if (depth == MOST_DEPTH)
                return NULL;
            closing[depth++] = *p == '{' ? '}' : ']';
            p = skip_space(p + 1, end);
            if (p == end)
                return NULL;
            last = *p == closing[depth - 1];
            if (last) {
                p++;
                depth--;
            }
            break;
        case '"':
            p = read_text(p, end, &ignored);
            break;
        case 't':
            p = read_literal(p, end, "true");
            break;
        case 'f':
            p = read_literal(p, end, "false");
            break;
        case 'n':
            p = read_literal(p, end, "null");
            break;
        default:
            p = read_number(p, end, &number);
        }
        if (p == NULL)
            return NULL;
        while (last) { /* a value ended, and with it those that it was the last item of */
            if (depth == 0)
                return p;
            if ((p = after_item(p, end, closing[depth - 1], &last)) == NULL)
                return NULL;
            depth -= last;
        }
        if (closing[depth - 1] == '}' && (p = read_name(p, end, &name)) == NULL)
            return NULL;
    }
}

/* The request at hand. */
struct reader {
    const uint8_t *end;
    struct tally *tally;
    struct span span; /* the last that was begun */
    uint8_t trace_id[16], span_id[8];
};

static const uint8_t *read_message(struct reader *reader, const uint8_t *p, enum message message,
                                   int depth);

static const uint8_t *read_span(struct reader *reader, const uint8_t *p, int depth) {
    reader->span = (struct span){.trace_id = reader->trace_id, .span_id = reader->span_id};
    p = read_message(reader, p, SPAN, depth);
    if (p != NULL)
        tally_span(reader->tally, &reader->span);
    return p;
}

/* An attribute as nearly all exporters write it: a short string by its key, and no white space.
 * NULL for any other, right or wrong. */
static inline const uint8_t *read_plain_attribute(const uint8_t *p, const uint8_t *end,
                                                  struct keys *keys) {
    static const char before[] = "{\"key\":\"", between[] = "\",\"value\":{\"stringValue\":\"";
    enum { BEFORE = sizeof before - 1, BETWEEN = sizeof between - 1 };
    if (end - p <= BEFORE || memcmp(p, before, BEFORE) != 0)
        return NULL;
    const uint8_t *key = p + BEFORE, *key_end = plain_end(key, end);
    if (end - key_end <= BETWEEN || memcmp(key_end, between, BETWEEN) != 0)
        return NULL;
    p = plain_end(key_end + BETWEEN, end);
    if (end - p < 3 || memcmp(p, "\"}}", 3) != 0)
        return NULL;
    note_key(key, (size_t)(key_end - key), keys);
    return p + 3;
}

/* A list of messages, or of texts. */
static const uint8_t *read_list(struct reader *reader, const uint8_t *p, struct field field,
                                int depth) {
    const uint8_t *end = reader->end;
    struct text ignored;
    if (*p != '[')
        return NULL;
    p = skip_space(p + 1, end);
    if (p < end && *p == ']')
        return p + 1;
    for (bool last = false; !last;) {
        const uint8_t *after;
        if (field.message == ATTRIBUTE &&
            (after = read_plain_attribute(p, end, &reader->span.keys)) != NULL)
            p = after;
        else if (field.kind == TEXTS)
            p = read_text(p, end, &ignored);
        else if (field.message == SPAN)
            p = read_span(reader, p, depth);
        else
            p = read_message(reader, p, field.message, depth);
        if (p == NULL || (p = after_item(p, end, ']', &last)) == NULL)
            return NULL;
    }
    return p;
}

static const uint8_t *read_key(const uint8_t *p, const uint8_t *end, struct keys *keys) {
    struct text text;
    if ((p = read_text(p, end, &text)) == NULL)
        return NULL;
    if (!text.escaped) {
        note_key(text.p, (size_t)(text.end - text.p), keys);
    } else {
        uint8_t plain[11]; /* one more than any key has that counts */
        note_key(plain, unescape(text, plain, sizeof plain), keys);
    }
    return p;
}

/* The value of a member, from its first byte. */
static inline const uint8_t *read_value(struct reader *reader, const uint8_t *p, struct field field,
                                        int depth) {
    const uint8_t *end = reader->end;
    struct span *span = &reader->span;
    struct text text;
    uint64_t number;
    uint32_t code;
    size_t size;
    uint8_t ignored[8];
    if (field.kind == ANYTHING)
        return skip_value(p, end);
    if (*p == 'n')
        return read_literal(p, end, "null");
    switch (field.kind) {
    case ONE:
        return read_message(reader, p, field.message, depth + 1);
    case MANY:
    case TEXTS:
        return read_list(reader, p, field, depth + 1);
    case BOOL:
        return read_literal(p, end, *p == 't' ? "true" : "false");
    case DOUBLE:
        return read_double(p, end);
    case BASE64:
        p = read_text(p, end, &text);
        return p != NULL && is_base64(text) ? p : NULL;
    case HEX:
        return read_hex(p, end, ignored, sizeof ignored, &size);
    case SPAN_KIND:
        return read_enum(p, end, kinds, sizeof kinds / sizeof *kinds, &code);
    case INT64:
        return read_integer(p, end, (uint64_t)INT64_MAX + 1, INT64_MAX, &number);
    case UINT32:
        return read_integer(p, end, 0, UINT32_MAX, &number);
    case UINT64:
        return read_uint64(p, end, &number);
    case START:
        return read_uint64(p, end, &span->start);
    case END:
        return read_uint64(p, end, &span->end);
    case STATUS_CODE:
        return read_enum(p, end, codes, sizeof codes / sizeof *codes, &span->code);
    case ID_OF_TRACE:
        return read_hex(p, end, reader->trace_id, sizeof reader->trace_id, &span->trace_id_size);
    case ID_OF_SPAN:
        return read_hex(p, end, reader->span_id, sizeof reader->span_id, &span->span_id_size);
    case ATTRIBUTE_KEY:
        return read_key(p, end, &span->keys);
    default: /* TEXT */
        return read_text(p, end, &text);
    }
}

/* An object. `depth`: how many messages it stands in. */
static const uint8_t *read_message(struct reader *reader, const uint8_t *p, enum message message,
                                   int depth) {
    const uint8_t *end = reader->end;
    uint64_t seen = 0;  /* bit n: the name n */
    bool given = false; /* an AnyValue's one value */
    if (p == end || *p != '{' || depth > MOST_DEPTH)
        return NULL;
    p = skip_space(p + 1, end);
    if (p < end && *p == '}')
        return p + 1;
    for (bool last = false; !last;) {
        enum name name;
        if ((p = read_name(p, end, &name)) == NULL)
            return NULL;
        struct field field = fields[message][name];
        if (field.kind != ANYTHING) {
            if (seen >> name & 1)
                return NULL;
            seen |= UINT64_C(1) << name;
            if (message == ANY_VALUE && *p != 'n') {
                if (given)
                    return NULL;
                given = true;
            }
        }
        if ((p = read_value(reader, p, field, depth)) == NULL ||
            (p = after_item(p, end, '}', &last)) == NULL)
            return NULL;
    }
    return p;
}

bool json_scan(const uint8_t *data, size_t length, struct tally *tally) {
    const uint8_t *end = data + length;
    struct reader reader = {.end = end, .tally = tally};
    if (length == 0 || !utf8_is_valid(data, length))
        return false;
    const uint8_t *p = read_message(&reader, skip_space(data, end), REQUEST, 0);
    return p != NULL && skip_space(p, end) == end;
}
