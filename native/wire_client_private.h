/* What the files of the client share: its struct, and who does what with it. Everyone else sees
 * wire_client.h.
 *
 *   wire_client.c    the calls, and how long requests were due and not offered
 *   wire_greeting.c  the first connections, and what their peer seems to be
 *   wire_links.c     connections: opened, read, written, lost, replaced
 *   wire_requests.c  requests: offered, waiting, ended
 */
#ifndef BLASTER_WIRE_CLIENT_PRIVATE_H
#define BLASTER_WIRE_CLIENT_PRIVATE_H

#include "wire_client.h"

struct addrinfo;
struct pollfd;

enum { MILLISECOND = 1000000, SECOND = 1000000000 };

enum hello { HELLO_NONE, HELLO_SENT, HELLO_ANSWERED };

struct link {
    struct wire_conn conn;
    struct wire_stream hello_stream;
    enum hello hello;
    int refusals; /* of the hello */
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
    struct wire_stream *paused;                  /* those that were refused more than once */
    int64_t in_flight, now;
    int64_t behind_until; /* what the client was behind its schedule is counted up to here */
    int schedstat;        /* tells how long this thread waited for a CPU; -1: nobody does */

    struct wire_outcome *outcomes;
    size_t outcome_count, outcome_room;
    char *messages[WIRE_STATUS_COUNT];
    size_t message_lengths[WIRE_STATUS_COUNT];
};
static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static inline bool client_stopped(const struct wire_client *client) {
    return __atomic_load_n(client->stop, __ATOMIC_RELAXED) != 0;
}

/* ---- wire_client.c ---- */

int64_t client_clock(void); /* CLOCK_MONOTONIC, nanoseconds */

/* ---- wire_greeting.c ---- */

/* Takes what the empty request that greets a peer came to. */
void client_greeted(struct wire_client *client, const struct wire_stream *hello,
                    const struct wire_end *end);

/* ---- wire_links.c ---- */

/* As struct wire_owner has them. */
void client_on_ended(void *context, struct wire_stream *stream, const struct wire_end *end);
void client_on_goaway(void *context, struct wire_conn *conn, uint32_t last);

void link_open(struct wire_client *client, struct link *link);

/* The connection is no more: its streams are, or wait for the next one. */
void link_lost(struct wire_client *client, struct link *link);

/* Replaces connections that were lost or are leaving, with a pause that grows while it fails. */
void client_keep_connected(struct wire_client *client);

/* The connection with the fewest streams of those that take one now; in turn among equals. */
struct wire_conn *client_choose(struct wire_client *client);

/* Is any connection open that allows streams at all? If not, requests wait until their deadline. */
bool client_usable(const struct wire_client *client);

void client_open_stream(struct wire_client *client, struct wire_conn *conn,
                        struct wire_stream *stream);

/* Frames and writes all that is possible now. */
void client_pump(struct wire_client *client);

/* Ends what is past its time. */
void client_expire(struct wire_client *client);

/* Until when may the client sleep, if nothing comes in? */
int64_t client_next_event(const struct wire_client *client, int64_t until);

/* Sleeps until `wake` or until a socket is ready, and reads. */
void client_sleep(struct wire_client *client, int64_t wake);

/* ---- wire_requests.c ---- */

/* The queue of requests that have no connection. */
void client_wait_last(struct wire_client *client, struct wire_stream *stream);
void client_wait_first(struct wire_client *client, struct wire_stream *stream);
void client_wait_no_more(struct wire_client *client, const struct wire_stream *stream);

/* The peer has refused it: it waits for its next try. */
void client_send_again(struct wire_client *client, struct wire_stream *stream);

/* Ends the pauses that are over. */
void client_resume(struct wire_client *client);

/* Makes the bytes once more, if they are gone; false when memory is short. */
bool client_remake(struct wire_client *client, struct wire_stream *stream);

/* Offers one request: from here on it will have an outcome. NULL when memory is short. */
struct wire_stream *client_offer(struct wire_client *client, const struct wire_batches *batches,
                                 int64_t i);

/* The one place where a request ends. The stream has no connection any more and does not wait. */
void client_finish(struct wire_client *client, struct wire_stream *stream,
                   const struct wire_end *end);
void client_finish_as(struct wire_client *client, struct wire_stream *stream, int status,
                      const char *message);

/* It certainly was not processed and waits no longer. */
void client_finish_waiting(struct wire_client *client, struct wire_stream *stream,
                           const char *when);

/* Ends all that is in flight. */
void client_abandon(struct wire_client *client);

#endif
