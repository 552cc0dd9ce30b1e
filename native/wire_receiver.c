#define _GNU_SOURCE /* accept4 */
#include "wire_receiver.h"

#include "receiver_conn.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    READ_SIZE = 1 << 19, /* bytes of one read at most */
    TURN_SIZE = 1 << 20, /* bytes after which the other connections have their turn */
    EVENTS = 64,
    ACCEPTS = 64, /* connections taken up before the others are served again */
    BACKLOG = 1024,
    WAIT_MS = 20,
    GATHER_LEAST = 1 << 14, /* bytes owed by a peer below which every arrival is read at once */
    GATHER_MOST = 1 << 17,  /* ... and what is waited for at most */
};

static const int64_t TICK = 1000000000;   /* nanoseconds between looks at the timeouts */
static const int64_t PATIENCE = 20000000; /* ... for the bytes that are waited for to gather */
static const int64_t LINGER = 2000000000; /* ... that a peer has to read our last words */
static const int64_t STALL = 60000000000; /* ... that it may leave our answers unread */

/* A connection and its socket. */
struct link {
    struct link *previous, *next;
    struct conn *conn;
    int fd;
    uint32_t events; /* what epoll looks for */
    int gather;      /* bytes that have to be there before epoll says so; 1: any */
    int64_t read;    /* when it was last read */
    bool shut;       /* our side is closed; what still comes is thrown away */
    int64_t since;   /* of shut, or of the first answer that could not be sent; 0: neither */
    uint8_t *rest;   /* bytes that were read and have to wait until output has been sent */
    size_t rest_start, rest_end;
};

struct receiver {
    struct conn_shared shared;
    struct scanner *scanner;
    struct link *links;
    uint32_t max_connections;
    int listener, epoll, timer;
    struct capacity capacity;
    int64_t timer_at;     /* what the timer is set to; INT64_MAX: nothing */
    int64_t frozen_until; /* read and written atomically */
    uint16_t port;
    bool listener_paused; /* the listener is out of epoll until the next tick */
    int64_t last_tick, last_end_waits;
    struct scan_counts unread; /* requests and bytes, when nothing is scanned */
    struct receiver_counts counts;
    bool uncounted;                  /* something happened since the counts were published */
    bool refusing;                   /* a fault closes the listener at times; written atomically */
    struct fault_draw draw;          /* of the call at hand */
    struct sockaddr_storage address; /* listened on */
    socklen_t address_length;
    pthread_mutex_t mutex; /* guards the scanner and: */
    struct fault_table faults;
    struct receiver_counts published;
    uint8_t *buffer;
};

static int64_t clock_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static struct grpc_answer refuse(int status, const char *message) {
    return (struct grpc_answer){status, message, 0, NULL, 0};
}

/* Reads the message, as far as its fault leaves anything to read; the mutex is held. */
static struct grpc_answer take(struct receiver *receiver, const uint8_t *message, size_t length) {
    int64_t now = receiver->shared.now, spans, rejected = 0;
    struct fault_draw *draw = &receiver->draw;
    draw->fault.kind = FAULT_NONE;
    draw->delay = 0;
    /* An empty message asks for nothing: a client's first look whether anybody is there. */
    if (length > 0) {
        faults_draw(&receiver->faults, now, draw);
        switch (draw->fault.kind) {
        case FAULT_STATUS:
            return (struct grpc_answer){(int)draw->fault.low, "a fault on purpose", 0, draw, 0};
        case FAULT_HTTP:
        case FAULT_RST:
        case FAULT_CONTENT_TYPE:
            return (struct grpc_answer){GRPC_OK, NULL, 0, draw, 0};
        case FAULT_FREEZE:
            receiver_freeze(receiver, draw->fault.low);
            draw->delay += draw->fault.low; /* this very answer, too */
            break;
        default:
            break;
        }
        if (!capacity_admits(&receiver->capacity, now))
            return refuse(GRPC_RESOURCE_EXHAUSTED, "over capacity");
    }
    if (draw->fault.kind == FAULT_PARTIAL)
        spans =
            scanner_request_partly(receiver->scanner, SCAN_PROTOBUF, message, length,
                                   (uint64_t)draw->fault.low, (uint32_t)draw->random, &rejected);
    else
        spans = scanner_request(receiver->scanner, SCAN_PROTOBUF, message, length);
    if (spans >= 0) {
        int64_t at = capacity_take(&receiver->capacity, now, spans) + draw->delay;
        return (struct grpc_answer){GRPC_OK, NULL, at, draw, rejected};
    }
    if (spans == SCAN_NO_MEMORY)
        return refuse(GRPC_RESOURCE_EXHAUSTED, "memory is short");
    return refuse(GRPC_INVALID_ARGUMENT, "the message is not an ExportTraceServiceRequest");
}

static struct grpc_answer deliver(void *context, const uint8_t *message, size_t length) {
    struct receiver *receiver = context;
    receiver->uncounted = true;
    if (receiver->scanner == NULL) {
        receiver->unread.requests++;
        receiver->unread.bytes += length;
        return (struct grpc_answer){GRPC_OK, NULL, 0, NULL, 0};
    }
    pthread_mutex_lock(&receiver->mutex);
    struct grpc_answer answer = take(receiver, message, length);
    pthread_mutex_unlock(&receiver->mutex);
    return answer;
}

/* Makes the counts readable. Done before answers leave, so that whoever was told "accepted" finds
 * it counted. */
static void publish(struct receiver *receiver) {
    struct receiver_counts *counts = &receiver->counts;
    pthread_mutex_lock(&receiver->mutex);
    if (receiver->scanner != NULL) {
        scanner_counts(receiver->scanner, &counts->scan);
        counts->sampling = scanner_sampling(receiver->scanner);
    } else {
        counts->scan = receiver->unread;
        counts->sampling = 1;
    }
    counts->connection_errors = receiver->shared.connection_errors;
    counts->refused = receiver->shared.refused;
    counts->buffered = receiver->shared.pool.committed;
    receiver->published = *counts;
    pthread_mutex_unlock(&receiver->mutex);
    receiver->uncounted = false;
}

/* ---- links ---- */

static void watch(struct receiver *receiver, struct link *link, uint32_t events) {
    if (link->events == events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = link};
    epoll_ctl(receiver->epoll, EPOLL_CTL_MOD, link->fd, &event);
    link->events = events;
}

static void link_close(struct receiver *receiver, struct link *link) {
    if (link->previous != NULL)
        link->previous->next = link->next;
    else
        receiver->links = link->next;
    if (link->next != NULL)
        link->next->previous = link->previous;
    close(link->fd);
    conn_free(link->conn);
    free(link->rest);
    free(link);
    receiver->counts.connections--;
    receiver->uncounted = true;
}

/* Takes over the socket; closes it when there is no memory. */
static void link_open(struct receiver *receiver, int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct link *link = calloc(1, sizeof *link);
    struct conn *conn = link != NULL ? conn_new(&receiver->shared, link) : NULL;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = link};
    if (link == NULL || conn == NULL || epoll_ctl(receiver->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        free(link);
        if (conn != NULL)
            conn_free(conn);
        close(fd);
        return;
    }
    link->fd = fd;
    link->conn = conn;
    link->events = EPOLLIN;
    link->gather = 1;
    link->next = receiver->links;
    if (link->next != NULL)
        link->next->previous = link;
    receiver->links = link;
    receiver->counts.connections++;
    receiver->counts.accepted++;
    receiver->uncounted = true;
}

/* Makes close() send RST, and take what was to be sent along. */
static void link_reset(int fd) {
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

/* Sends what there is to send. False: the connection is gone. */
static bool link_flush(struct receiver *receiver, struct link *link) {
    size_t length;
    const uint8_t *output;
    if (conn_aborted(link->conn)) {
        publish(receiver);
        link_reset(link->fd);
        link_close(receiver, link);
        return false;
    }
    if (conn_output(link->conn, &length) != NULL)
        publish(receiver);
    while ((output = conn_output(link->conn, &length)) != NULL) {
        ssize_t sent = send(link->fd, output, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (link->since == 0)
                link->since = receiver->shared.now;
            watch(receiver, link, EPOLLOUT); /* and reads nothing more before that */
            return true;
        }
        if (sent < 0) {
            link_close(receiver, link);
            return false;
        }
        conn_sent(link->conn, (size_t)sent);
        link->since = 0;
    }
    if (conn_ended(link->conn) && !link->shut) {
        /* To close now would reset the connection if the peer is still sending, and might take our
         * last words from it. */
        shutdown(link->fd, SHUT_WR);
        link->shut = true;
        link->since = receiver->shared.now;
    }
    watch(receiver, link, EPOLLIN);
    return true;
}

/* Feeds the connection; keeps what it can't take yet. False: memory is short. */
static bool link_feed(struct link *link, const uint8_t *data, size_t length) {
    size_t taken = conn_feed(link->conn, data, length);
    if (taken == length)
        return true;
    link->rest = malloc(length - taken);
    if (link->rest == NULL)
        return false;
    memcpy(link->rest, data + taken, length - taken);
    link->rest_start = 0;
    link->rest_end = length - taken;
    return true;
}

/* Lets epoll wait until so many bytes are there. A sender that writes frame by frame would else
 * wake us for each, which costs more than to read it. */
static void link_gather(struct link *link, size_t bytes) {
    int gather = bytes < GATHER_LEAST ? 1 : bytes < GATHER_MOST ? (int)bytes : GATHER_MOST;
    if (link->gather == gather)
        return;
    setsockopt(link->fd, SOL_SOCKET, SO_RCVLOWAT, &gather, sizeof gather);
    link->gather = gather;
}

/* Sends, and feeds what was kept as far as that is possible now. */
static void link_proceed(struct receiver *receiver, struct link *link) {
    bool open;
    while ((open = link_flush(receiver, link)) && link->rest != NULL && link->events == EPOLLIN) {
        link->rest_start +=
            conn_feed(link->conn, link->rest + link->rest_start, link->rest_end - link->rest_start);
        if (link->rest_start == link->rest_end) {
            free(link->rest);
            link->rest = NULL;
        }
    }
    if (open)
        link_gather(link, link->shut ? 0 : conn_owed(link->conn));
}

enum reading { GONE, DRY, MORE };

/* Reads once: is the link gone, has it been read dry, or may there be more at once? */
static enum reading link_read(struct receiver *receiver, struct link *link, size_t *total) {
    uint8_t *room = NULL;
    size_t after = READ_SIZE, fits = link->shut ? 0 : conn_room(link->conn, &room, &after);
    if (after > READ_SIZE)
        after = READ_SIZE;
    struct iovec parts[2] = {{room, fits}, {receiver->buffer, after}};
    ssize_t count =
        fits > 0 ? readv(link->fd, parts, 2) : recv(link->fd, receiver->buffer, after, 0);
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return DRY;
    if (count <= 0) {
        /* All that came whole was answered; what the peer has not read by now it may still read,
         * as close() sends what is in the socket. */
        link_close(receiver, link);
        return GONE;
    }
    link->read = receiver->shared.now;
    size_t got = (size_t)count, direct = got < fits ? got : fits;
    *total += got;
    if (link->shut)
        return DRY;
    /* The first part goes to its message whatever the output: conn_feed stops between frames. */
    if ((direct > 0 && !link_feed(link, room, direct)) ||
        (got > direct && !link_feed(link, receiver->buffer, got - direct))) {
        link_close(receiver, link);
        return GONE;
    }
    return got == fits + after && link->rest == NULL ? MORE : DRY;
}

static void link_serve(struct receiver *receiver, struct link *link, uint32_t events) {
    enum reading reading = MORE;
    if (link->events == EPOLLIN) {
        for (size_t total = 0; reading == MORE && total < TURN_SIZE;)
            reading = link_read(receiver, link, &total);
        if (reading != GONE)
            link_proceed(receiver, link);
    } else if (events & EPOLLOUT) {
        link_proceed(receiver, link);
    } else { /* an error or a hang-up: nobody reads what we have to say */
        link_close(receiver, link);
    }
}

/* ---- the loop ---- */

static void pause_listener(struct receiver *receiver, bool paused) {
    struct epoll_event event = {.events = paused ? 0 : EPOLLIN, .data.ptr = NULL};
    if (receiver->listener < 0)
        return;
    epoll_ctl(receiver->epoll, EPOLL_CTL_MOD, receiver->listener, &event);
    receiver->listener_paused = paused;
}

/* Whether a connection that was accepted is to be reset at once. */
static bool refuses(struct receiver *receiver) {
    if (!__atomic_load_n(&receiver->refusing, __ATOMIC_ACQUIRE))
        return false;
    pthread_mutex_lock(&receiver->mutex);
    bool refused = faults_refuse(&receiver->faults, receiver->shared.now);
    pthread_mutex_unlock(&receiver->mutex);
    return refused;
}

static void accept_links(struct receiver *receiver) {
    for (int i = 0; i < ACCEPTS; i++) {
        int fd = accept4(receiver->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0 && refuses(receiver)) {
            link_reset(fd);
            close(fd);
        } else if (fd >= 0 && receiver->counts.connections < receiver->max_connections) {
            link_open(receiver, fd);
        } else if (fd >= 0) {
            close(fd);
            receiver->counts.turned_away++;
            receiver->uncounted = true;
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            pause_listener(receiver, true); /* else the loop would spin on it */
            return;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        }
    }
}

/* Sends the answers whose time has come, and sets the timer to that of the next. */
static void answer_due(struct receiver *receiver) {
    struct link *link;
    while ((link = conn_next_due(&receiver->shared)) != NULL)
        if (link->events == EPOLLIN)
            link_proceed(receiver, link); /* may close it, and so take its calls off the list */
    int64_t due = conn_due(&receiver->shared);
    if (due == receiver->timer_at)
        return;
    int64_t at = due == INT64_MAX ? 0 : due; /* 0 disarms it */
    struct itimerspec when = {.it_value = {at / 1000000000, at % 1000000000}};
    timerfd_settime(receiver->timer, TFD_TIMER_ABSTIME, &when, NULL);
    receiver->timer_at = due;
}

/* Waits for the end of a freeze, but not so long that a stop would go unnoticed. True: waited. */
static bool frozen(struct receiver *receiver) {
    int64_t left = __atomic_load_n(&receiver->frozen_until, __ATOMIC_ACQUIRE) - clock_now();
    if (left <= 0)
        return false;
    int64_t most = WAIT_MS * INT64_C(1000000);
    struct timespec nap = {.tv_nsec = left < most ? left : most};
    nanosleep(&nap, NULL);
    return true;
}

static void tick(struct receiver *receiver) {
    int64_t now = receiver->shared.now;
    receiver->last_tick = now;
    if (receiver->listener_paused)
        pause_listener(receiver, false);
    for (struct link *link = receiver->links, *next; link != NULL; link = next) {
        next = link->next;
        int64_t patience = link->shut ? LINGER : STALL;
        if (link->since != 0 && now - link->since > patience) {
            receiver->shared.connection_errors += !link->shut;
            link_close(receiver, link);
            continue;
        }
        if (link->shut)
            continue;
        conn_tick(link->conn);
        if (link->events == EPOLLIN)
            link_flush(receiver, link);
    }
    pool_tick(&receiver->shared.pool);
    publish(receiver);
}

/* A peer may pause within a message and want an answer to something else meanwhile (a ping): what
 * it sent is read before long even if it did not gather. */
static void end_waits(struct receiver *receiver) {
    int64_t now = receiver->shared.now;
    receiver->last_end_waits = now;
    for (struct link *link = receiver->links, *next; link != NULL; link = next) {
        next = link->next;
        if (link->gather > 1 && now - link->read >= PATIENCE)
            link_gather(link, 0);
        conn_reopen_windows(link->conn);
        if (link->events == EPOLLIN && !link->shut)
            link_flush(receiver, link);
    }
}

static int listen_on(const struct addrinfo *address);

/* Closes the listener while all connections are to be refused, and opens it again. */
static void open_or_close_listener(struct receiver *receiver) {
    if (!__atomic_load_n(&receiver->refusing, __ATOMIC_ACQUIRE) && receiver->listener >= 0)
        return;
    pthread_mutex_lock(&receiver->mutex);
    bool closed = faults_refuse_all(&receiver->faults, receiver->shared.now);
    pthread_mutex_unlock(&receiver->mutex);
    if (closed && receiver->listener >= 0) {
        close(receiver->listener);
        receiver->listener = -1;
    } else if (!closed && receiver->listener < 0) {
        struct addrinfo address = {.ai_family = receiver->address.ss_family,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_addr = (struct sockaddr *)&receiver->address,
                                   .ai_addrlen = receiver->address_length};
        receiver->listener = listen_on(&address); /* in vain: tried again before long */
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
        if (receiver->listener >= 0)
            epoll_ctl(receiver->epoll, EPOLL_CTL_ADD, receiver->listener, &event);
    }
}

int receiver_run(struct receiver *receiver, const int64_t *stop) {
    struct epoll_event events[EVENTS];
    while (__atomic_load_n(stop, __ATOMIC_ACQUIRE) == 0) {
        if (frozen(receiver))
            continue;
        int count = epoll_wait(receiver->epoll, events, EVENTS, WAIT_MS);
        if (count < 0)
            return -errno;
        receiver->shared.now = clock_now();
        /* Each socket stands in the list once at most, so no link here has been closed before. */
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL)
                accept_links(receiver);
            else if (events[i].data.ptr == &receiver->timer)
                receiver->timer_at = INT64_MAX; /* it has gone off, and is set anew below */
            else
                link_serve(receiver, events[i].data.ptr, events[i].events);
        }
        answer_due(receiver);
        open_or_close_listener(receiver);
        if (receiver->uncounted)
            publish(receiver);
        if (receiver->shared.now - receiver->last_end_waits >= PATIENCE)
            end_waits(receiver);
        if (receiver->shared.now - receiver->last_tick >= TICK)
            tick(receiver);
    }
    return 0;
}

/* ---- open and close ---- */

static int listen_on(const struct addrinfo *address) {
    int on = 1, type = address->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC;
    int fd = socket(address->ai_family, type, address->ai_protocol);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, address->ai_addr, address->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

static int bind_listener(struct receiver *receiver, const struct receiver_options *options,
                         int *gai) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *addresses = NULL;
    char port[6] = {0};
    for (unsigned value = options->port, i = 0; i < 5; i++, value /= 10)
        port[4 - i] = (char)('0' + value % 10);
    *gai = getaddrinfo(options->host, port, &hints, &addresses);
    if (*gai != 0)
        return -EADDRNOTAVAIL;
    int fd = -EADDRNOTAVAIL;
    for (struct addrinfo *address = addresses; address != NULL && fd < 0;
         address = address->ai_next)
        fd = listen_on(address);
    freeaddrinfo(addresses);
    if (fd < 0)
        return fd;
    receiver->listener = fd;
    struct sockaddr_storage *name = &receiver->address;
    receiver->address_length = sizeof *name;
    if (getsockname(fd, (struct sockaddr *)name, &receiver->address_length) < 0)
        return -errno;
    if (name->ss_family == AF_INET6)
        receiver->port = ntohs(((struct sockaddr_in6 *)name)->sin6_port);
    else
        receiver->port = ntohs(((struct sockaddr_in *)name)->sin_port);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    return epoll_ctl(receiver->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int receiver_open(struct receiver **out, const struct receiver_options *options, int *gai) {
    struct receiver *receiver = calloc(1, sizeof *receiver);
    *gai = 0;
    *out = NULL;
    if (receiver == NULL)
        return -ENOMEM;
    struct conn_limits limits = {
        .max_message = options->max_message,
        .max_streams = options->max_streams,
        .handshake_timeout = options->handshake_timeout,
        .request_timeout = options->request_timeout,
        .idle_timeout = options->idle_timeout,
    };
    int error = -ENOMEM;
    pthread_mutex_init(&receiver->mutex, NULL);
    conn_shared_init(&receiver->shared, &limits, options->max_buffered, deliver, receiver);
    receiver->max_connections = options->max_connections;
    receiver->capacity = options->capacity;
    receiver->timer_at = INT64_MAX;
    receiver->listener = receiver->timer = -1;
    receiver->shared.now = receiver->last_tick = clock_now();
    receiver->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (receiver->epoll < 0) {
        error = -errno;
        goto failed;
    }
    receiver->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    /* Edge-triggered: it need not be read. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = &receiver->timer};
    if (receiver->timer < 0 ||
        epoll_ctl(receiver->epoll, EPOLL_CTL_ADD, receiver->timer, &event) < 0) {
        error = -errno;
        goto failed;
    }
    receiver->buffer = malloc(READ_SIZE);
    if (receiver->buffer == NULL)
        goto failed;
    if (options->scan && (receiver->scanner = scanner_new(options->scanner_capacity)) == NULL)
        goto failed;
    error = bind_listener(receiver, options, gai);
    if (error < 0)
        goto failed;
    publish(receiver);
    *out = receiver;
    return 0;
failed:
    receiver_close(receiver);
    return error;
}

uint16_t receiver_port(const struct receiver *receiver) { return receiver->port; }

void receiver_freeze(struct receiver *receiver, int64_t duration) {
    __atomic_store_n(&receiver->frozen_until, clock_now() + duration, __ATOMIC_RELEASE);
}

void receiver_watch(struct receiver *receiver, uint64_t rules) {
    if (receiver->scanner != NULL)
        scanner_watch(receiver->scanner, rules);
}

size_t receiver_take(struct receiver *receiver, struct scan_violation *out, size_t most,
                     uint64_t *missed) {
    *missed = 0;
    return receiver->scanner != NULL ? scanner_take(receiver->scanner, out, most, missed) : 0;
}

int64_t receiver_scan(struct receiver *receiver, enum scan_encoding encoding,
                      const uint8_t *message, size_t length, uint64_t share, uint32_t random,
                      int64_t *rejected) {
    *rejected = 0;
    if (receiver->scanner == NULL)
        return SCAN_MALFORMED;
    pthread_mutex_lock(&receiver->mutex);
    int64_t spans = scanner_request_partly(receiver->scanner, encoding, message, length, share,
                                           random, rejected);
    scanner_counts(receiver->scanner, &receiver->published.scan);
    receiver->published.sampling = scanner_sampling(receiver->scanner);
    pthread_mutex_unlock(&receiver->mutex);
    return spans;
}

void receiver_fault(struct receiver *receiver, uint64_t seed, const struct fault *faults,
                    size_t count) {
    bool refusing = false;
    pthread_mutex_lock(&receiver->mutex);
    receiver->faults = (struct fault_table){.seed = seed, .count = count};
    for (size_t i = 0; i < count; i++) {
        receiver->faults.faults[i] = faults[i];
        receiver->faults.faults[i].hits = 0;
        refusing |= faults[i].kind == FAULT_REFUSE;
    }
    pthread_mutex_unlock(&receiver->mutex);
    __atomic_store_n(&receiver->refusing, refusing, __ATOMIC_RELEASE);
}

size_t receiver_fault_hits(struct receiver *receiver, uint64_t hits[FAULTS_MAX]) {
    pthread_mutex_lock(&receiver->mutex);
    size_t count = receiver->faults.count;
    for (size_t i = 0; i < count; i++)
        hits[i] = receiver->faults.faults[i].hits;
    pthread_mutex_unlock(&receiver->mutex);
    return count;
}

void receiver_counts(struct receiver *receiver, struct receiver_counts *counts) {
    pthread_mutex_lock(&receiver->mutex);
    *counts = receiver->published;
    pthread_mutex_unlock(&receiver->mutex);
}

void receiver_close(struct receiver *receiver) {
    while (receiver->links != NULL) {
        struct link *link = receiver->links;
        conn_goaway(link->conn);
        if (link_flush(receiver, link))
            link_close(receiver, link);
    }
    conn_shared_clear(&receiver->shared);
    if (receiver->scanner != NULL)
        scanner_free(receiver->scanner);
    if (receiver->listener >= 0)
        close(receiver->listener);
    if (receiver->timer >= 0)
        close(receiver->timer);
    if (receiver->epoll >= 0)
        close(receiver->epoll);
    free(receiver->buffer);
    pthread_mutex_destroy(&receiver->mutex);
    free(receiver);
}
