#define _GNU_SOURCE /* ppoll */
#include "wire_client_private.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum {
    STOP_SLICE = 50 * MILLISECOND, /* how often *stop is looked at */
    BACKOFF_MIN = 50 * MILLISECOND,
    BACKOFF_MAX = 2 * SECOND,
    READS_MAX = 4,  /* reads from one connection before others have their turn */
    ROUNDS_MAX = 4, /* bursts written to one connection before answers are read */
};
#define GREETING_MAX ((int64_t)5 * SECOND) /* TCP connection and SETTINGS */

/* ---- what a connection tells ---- */

void client_on_ended(void *context, struct wire_stream *stream, const struct wire_end *end) {
    struct wire_client *client = context;
    if (stream->hello)
        client_greeted(client, stream, end);
    else if (end->status == WIRE_REFUSED_STREAM)
        client_send_again(client, stream);
    else
        client_finish(client, stream, end);
}

/* `useful`: the connection was, so that the next may be opened in `least` nanoseconds; the pause
 * before others grows. */
static void back_off(struct wire_client *client, bool useful, int64_t least) {
    if (useful) {
        client->backoff = 0;
        client->retry_at = client->now + least;
    } else if (client->now >= client->retry_at) {
        client->backoff = client->backoff ? min64(2 * client->backoff, BACKOFF_MAX) : BACKOFF_MIN;
        client->retry_at = client->now + client->backoff;
    }
}

void client_on_goaway(void *context, struct wire_conn *conn, uint32_t last) {
    struct wire_client *client = context;
    struct wire_stream *older;
    for (struct wire_stream *stream = client->newest; stream != NULL; stream = older) {
        older = stream->older;
        if (stream->conn != conn || stream->id <= last)
            continue;
        stream->left = stream->left || stream->begins < conn->written;
        wire_conn_forget(conn, stream);
        client_wait_first(client, stream);
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
    /* What it has taken up it still answers. */
    back_off(client, conn->answered || conn->count > 0, 0);
}

/* ---- opened and lost ---- */

void link_lost(struct wire_client *client, struct link *link) {
    struct wire_conn *conn = &link->conn;
    struct wire_stream *older;
    bool leaving = conn->state == WIRE_LEAVING;
    for (struct wire_stream *stream = client->newest; stream != NULL; stream = older) {
        older = stream->older;
        if (stream->conn != conn)
            continue;
        bool left = stream->begins < conn->written;
        stream->left = stream->left || left;
        wire_conn_forget(conn, stream);
        if (!left)
            client_wait_first(client, stream);
        else
            client_finish_as(client, stream, WIRE_CONNECTION_LOST, conn->reason);
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
        back_off(client, conn->answered, BACKOFF_MIN);
}

static void link_begin(struct wire_client *client, struct link *link) {
    if (client->tls != NULL)
        link->conn.tls = wire_tls_begin(client->tls);
    if ((client->tls != NULL && link->conn.tls == NULL) ||
        wire_conn_start(&link->conn, link->conn.fd) < 0) {
        wire_conn_error(&link->conn, 0, "no memory for a connection");
        link_lost(client, link);
    }
}

void link_open(struct wire_client *client, struct link *link) {
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
    link->refusals = 0;
    conn->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (conn->fd >= 0) {
        setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(conn->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof user_timeout);
        if (connect(conn->fd, address->ai_addr, address->ai_addrlen) == 0) {
            link_begin(client, link);
            return;
        }
        if (errno == EINPROGRESS || errno == EINTR)
            return;
    }
    wire_conn_error(conn, 0, errno == ECONNREFUSED ? "nobody listens there" : "%s",
                    strerror(errno));
    link_lost(client, link);
}

static void link_connected(struct wire_client *client, struct link *link) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(link->conn.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == 0) {
        link_begin(client, link);
        return;
    }
    if (error == ECONNREFUSED)
        wire_conn_error(&link->conn, 0, "nobody listens there");
    else
        wire_conn_error(&link->conn, 0, "%s", strerror(error));
    link_lost(client, link);
}

static size_t missing_links(const struct wire_client *client) {
    size_t live = 0;
    for (size_t i = 0; i < client->link_count; i++) {
        enum wire_state state = client->links[i].conn.state;
        live += state != WIRE_FREE && state != WIRE_LEAVING;
    }
    return client->connections - live;
}

void client_keep_connected(struct wire_client *client) {
    if (client->connecting || client->now < client->retry_at)
        return;
    size_t wanted = missing_links(client);
    for (size_t i = 0; i < client->link_count && wanted > 0; i++) {
        if (client->links[i].conn.state == WIRE_FREE && client->now >= client->retry_at) {
            link_open(client, &client->links[i]);
            wanted--;
        }
    }
}

/* ---- streams ---- */

struct wire_conn *client_choose(struct wire_client *client) {
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

bool client_usable(const struct wire_client *client) {
    for (size_t i = 0; i < client->link_count; i++) {
        const struct wire_conn *conn = &client->links[i].conn;
        if (conn->state == WIRE_OPEN && conn->max_streams > 0)
            return true;
    }
    return false;
}

void client_open_stream(struct wire_client *client, struct wire_conn *conn,
                        struct wire_stream *stream) {
    if (!client_remake(client, stream)) {
        client_finish_as(client, stream, WIRE_REFUSED_STREAM, "no memory to send it again");
        return;
    }
    if (!stream->left)
        stream->sent = client->now;
    wire_conn_open(conn, stream);
}

/* ---- reading and writing ---- */

static void link_read(struct wire_client *client, struct link *link) {
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
            link_lost(client, link);
            return;
        }
        if (wire_conn_received(conn, (size_t)length) < 0) {
            link_lost(client, link);
            return;
        }
        if ((size_t)length < room)
            return;
    }
}

/* Writes what can be written; true when there may be room for more. */
static bool link_write(struct wire_client *client, struct link *link) {
    struct wire_conn *conn = &link->conn;
    int result = wire_conn_flush(conn);
    if (result < 0) {
        /* The peer may have said why before it went. */
        int fd = conn->fd;
        link_read(client, link);
        if (conn->fd == fd)
            link_lost(client, link);
        return false;
    }
    conn->blocked = result == 0;
    return result > 0;
}

void client_pump(struct wire_client *client) {
    bool again = true;
    for (int round = 0; again && round < ROUNDS_MAX; round++) {
        again = false;
        for (size_t i = 0; i < client->link_count; i++)
            if (client->links[i].conn.state >= WIRE_OPEN)
                wire_conn_fill(&client->links[i].conn);
        while (client->waiting != NULL) {
            struct wire_conn *conn = client_choose(client);
            if (conn == NULL)
                break;
            struct wire_stream *stream = client->waiting;
            client_wait_no_more(client, stream);
            client_open_stream(client, conn, stream);
        }
        for (size_t i = 0; i < client->link_count; i++) {
            struct wire_conn *conn = &client->links[i].conn;
            if (conn->state < WIRE_GREETING || conn->blocked || !wire_conn_has_output(conn))
                continue;
            if (link_write(client, &client->links[i]))
                again = again || conn->writing != NULL || client->waiting != NULL;
        }
    }
    for (size_t i = 0; i < client->link_count; i++) {
        struct wire_conn *conn = &client->links[i].conn;
        if (conn->state == WIRE_OPEN && conn->next_id > INT32_MAX)
            conn->state = WIRE_LEAVING; /* out of stream IDs (RFC 9113, 5.1.1) */
        if (conn->state == WIRE_LEAVING && conn->count == 0)
            link_lost(client, &client->links[i]);
    }
}

/* ---- time ---- */

void client_expire(struct wire_client *client) {
    while (client->oldest != NULL && client->oldest->deadline <= client->now) {
        struct wire_stream *stream = client->oldest;
        if (stream->conn == NULL) {
            client_finish_waiting(client, stream, "the deadline");
        } else {
            wire_conn_cancel(stream->conn, stream);
            client_finish_as(client, stream, WIRE_NO_ANSWER_TIMEOUT,
                             "no answer before the deadline");
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
            link_lost(client, link);
        }
    }
}

int64_t client_next_event(const struct wire_client *client, int64_t until) {
    int64_t wake = min64(until, client->now + STOP_SLICE);
    if (client->oldest != NULL)
        wake = min64(wake, client->oldest->deadline);
    if (client->retry_at < wake && !client->connecting && missing_links(client) > 0)
        wake = client->retry_at;
    for (const struct wire_stream *paused = client->paused; paused; paused = paused->next)
        wake = min64(wake, paused->resume_at);
    for (size_t i = 0; i < client->link_count; i++) {
        const struct wire_conn *conn = &client->links[i].conn;
        if (conn->state == WIRE_CONNECTING || conn->state == WIRE_GREETING)
            wake = min64(wake, conn->greet_by);
    }
    return wake;
}

void client_sleep(struct wire_client *client, int64_t wake) {
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
    client->now = client_clock();
    for (size_t i = 0; ready > 0 && i < client->link_count; i++) {
        struct link *link = &client->links[i];
        short events = client->polls[i].revents;
        if (events == 0 || link->conn.fd != client->polls[i].fd)
            continue;
        ready--;
        if (link->conn.state == WIRE_CONNECTING) {
            link_connected(client, link);
            continue;
        }
        if (events & POLLOUT)
            link->conn.blocked = false;
        if (events & (POLLIN | POLLHUP | POLLERR))
            link_read(client, link);
    }
}
