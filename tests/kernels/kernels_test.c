/* The test of the kernel tables, and their stopwatch.
 *
 *     kernels_test [--seed N] [--cases N]     every row against its table's first; exit status 1
 *                                             when a byte differs
 *     kernels_test --bench                    times every row on layers of real networks */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"

static int usage(void)
{
    fprintf(stderr, "usage: kernels_test [--seed N] [--cases N] | --bench\n");
    return 2;
}

int main(int argc, char **argv)
{
    current.seed = (uint64_t)time(NULL);
    current.cases = 300;
    bool bench = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--bench"))
            bench = true;
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            current.seed = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--cases") && i + 1 < argc)
            current.cases = atoi(argv[++i]);
        else
            return usage();
    }
    rng_seed(&current.random, current.seed);
    if (bench) {
        bench_all();
        return 0;
    }
    printf("seed %llu\n", (unsigned long long)current.seed);
    check_conv();
    check_elementwise();
    check_pools();
    check_movement();
    check_product();
    check_wide();
    if (current.failures)
        printf("%ld failures with seed %llu\n", current.failures, (unsigned long long)current.seed);
    return current.failures != 0;
}
