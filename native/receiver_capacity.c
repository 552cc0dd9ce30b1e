#include "receiver_capacity.h"

bool capacity_admits(const struct capacity *capacity, int64_t now) {
    return capacity->rate == 0 || capacity->busy_until - now < capacity->patience;
}

int64_t capacity_take(struct capacity *capacity, int64_t now, int64_t spans) {
    if (capacity->rate == 0)
        return now + capacity->service_time;
    if (capacity->busy_until < now) {
        capacity->busy_until = now;
        capacity->remainder = 0;
    }
    /* Below 2^63: a message has less than 2^31 bytes, and a span takes two of them. */
    int64_t nanospans = spans * INT64_C(1000000000) + capacity->remainder;
    capacity->busy_until += nanospans / capacity->rate;
    capacity->remainder = nanospans % capacity->rate;
    return (capacity->queue ? capacity->busy_until : now) + capacity->service_time;
}
