#define _GNU_SOURCE /* O_CLOEXEC, getaddrinfo */
#include "wire_client_private.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int64_t client_clock(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * SECOND + time.tv_nsec;
}

/* ---- made and freed ---- */

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
    client->owner = (struct wire_owner){client_on_ended, client_on_goaway, client};
    client->waiting_tail = &client->waiting;
    client->now = client_clock();
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
                            H2_TABLE_SIZE, 1) < 0) {
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
    for (size_t i = 0; client->streams != NULL && i < client->capacity; i++)
        free(client->streams[i].recipe);
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

/* ---- time in which a request was due and not offered ---- */

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
    client_sleep(client, wake);
    count_blocked(client, why, due, slept + run_delay(client) - delay);
}

static void count_behind(struct wire_client *client, int64_t due) {
    count_blocked(client, WIRE_BEHIND, due, client->behind_until);
    client->behind_until = client->now;
}

/* ---- the calls ---- */

static void tick(struct wire_client *client) {
    client->now = client_clock();
    client_expire(client);
    client_resume(client);
    client_keep_connected(client);
}

/* Room for the outcomes of all that may be in flight by then. */
static int reserve_outcomes(struct wire_client *client, int64_t count) {
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
    if (reserve_outcomes(client, batches->count) < 0)
        return -1;
    client->now = client_clock();
    client_sleep(client, client->now); /* a connection that has ended is not to be written to */
    while (next < batches->count) {
        tick(client);
        count_behind(client, due_of(batches, next));
        if (client->now >= until || client_stopped(client))
            break;
        bool full = false;
        while (next < batches->count && batches->scheduled[next] <= client->now) {
            struct wire_conn *conn = NULL;
            full = client->free == NULL;
            if (!full && client->waiting == NULL)
                conn = client_choose(client);
            full = full || (conn == NULL && client_usable(client));
            if (full)
                break;
            struct wire_stream *stream = client_offer(client, batches, next);
            if (stream == NULL)
                return next > 0 ? next : -1;
            next++;
            if (conn != NULL)
                client_open_stream(client, conn, stream);
            else
                client_wait_last(client, stream);
        }
        client_pump(client);
        if (next == batches->count)
            break;
        int64_t wake = client_next_event(client, until);
        if (!full)
            wake = min64(wake, batches->scheduled[next]);
        else if (client->free != NULL && client->waiting == NULL && client_choose(client) != NULL)
            wake = client->now; /* the burst was full and has been written */
        if (full && wake > client->now)
            sleep_blocked(client, client->free == NULL ? WIRE_CAPPED : WIRE_HELD,
                          due_of(batches, next), wake);
        else
            client_sleep(client, wake);
    }
    return next;
}

void wire_client_wait(struct wire_client *client, int64_t until) {
    for (;;) {
        tick(client);
        client_pump(client);
        if (client->now >= until || client_stopped(client))
            return;
        client_sleep(client, client_next_event(client, until));
    }
}

void wire_client_drain(struct wire_client *client, int64_t until) {
    for (;;) {
        tick(client);
        client_pump(client);
        if (client->in_flight == 0)
            return;
        if (client->now >= until) {
            client_abandon(client);
            client_pump(client);
            return;
        }
        client_sleep(client, client_next_event(client, until));
    }
}

void wire_client_close(struct wire_client *client) {
    client->now = client_clock();
    client_abandon(client);
    client_pump(client);
    for (size_t i = 0; i < client->link_count; i++)
        if (client->links[i].conn.state != WIRE_FREE)
            wire_conn_close(&client->links[i].conn);
}

bool wire_client_needs(const struct wire_client *client, const struct batch_source *source) {
    for (const struct wire_stream *stream = client->oldest; stream; stream = stream->newer)
        if (stream->source == source)
            return true;
    return false;
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
