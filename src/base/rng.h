/* Seeded pseudo-random numbers, the same on every machine (xoshiro256**, Blackman and Vigna 2018,
 * seeded by splitmix64). */
#ifndef RUNG_BASE_RNG_H
#define RUNG_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

typedef struct rng {
    uint64_t s[4];
} rng;

void     rng_seed(rng *r, uint64_t seed);
uint64_t rng_next(rng *r);
uint64_t rng_below(rng *r, uint64_t n); /* uniform in [0, n), no modulo bias; n > 0 */
double   rng_uniform(rng *r);           /* [0, 1), 53 bits */
float    rng_normal(rng *r);            /* mean 0, variance 1 (Box-Muller in double) */
void     rng_shuffle(rng *r, size_t *items, size_t n); /* Fisher-Yates */

#endif
