/* The float tape: gradients of whole losses against finite differences, running statistics,
 * several outputs, memory, failures. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "ops/ops.h"
#include "train/tape_parts.h"
#include "train_kit.h"

typedef graph *(*net)(rng *r);
static const net nets[] = {net_residual, net_branches, net_attention};

static graph *make(net f, uint64_t seed)
{
    rng r;
    rng_seed(&r, seed);
    return f(&r);
}

static void slopes_are_those_of_the_loss(void **state)
{
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++) {
        for (uint64_t seed = 0; seed < 3; seed++) {
            graph *g = make(nets[i], seed);
            const tape_options opt = {.batch = 3, .n_threads = seed == 1 ? 2 : 1};
            trial t = trial_begin(g, &opt, seed);
            assert_true(tape_memory_is_sound(t.t));
            trial_check(&t);
            trial_end(&t);
            graph_free(g);
        }
    }
}

static void batch_statistics_have_gradients(void **state)
{
    graph *g = make(net_residual, 5);
    const tape_options opt = {.batch = 4, .n_threads = 1, .batch_stats = true};
    trial t = trial_begin(g, &opt, 1);
    trial_check(&t);
    trial_end(&t);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slopes_are_those_of_the_loss),
        cmocka_unit_test(batch_statistics_have_gradients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
