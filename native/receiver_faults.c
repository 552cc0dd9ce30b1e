#include "receiver_faults.h"

#include <math.h>

static const int64_t MOST_DELAY = INT64_C(3600000000000);
static const uint64_t ALL = UINT64_C(1) << 32;

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t mix(uint64_t x) {
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static bool active(const struct fault_table *table, const struct fault *fault, int64_t now) {
    int64_t since = now - table->started;
    return since >= fault->from && since < fault->until && !(fault->once && fault->hits > 0);
}

static int64_t delay_of(const struct fault *fault, uint64_t random) {
    if (fault->exponential) {
        double unit = (double)(random >> 11) * 0x1p-53; /* below 1 */
        double delay = -(double)fault->low * log1p(-unit);
        return delay < (double)MOST_DELAY ? (int64_t)delay : MOST_DELAY;
    }
    return fault->low + (int64_t)(random % (uint64_t)(fault->high - fault->low + 1));
}

void faults_draw(struct fault_table *table, int64_t now, struct fault_draw *draw) {
    draw->fault.kind = FAULT_NONE;
    draw->delay = 0;
    if (table->count == 0)
        return;
    if (table->started == 0)
        table->started = now;
    uint64_t request = table->requests++;
    for (size_t i = 0; i < table->count; i++) {
        struct fault *fault = &table->faults[i];
        bool delays = fault->kind == FAULT_DELAY;
        if (fault->kind == FAULT_REFUSE || (!delays && draw->fault.kind != FAULT_NONE) ||
            !active(table, fault, now))
            continue;
        uint64_t random = mix(mix(table->seed + i) ^ request);
        if (random >> 32 >= fault->share)
            continue;
        fault->hits++;
        random = mix(random);
        if (delays) {
            draw->delay += delay_of(fault, random);
        } else {
            draw->fault = *fault;
            draw->random = random;
        }
    }
}

bool faults_refuse(struct fault_table *table, int64_t now) {
    if (table->started == 0)
        return false;
    uint64_t connection = table->connections++;
    for (size_t i = 0; i < table->count; i++) {
        struct fault *fault = &table->faults[i];
        if (fault->kind != FAULT_REFUSE || !active(table, fault, now))
            continue;
        if (mix(mix(table->seed + i) ^ connection) >> 32 < fault->share) {
            fault->hits++;
            return true;
        }
    }
    return false;
}

bool faults_refuse_all(const struct fault_table *table, int64_t now) {
    for (size_t i = 0; i < table->count && table->started != 0; i++) {
        const struct fault *fault = &table->faults[i];
        if (fault->kind == FAULT_REFUSE && fault->share >= ALL && !fault->once &&
            active(table, fault, now))
            return true;
    }
    return false;
}
