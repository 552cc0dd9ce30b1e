#define _GNU_SOURCE /* ppoll */
#include "wire_client.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MILLISECOND = 1000000, SECOND = 1000000000 };
enum {
    STOP_SLICE = 50 * MILLISECOND, /* how often *stop is looked at */
    BACKOFF_MIN = 50 * MILLISECOND,
    BACKOFF_MAX = 2 * SECOND,
    READS_MAX = 4,  /* reads from one connection before others have their turn */
    ROUNDS_MAX = 4, /* bursts written to one connection before answers are read */
};
#define GREETING_MAX ((int64_t)5 * SECOND) /* TCP connection and SETTINGS */

enum hello { HELLO_NONE, HELLO_SENT, HELLO_ANSWERED };

struct link {
    struct wire_conn conn;
    struct wire_stream hello_stream;
    enum hello hello;
};

/* The bytes of one batch that was made when it was offered. The one that was written last is used
 * again first: it is still in the caches. */
struct slot {
    struct wire_chunk chunk;
    struct slot *next; /* of all of them */
    size_t room;
    uint8_t *bytes;
};

struct wire_client {
    struct wire_tls *tls; /* NULL: in the clear */
    uint32_t connections, capacity;
    bool compressed;
    int64_t timeout;
    int64_t *sent, *blocked;
    const int64_t *stop;
    struct wire_owner owner;
    struct wire_field *fields;
    size_t field_count;
    struct addrinfo **addresses;
    size_t address_count, address;

    /* A connection that is going away may finish its streams beside its successor. */
    struct link *links;
    size_t link_count, next_link;
    struct pollfd *polls;
    int64_t retry_at, backoff;
    int64_t held_bytes;
    bool connecting; /* within wire_client_connect: a lost connection is final */
    bool failed;
    char reason[2 * WIRE_REASON_MAX];

    struct wire_stream *streams, *free;
    struct slot *slots;                          /* all of them */
    struct wire_chunk *spare;                    /* those that nobody holds */
    struct wire_stream *oldest, *newest;         /* in flight, in the order of deadlines */
    struct wire_stream *waiting, **waiting_tail; /* those that have no connection yet */
    int64_t in_flight, now;
    int64_t behind_until; /* what the client was behind its schedule is counted up to here */
    int schedstat;        /* tells how long this thread waited for a CPU; -1: nobody does */

    struct wire_outcome *outcomes;
    size_t outcome_count, outcome_room;
    char *messages[WIRE_STATUS_COUNT];
    size_t message_lengths[WIRE_STATUS_COUNT];
};

static int64_t clock_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * SECOND + time.tv_nsec;
}

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static bool stopped(const struct wire_client *client) {
    return __atomic_load_n(client->stop, __ATOMIC_RELAXED) != 0;
}

/* Requests. */

static void wait_last(struct wire_client *client, struct wire_stream *stream) {
    stream->next = NULL;
    *client->waiting_tail = stream;
    client->waiting_tail = &stream->next;
}

static void wait_first(struct wire_client *client, struct wire_stream *stream) {
    stream->next = client->waiting;
    if (client->waiting == NULL)
        client->waiting_tail = &stream->next;
    client->waiting = stream;
}

static void wait_no_more(struct wire_client *client, const struct wire_stream *stream) {
    struct wire_stream **link = &client->waiting;
    while (*link != stream)
        link = &(*link)->next;
    *link = stream->next;
    if (*link == NULL)
        client->waiting_tail = link;
}

static void remember_message(struct wire_client *client, int status, const char *message,
                             size_t length) {
    if (client->messages[status] != NULL || length == 0)
        return;
    client->messages[status] = malloc(length);
    if (client->messages[status] == NULL)
        return;
    memcpy(client->messages[status], message, length);
    client->message_lengths[status] = length;
}

/* The one place where a request ends. The stream has no connection any more and does not wait. */
static void finish(struct wire_client *client, struct wire_stream *stream,
                   const struct wire_end *end) {
    remember_message(client, end->status, end->message, end->message_length);
    client->outcomes[client->outcome_count++] = (struct wire_outcome){
        .scheduled = stream->scheduled,
        .sent = stream->sent,
        .done = client->now,
        .spans = stream->spans,
        .bytes = stream->length,
        .rejected = end->rejected,
        .status = end->status,
        .number = stream->number,
        .delay = end->retry_delay,
    };
    if (stream->older != NULL)
        stream->older->newer = stream->newer;
    else
        client->oldest = stream->newer;
    if (stream->newer != NULL)
        stream->newer->older = stream->older;
    else
        client->newest = stream->older;
    wire_stream_release(stream);
    stream->next = client->free;
    client->free = stream;
    client->in_flight--;
}

static void finish_as(struct wire_client *client, struct wire_stream *stream, int status,
                      const char *message) {
    struct wire_end end = {status, 0, -1, false, message, strlen(message)};
    finish(client, stream, &end);
}

/* It certainly was not processed and waits no longer. */
static void finish_waiting(struct wire_client *client, struct wire_stream *stream,
                           const char *when) {
    char text[sizeof client->reason + 80];
    snprintf(text, sizeof text, "no connection before %s%s%s", when, client->reason[0] ? ": " : "",
             client->reason);
    wait_no_more(client, stream);
    finish_as(client, stream, stream->left ? WIRE_REFUSED_STREAM : WIRE_CONNECT_FAILED, text);
}

static struct link *link_of(struct wire_client *client, const struct wire_stream *hello) {
    for (size_t i = 0; i < client->link_count; i++)
        if (&client->links[i].hello_stream == hello)
            return &client->links[i];
    return NULL;
}

/* What the empty request that greets a peer came to. */
static void greeted(struct wire_client *client, struct link *link, const struct wire_end *end) {
    int length = (int)min64((int64_t)end->message_length, 100);
    link->hello = HELLO_ANSWERED;
    if (!client->connecting)
        return;
    const char *message = end->message;
    switch (end->status) {
    case WIRE_OK:
    case 4:  /* DEADLINE_EXCEEDED: it is slow */
    case 3:  /* INVALID_ARGUMENT: it minds that the request is empty */
    case 8:  /* RESOURCE_EXHAUSTED: a backend that is busy is a backend */
    case 10: /* ABORTED */
    case 14: /* UNAVAILABLE */
        if (end->grpc)
            return;
        snprintf(client->reason, sizeof client->reason, "it speaks HTTP/2 but not gRPC: %.*s",
                 length, message);
        break;
    case 12:
        snprintf(client->reason, sizeof client->reason,
                 end->grpc ? "it speaks gRPC but does not take OTLP traces: %.*s"
                           : "it speaks HTTP/2 but not gRPC: %.*s",
                 length, message);
        break;
    case WIRE_CONNECTION_LOST:
        return; /* the connection's end says more */
    case WIRE_INVALID_RESPONSE:
    case WIRE_STREAM_RESET:
        snprintf(client->reason, sizeof client->reason, "it speaks HTTP/2 but not gRPC: %.*s",
                 length, message);
        break;
    default:
        snprintf(client->reason, sizeof client->reason,
                 "it refuses an empty request with gRPC status %d: %.*s", end->status, length,
                 message);
    }
    client->failed = true;
}

static void on_ended(void *context, struct wire_stream *stream, const struct wire_end *end) {
    struct wire_client *client = context;
    if (stream->hello)
        greeted(client, link_of(client, stream), end);
    else
        finish(client, stream, end);
}

/* Takes the stream from its connection; false when its bytes are gone. They are here still while
 * the generation is the same, and must not be let go of in between. */
static bool take_back(struct wire_conn *conn, struct wire_stream *stream) {
    const bool kept = stream->chunk->generation == stream->generation;
    if (kept)
        stream->chunk->holds++;
    wire_conn_forget(conn, stream);
    stream->holding = kept;
    return kept;
}

static void back_off(struct wire_client *client, const struct wire_conn *conn, int64_t least) {
    if (conn->answered) {
        client->backoff = 0;
        client->retry_at = client->now + least;
    } else if (client->now >= client->retry_at) {
        client->backoff = client->backoff ? min64(2 * client->backoff, BACKOFF_MAX) : BACKOFF_MIN;
        client->retry_at = client->now + client->backoff;
    }
}

static void on_goaway(void *context, struct wire_conn *conn, uint32_t last) {
    struct wire_client *client = context;
    struct wire_stream *older;
    for (struct wire_stream *stream = client->newest; stream != NULL; stream = older) {
        older = stream->older;
        if (stream->conn != conn || stream->id <= last)
            continue;
        stream->left = stream->left || stream->begins < conn->written;
        if (take_back(conn, stream))
            wait_first(client, stream);
        else
            finish_as(client, stream, WIRE_REFUSED_STREAM, conn->reason);
    }
    for (size_t i = 0; i < client->link_count; i++) {
        struct wire_stream *hello = &client->links[i].hello_stream;
        if (hello->conn == conn && hello->id > last) {
            wire_conn_forget(conn, hello);
            if (client->connecting && !client->failed)
                snprintf(client->reason, sizeof client->reason, "it speaks HTTP/2, but %s",
                         conn->reason);
            client->failed = true;
        }
    }
    back_off(client, conn, 0);
}

/* A slot with so much room, which nobody holds; NULL when memory is short. */
static struct slot *take_slot(struct wire_client *client, size_t length) {
    struct slot *slot = (struct slot *)client->spare;
    if (slot == NULL) {
        slot = calloc(1, sizeof *slot);
        if (slot == NULL)
            return NULL;
        slot->chunk.spare = &client->spare;
        slot->next = client->slots;
        client->slots = slot;
    } else {
        client->spare = slot->chunk.next;
    }
    if (slot->room >= length)
        return slot;
    free(slot->bytes);
    slot->bytes = malloc(length);
    slot->room = slot->bytes == NULL ? 0 : length;
    if (slot->bytes != NULL)
        return slot;
    slot->chunk.next = client->spare;
    client->spare = &slot->chunk;
    return NULL;
}

/* Offers one request: from here on it will have an outcome. NULL when memory is short. */
static struct wire_stream *offer(struct wire_client *client, const struct wire_batches *batches,
                                 int64_t i) {
    struct wire_stream *stream = client->free;
    const struct batch_source *source = batches->source;
    if (source != NULL) {
        const size_t length = source->length(source->context);
        struct slot *slot = take_slot(client, length);
        if (slot == NULL)
            return NULL;
        source->write(source->context, slot->bytes);
        client->now = clock_now();
        stream->chunk = &slot->chunk;
        stream->data = slot->bytes;
        stream->length = (int64_t)length;
    } else {
        stream->chunk = batches->chunk;
        stream->data = batches->bytes + batches->offsets[i];
        stream->length = batches->offsets[i + 1] - batches->offsets[i];
    }
    client->free = stream->next;
    stream->conn = NULL;
    stream->generation = stream->chunk->generation;
    stream->holding = true;
    stream->chunk->holds++;
    stream->compressed = client->compressed;
    stream->left = false;
    stream->scheduled = batches->scheduled[i];
    stream->spans = batches->spans[i];
    stream->number = batches->first + i;
    stream->sent = client->now;
    stream->deadline = client->now + client->timeout;

    stream->newer = NULL;
    stream->older = client->newest;
    if (client->newest != NULL)
        client->newest->newer = stream;
    else
        client->oldest = stream;
    client->newest = stream;
    client->in_flight++;

    const int64_t raise[] = {1, stream->spans, stream->length};
    for (size_t k = 0; k < 3 && !batches->again; k++)
        __atomic_store_n(&client->sent[k], client->sent[k] + raise[k], __ATOMIC_RELEASE);
    return stream;
}

/* Connections. */

/* The connection is no more: its streams are, or wait for the next one. */
static void lost(struct wire_client *client, struct link *link) {
    struct wire_conn *conn = &link->conn;
    struct wire_stream *older;
    bool leaving = conn->state == WIRE_LEAVING;
    for (struct wire_stream *stream = client->newest; stream != NULL; stream = older) {
        older = stream->older;
        if (stream->conn != conn)
            continue;
        bool left = stream->begins < conn->written;
        stream->left = stream->left || left;
        if (take_back(conn, stream) && !left)
            wait_first(client, stream);
        else
            finish_as(client, stream, WIRE_CONNECTION_LOST, conn->reason);
    }
    if (link->hello_stream.conn == conn)
        wire_conn_forget(conn, &link->hello_stream);
    if (conn->state == WIRE_GREETING && conn->error == 0 && conn->input_length > 0)
        wire_conn_describe(conn, conn->reason, sizeof conn->reason);
    if (!client->connecting)
        snprintf(client->reason, sizeof client->reason, "%s", conn->reason);
    else if (!client->failed)
        snprintf(client->reason, sizeof client->reason, "%s%s",
                 conn->state >= WIRE_OPEN ? "it speaks HTTP/2, but " : "", conn->reason);
    client->failed = true;
    wire_conn_close(conn);
    if (!leaving)
        back_off(client, conn, BACKOFF_MIN);
}

static void begin(struct wire_client *client, struct link *link) {
    if (client->tls != NULL)
        link->conn.tls = wire_tls_begin(client->tls);
    if ((client->tls != NULL && link->conn.tls == NULL) ||
        wire_conn_start(&link->conn, link->conn.fd) < 0) {
        wire_conn_error(&link->conn, 0, "no memory for a connection");
        lost(client, link);
    }
}

static void open_socket(struct wire_client *client, struct link *link) {
    const struct addrinfo *address = client->addresses[client->address];
    struct wire_conn *conn = &link->conn;
    const int on = 1;
    /* How long a peer that is gone, or that has stopped reading, keeps the connection. */
    const int user_timeout = (int)min64(client->timeout / MILLISECOND + 10000, INT32_MAX);
    conn->state = WIRE_CONNECTING;
    conn->answered = false;
    conn->error = 0;
    conn->input_length = 0;
    conn->greet_by = client->now + GREETING_MAX;
    link->hello = HELLO_NONE;
    conn->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (conn->fd >= 0) {
        setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(conn->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof user_timeout);
        if (connect(conn->fd, address->ai_addr, address->ai_addrlen) == 0) {
            begin(client, link);
            return;
        }
        if (errno == EINPROGRESS || errno == EINTR)
            return;
    }
    wire_conn_error(conn, 0, errno == ECONNREFUSED ? "nobody listens there" : "%s",
                    strerror(errno));
    lost(client, link);
}

static void connected(struct wire_client *client, struct link *link) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(link->conn.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == 0) {
        begin(client, link);
        return;
    }
    if (error == ECONNREFUSED)
        wire_conn_error(&link->conn, 0, "nobody listens there");
    else
        wire_conn_error(&link->conn, 0, "%s", strerror(error));
    lost(client, link);
}

static size_t missing(const struct wire_client *client) {
    size_t live = 0;
    for (size_t i = 0; i < client->link_count; i++) {
        enum wire_state state = client->links[i].conn.state;
        live += state != WIRE_FREE && state != WIRE_LEAVING;
    }
    return client->connections - live;
}

/* Replaces connections that were lost or are leaving, with a pause that grows while it fails. */
static void keep_connected(struct wire_client *client) {
    if (client->connecting || client->now < client->retry_at)
        return;
    size_t wanted = missing(client);
    for (size_t i = 0; i < client->link_count && wanted > 0; i++) {
        if (client->links[i].conn.state == WIRE_FREE && client->now >= client->retry_at) {
            open_socket(client, &client->links[i]);
            wanted--;
        }
    }
}

/* The connection with the fewest streams of those that take one now; in turn among equals. */
static struct wire_conn *choose(struct wire_client *client) {
    struct wire_conn *best = NULL;
    for (size_t k = 0; k < client->link_count; k++) {
        size_t i = client->next_link + k;
        struct wire_conn *conn =
            &client->links[i < client->link_count ? i : i - client->link_count].conn;
        if (wire_conn_takes(conn) && (best == NULL || conn->count < best->count))
            best = conn;
    }
    if (++client->next_link == client->link_count)
        client->next_link = 0;
    return best;
}

/* Is any connection open that allows streams at all? If not, requests wait until their deadline. */
static bool usable(const struct wire_client *client) {
    for (size_t i = 0; i < client->link_count; i++) {
        const struct wire_conn *conn = &client->links[i].conn;
        if (conn->state == WIRE_OPEN && conn->max_streams > 0)
            return true;
    }
    return false;
}

static void open_stream(struct wire_client *client, struct wire_conn *conn,
                        struct wire_stream *stream) {
    if (!stream->left)
        stream->sent = client->now;
    wire_conn_open(conn, stream);
}

static void read_from(struct wire_client *client, struct link *link) {
    struct wire_conn *conn = &link->conn;
    conn->now = client->now;
    for (int i = 0; i < READS_MAX; i++) {
        size_t room;
        uint8_t *to = wire_conn_room(conn, &room);
        ssize_t length = conn->tls != NULL ? wire_tls_recv(conn->tls, conn->fd, to, room)
                                           : recv(conn->fd, to, room, MSG_DONTWAIT);
        if (conn->tls != NULL)
            conn->blocked = false; /* what came may be what a handshake waited for */
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (length <= 0) {
            /* A GOAWAY before has given the better reason. */
            if (conn->state != WIRE_LEAVING && (length == 0 || errno == ECONNRESET))
                wire_conn_error(conn, 0, "it closes the connection");
            else if (conn->tls != NULL && errno == EPROTO)
                wire_conn_error(conn, 0, "%s", wire_tls_reason(conn->tls));
            else if (conn->state != WIRE_LEAVING)
                wire_conn_error(conn, 0, "reading failed: %s", strerror(errno));
            lost(client, link);
            return;
        }
        if (wire_conn_received(conn, (size_t)length) < 0) {
            lost(client, link);
            return;
        }
        if ((size_t)length < room)
            return;
    }
}

/* Writes what can be written; true when there may be room for more. */
static bool write_to(struct wire_client *client, struct link *link) {
    struct wire_conn *conn = &link->conn;
    int result = wire_conn_flush(conn);
    if (result < 0) {
        /* The peer may have said why before it went. */
        int fd = conn->fd;
        read_from(client, link);
        if (conn->fd == fd)
            lost(client, link);
        return false;
    }
    conn->blocked = result == 0;
    return result > 0;
}

/* Frames and writes all that is possible now. */
static void pump(struct wire_client *client) {
    bool again = true;
    for (int round = 0; again && round < ROUNDS_MAX; round++) {
        again = false;
        for (size_t i = 0; i < client->link_count; i++)
            if (client->links[i].conn.state >= WIRE_OPEN)
                wire_conn_fill(&client->links[i].conn);
        while (client->waiting != NULL) {
            struct wire_conn *conn = choose(client);
            if (conn == NULL)
                break;
            struct wire_stream *stream = client->waiting;
            wait_no_more(client, stream);
            open_stream(client, conn, stream);
        }
        for (size_t i = 0; i < client->link_count; i++) {
            struct wire_conn *conn = &client->links[i].conn;
            if (conn->state < WIRE_GREETING || conn->blocked || !wire_conn_has_output(conn))
                continue;
            if (write_to(client, &client->links[i]))
                again = again || conn->writing != NULL || client->waiting != NULL;
        }
    }
    for (size_t i = 0; i < client->link_count; i++) {
        struct wire_conn *conn = &client->links[i].conn;
        if (conn->state == WIRE_OPEN && conn->next_id > INT32_MAX)
            conn->state = WIRE_LEAVING; /* out of stream IDs (RFC 9113, 5.1.1) */
        if (conn->state == WIRE_LEAVING && conn->count == 0)
            lost(client, &client->links[i]);
    }
}

/* Ends what is past its time. */
static void expire(struct wire_client *client) {
    while (client->oldest != NULL && client->oldest->deadline <= client->now) {
        struct wire_stream *stream = client->oldest;
        if (stream->conn == NULL) {
            finish_waiting(client, stream, "the deadline");
        } else {
            wire_conn_cancel(stream->conn, stream);
            finish_as(client, stream, WIRE_NO_ANSWER_TIMEOUT, "no answer before the deadline");
        }
    }
    for (size_t i = 0; i < client->link_count; i++) {
        struct link *link = &client->links[i];
        if ((link->conn.state == WIRE_CONNECTING || link->conn.state == WIRE_GREETING) &&
            link->conn.greet_by <= client->now) {
            if (link->conn.state == WIRE_CONNECTING)
                wire_conn_error(&link->conn, 0, "it does not answer");
            else
                wire_conn_describe(&link->conn, link->conn.reason, sizeof link->conn.reason);
            lost(client, link);
        }
    }
}

/* Until when may the client sleep, if nothing comes in? */
static int64_t next_event(const struct wire_client *client, int64_t until) {
    int64_t wake = min64(until, client->now + STOP_SLICE);
    if (client->oldest != NULL)
        wake = min64(wake, client->oldest->deadline);
    if (client->retry_at < wake && !client->connecting && missing(client) > 0)
        wake = client->retry_at;
    for (size_t i = 0; i < client->link_count; i++) {
        const struct wire_conn *conn = &client->links[i].conn;
        if (conn->state == WIRE_CONNECTING || conn->state == WIRE_GREETING)
            wake = min64(wake, conn->greet_by);
    }
    return wake;
}

/* Sleeps until `wake` or until a socket is ready, and reads. */
static void sleep_and_read(struct wire_client *client, int64_t wake) {
    for (size_t i = 0; i < client->link_count; i++) {
        const struct wire_conn *conn = &client->links[i].conn;
        /* A handshake that waits for the peer is not blocked by the socket. */
        bool blocked = conn->blocked && (conn->tls == NULL || wire_tls_pending(conn->tls));
        bool output = conn->state == WIRE_CONNECTING || blocked;
        client->polls[i] = (struct pollfd){conn->state != WIRE_FREE ? conn->fd : -1,
                                           (short)(output ? POLLIN | POLLOUT : POLLIN), 0};
    }
    int64_t length = wake > client->now ? wake - client->now : 0;
    struct timespec time = {length / SECOND, length % SECOND};
    int ready = ppoll(client->polls, client->link_count, &time, NULL);
    client->now = clock_now();
    for (size_t i = 0; ready > 0 && i < client->link_count; i++) {
        struct link *link = &client->links[i];
        short events = client->polls[i].revents;
        if (events == 0 || link->conn.fd != client->polls[i].fd)
            continue;
        ready--;
        if (link->conn.state == WIRE_CONNECTING) {
            connected(client, link);
            continue;
        }
        if (events & POLLOUT)
            link->conn.blocked = false;
        if (events & (POLLIN | POLLHUP | POLLERR))
            read_from(client, link);
    }
}

static void tick(struct wire_client *client) {
    client->now = clock_now();
    expire(client);
    keep_connected(client);
}

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

/* How long this thread has waited for a CPU altogether (proc(5), schedstat: the second number). */
static int64_t run_delay(const struct wire_client *client) {
    char text[96];
    const ssize_t length = pread(client->schedstat, text, sizeof text - 1, 0);
    text[max64(length, 0)] = 0;
    const char *second = strchr(text, ' ');
    return second != NULL ? strtoll(second, NULL, 10) : 0;
}

/* Adds the time from `since` until now in which a request was overdue that was due at `due`. */
static void count_blocked(struct wire_client *client, enum wire_blocked what, int64_t due,
                          int64_t since) {
    const int64_t length = client->now - max64(due, since);
    if (length > 0 && client->schedstat >= 0)
        __atomic_store_n(&client->blocked[what], client->blocked[what] + length, __ATOMIC_RELAXED);
}

/* What is sent again was due long ago, and is not behind any schedule. */
static int64_t due_of(const struct wire_batches *batches, int64_t i) {
    return batches->again ? INT64_MAX : batches->scheduled[i];
}

/* Sleeps while a request cannot be offered that was due at `due`, and counts that. */
static void sleep_blocked(struct wire_client *client, enum wire_blocked why, int64_t due,
                          int64_t wake) {
    const int64_t slept = client->now, delay = run_delay(client);
    sleep_and_read(client, wake);
    count_blocked(client, why, due, slept + run_delay(client) - delay);
}

static void count_behind(struct wire_client *client, int64_t due) {
    count_blocked(client, WIRE_BEHIND, due, client->behind_until);
    client->behind_until = client->now;
}

/* The calls. */

struct wire_client *wire_client_new(const struct wire_client_options *options, char *error,
                                    size_t room) {
    struct wire_client *client = calloc(1, sizeof *client);
    error[0] = 0;
    if (client == NULL)
        return NULL;
    client->connections = options->connections;
    client->capacity = options->in_flight;
    client->timeout = options->timeout;
    client->compressed = options->compressed;
    client->sent = options->sent;
    client->blocked = options->blocked;
    client->schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    client->stop = options->stop;
    client->owner = (struct wire_owner){on_ended, on_goaway, client};
    client->waiting_tail = &client->waiting;
    client->now = clock_now();
    client->link_count = 2 * (size_t)options->connections;
    client->links = calloc(client->link_count, sizeof *client->links);
    client->polls = calloc(client->link_count, sizeof *client->polls);
    client->streams = calloc(client->capacity, sizeof *client->streams);
    client->addresses = calloc(options->host_count, sizeof(struct addrinfo *));
    client->fields = calloc(options->field_count, sizeof *client->fields);
    if (client->links == NULL || client->polls == NULL || client->streams == NULL ||
        client->addresses == NULL || client->fields == NULL)
        goto fail;
    if (options->tls != NULL) {
        client->tls = wire_tls_new(options->tls, error, room);
        if (client->tls == NULL)
            goto fail;
    }
    for (size_t i = client->capacity; i-- > 0;) {
        client->streams[i].next = client->free;
        client->free = &client->streams[i];
    }
    for (size_t i = 0; i < options->field_count; i++) {
        const struct wire_field *field = &options->fields[i];
        char *copy = malloc(field->name_length + field->value_length + 1);
        if (copy == NULL)
            goto fail;
        memcpy(copy, field->name, field->name_length);
        memcpy(copy + field->name_length, field->value, field->value_length);
        client->fields[client->field_count++] = (struct wire_field){
            copy, field->name_length, copy + field->name_length, field->value_length};
    }
    for (size_t i = 0; i < options->host_count; i++) {
        const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                       .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
        int result = getaddrinfo(options->hosts[i], options->port, &hints,
                                 &client->addresses[client->address_count]);
        if (result != 0) {
            snprintf(error, room, "%s: %s", options->hosts[i], gai_strerror(result));
            goto fail;
        }
        client->address_count++;
    }
    for (size_t i = 0; i < client->link_count; i++)
        if (wire_conn_init(&client->links[i].conn, client->capacity + 1, &client->owner,
                           client->fields, client->field_count, &client->held_bytes) < 0)
            goto fail;
    if (wire_headers_encode(&client->links[0].conn.headers, client->fields, client->field_count,
                            WIRE_TABLE_DEFAULT, 1) < 0) {
        snprintf(error, room, "the metadata is longer than %d bytes", WIRE_BLOCK_MAX);
        goto fail;
    }
    return client;
fail:
    wire_client_free(client);
    return NULL;
}

void wire_client_free(struct wire_client *client) {
    for (size_t i = 0; client->links != NULL && i < client->link_count; i++)
        if (client->links[i].conn.owner != NULL)
            wire_conn_free(&client->links[i].conn);
    wire_tls_free(client->tls);
    for (size_t i = 0; i < client->address_count; i++)
        freeaddrinfo(client->addresses[i]);
    for (size_t i = 0; i < client->field_count; i++)
        free((void *)(uintptr_t)client->fields[i].name);
    for (size_t i = 0; i < WIRE_STATUS_COUNT; i++)
        free(client->messages[i]);
    for (size_t i = 0; client->streams != NULL && i < client->capacity; i++)
        if (client->streams[i].body != client->streams[i].small)
            free(client->streams[i].body);
    for (struct slot *slot = client->slots, *after; slot != NULL; slot = after) {
        after = slot->next;
        free(slot->bytes);
        free(slot);
    }
    if (client->schedstat >= 0)
        close(client->schedstat);
    free(client->addresses);
    free(client->fields);
    free(client->links);
    free(client->polls);
    free(client->streams);
    free(client->outcomes);
    free(client);
}

/* What the connections that are not there yet wait for. */
static void say_late(struct wire_client *client) {
    for (size_t i = 0; i < client->connections; i++) {
        const struct link *link = &client->links[i];
        char what[WIRE_REASON_MAX];
        if (link->hello == HELLO_ANSWERED)
            continue;
        if (link->conn.state == WIRE_CONNECTING)
            snprintf(what, sizeof what, "it does not answer");
        else if (link->conn.state == WIRE_GREETING)
            wire_conn_describe(&link->conn, what, sizeof what);
        else
            snprintf(what, sizeof what, "it speaks HTTP/2 but does not answer an Export");
        snprintf(client->reason, sizeof client->reason, "%s", what);
        return;
    }
}

/* One address; 0 when every connection's greeting was answered. */
static int try_address(struct wire_client *client, int64_t until) {
    client->failed = false;
    client->reason[0] = 0;
    client->now = clock_now();
    for (size_t i = 0; i < client->connections && !client->failed; i++)
        open_socket(client, &client->links[i]);
    while (!client->failed) {
        size_t answered = 0;
        client->now = clock_now();
        expire(client);
        for (size_t i = 0; i < client->connections; i++) {
            struct link *link = &client->links[i];
            if (link->hello == HELLO_NONE && wire_conn_takes(&link->conn)) {
                struct wire_stream *hello = &link->hello_stream;
                *hello = (struct wire_stream){.hello = true};
                link->hello = HELLO_SENT;
                wire_conn_open(&link->conn, hello);
            }
            answered += link->hello == HELLO_ANSWERED;
        }
        pump(client);
        if (client->failed)
            break;
        if (answered == client->connections)
            return 0;
        if (client->now >= until || stopped(client)) {
            say_late(client);
            client->failed = true;
            break;
        }
        sleep_and_read(client, next_event(client, until));
    }
    for (size_t i = 0; i < client->link_count; i++)
        if (client->links[i].conn.state != WIRE_FREE)
            lost(client, &client->links[i]);
    return 1;
}

int wire_client_connect(struct wire_client *client, int64_t until) {
    int result = 1;
    client->connecting = true;
    for (client->address = 0; client->address < client->address_count; client->address++) {
        result = try_address(client, until);
        if (result == 0)
            break;
    }
    client->connecting = false;
    if (client->address == client->address_count)
        client->address = 0;
    client->retry_at = 0;
    client->backoff = 0;
    return result;
}

/* Room for the outcomes of all that may be in flight by then. */
static int reserve(struct wire_client *client, int64_t count) {
    size_t needed = client->outcome_count + (size_t)client->in_flight + (size_t)count;
    if (needed <= client->outcome_room)
        return 0;
    size_t room = 2 * needed;
    struct wire_outcome *grown = realloc(client->outcomes, room * sizeof *grown);
    if (grown == NULL)
        return -1;
    client->outcomes = grown;
    client->outcome_room = room;
    return 0;
}

int64_t wire_client_send(struct wire_client *client, const struct wire_batches *batches,
                         int64_t until) {
    int64_t next = 0;
    if (reserve(client, batches->count) < 0)
        return -1;
    client->now = clock_now();
    if (client->in_flight > 0)
        sleep_and_read(client, client->now);
    while (next < batches->count) {
        tick(client);
        count_behind(client, due_of(batches, next));
        if (client->now >= until || stopped(client))
            break;
        bool full = false;
        while (next < batches->count && batches->scheduled[next] <= client->now) {
            struct wire_conn *conn = NULL;
            full = client->free == NULL;
            if (!full && client->waiting == NULL)
                conn = choose(client);
            full = full || (conn == NULL && usable(client));
            if (full)
                break;
            struct wire_stream *stream = offer(client, batches, next);
            if (stream == NULL)
                return next > 0 ? next : -1;
            next++;
            if (conn != NULL)
                open_stream(client, conn, stream);
            else
                wait_last(client, stream);
        }
        pump(client);
        if (next == batches->count)
            break;
        int64_t wake = next_event(client, until);
        if (!full)
            wake = min64(wake, batches->scheduled[next]);
        else if (client->free != NULL && client->waiting == NULL && choose(client) != NULL)
            wake = client->now; /* the burst was full and has been written */
        if (full && wake > client->now)
            sleep_blocked(client, client->free == NULL ? WIRE_CAPPED : WIRE_HELD,
                          due_of(batches, next), wake);
        else
            sleep_and_read(client, wake);
    }
    return next;
}

void wire_client_wait_chunk(struct wire_client *client, const struct wire_chunk *chunks,
                            size_t count, int64_t due, int64_t until) {
    for (;;) {
        tick(client);
        count_behind(client, due);
        pump(client);
        for (size_t i = 0; i < count; i++)
            if (chunks[i].holds == 0)
                return;
        if (client->now >= until || stopped(client))
            return;
        sleep_blocked(client, WIRE_HELD, due, next_event(client, until));
    }
}

void wire_client_wait(struct wire_client *client, int64_t until) {
    for (;;) {
        tick(client);
        pump(client);
        if (client->now >= until || stopped(client))
            return;
        sleep_and_read(client, next_event(client, until));
    }
}

static void abandon(struct wire_client *client) {
    while (client->oldest != NULL) {
        struct wire_stream *stream = client->oldest;
        if (stream->conn != NULL) {
            wire_conn_cancel(stream->conn, stream);
            finish_as(client, stream, WIRE_ABANDONED, "no answer before the end of the run");
        } else {
            finish_waiting(client, stream, "the end of the run");
        }
    }
}

void wire_client_drain(struct wire_client *client, int64_t until) {
    while (client->in_flight > 0) {
        tick(client);
        pump(client);
        if (client->now >= until) {
            abandon(client);
            pump(client);
            return;
        }
        sleep_and_read(client, next_event(client, until));
    }
}

void wire_client_close(struct wire_client *client) {
    client->now = clock_now();
    abandon(client);
    pump(client);
    for (size_t i = 0; i < client->link_count; i++)
        if (client->links[i].conn.state != WIRE_FREE)
            wire_conn_close(&client->links[i].conn);
}

int64_t wire_client_in_flight(const struct wire_client *client) { return client->in_flight; }

const struct wire_outcome *wire_client_outcomes(const struct wire_client *client, size_t *count) {
    *count = client->outcome_count;
    return client->outcomes;
}

void wire_client_clear(struct wire_client *client) { client->outcome_count = 0; }

const char *wire_client_message(const struct wire_client *client, int status, size_t *length) {
    *length = client->message_lengths[status];
    return client->messages[status];
}

const char *wire_client_reason(const struct wire_client *client) { return client->reason; }
