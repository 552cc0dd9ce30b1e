/* The capacity that a receiver pretends to have: N spans a second, and what it does beyond.
 *
 * One time says everything: until when the spans taken so far would keep a server of that rate
 * busy. It is the theoretical arrival time of the virtual scheduling algorithm (ITU-T I.371, A.1),
 * which for refusing is a token bucket, and the end of the backlog of a D/D/1 queue for queueing.
 */
#ifndef BLASTER_RECEIVER_CAPACITY_H
#define BLASTER_RECEIVER_CAPACITY_H

#include <stdbool.h>
#include <stdint.h>

enum { CAPACITY_MOST = 1000000000 }; /* spans a second */

struct capacity {
    int64_t rate;     /* spans a second; 0: no limit */
    bool queue;       /* answer when it is their turn, rather than refuse what comes too early */
    int64_t patience; /* nanoseconds that the backlog may be long when another call is taken:
                         the bucket's depth when refusing, the queue's when queueing */
    int64_t service_time; /* nanoseconds that every answer takes besides */
    int64_t busy_until;   /* nanoseconds of the monotonic clock */
    int64_t remainder;    /* of the division that turned spans into time; below rate */
};

/* Whether a call that comes now is taken. */
bool capacity_admits(const struct capacity *capacity, int64_t now);

/* Takes a call of so many spans and returns when it is to be answered: now or later. */
int64_t capacity_take(struct capacity *capacity, int64_t now, int64_t spans);

#endif
