/* Statistics of parts of a batch: a lane has parts of its own, and threads do not matter. */
#include "train_kit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/trainer.h"

enum { SAMPLES = 64, SAMPLE = 3 * 8 * 8, PART = 16, PARTS = SAMPLES / PART };

typedef struct setting {
    graph      *g;
    float       x[SAMPLES * SAMPLE];
    int64_t     labels[SAMPLES];
    batch_input input;
    batch       b;
} setting;

static setting *begin(void)
{
    setting *s = calloc(1, sizeof *s);
    rng r;
    assert_non_null(s);
    rng_seed(&r, 3);
    s->g = net_residual(&r);
    for (int i = 0; i < SAMPLES * SAMPLE; i++)
        s->x[i] = rng_normal(&r);
    for (int i = 0; i < SAMPLES; i++)
        s->labels[i] = i % 5;
    s->input = (batch_input){ "", { RUNG_F32, 4, { SAMPLES, 3, 8, 8 }, s->x } };
    s->b = (batch){ .n = SAMPLES, .n_inputs = 1, .inputs = &s->input, .labels = s->labels };
    return s;
}

static void end(setting *s)
{
    graph_free(s->g);
    free(s);
}

static void narrow(setting *s, size_t first, size_t n)
{
    s->input.t.dims[0] = (int64_t)n;
    s->input.t.data = s->x + first * SAMPLE;
    s->b.labels = s->labels + first;
    s->b.n = n;
}

static trainer *made(const setting *s, size_t all, size_t chunk, int n_threads)
{
    const trainer_options opt = {
        .optimizer = { .rate = 0.02f, .momentum = 0.9f, .total = 100,
                       .schedule = SCHEDULE_CONSTANT },
        .loss = { .cross_entropy = 1 }, .batch = all, .chunk = chunk, .n_threads = n_threads,
        .batch_stats = true,
    };
    trainer *t;
    assert_ok(trainer_create(s->g, NULL, &opt, &t, err));
    return t;
}

static void step(trainer *t, const setting *s)
{
    step_result result;
    assert_ok(trainer_step(t, &s->b, NULL, NULL, &result, err));
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    setting *s = begin();
    float *one = NULL;
    for (int n = 1; n <= PARTS; n++) {
        trainer *t = made(s, SAMPLES, PART, n);
        assert_int_equal(trainer_lanes(t), n);
        for (int i = 0; i < 3; i++)
            step(t, s);
        const params *p = trainer_params(t);
        const size_t size = p->total * sizeof *p->data;
        if (!one) {
            assert_non_null(one = malloc(size));
            memcpy(one, p->data, size);
        }
        assert_memory_equal(one, p->data, size);
        trainer_free(t);
    }
    free(one);
    end(s);
}

/* After one step on these samples: adds `share` of the running statistics to sum, [p->total]. */
static void add_statistics(const trainer *t, float share, float *sum)
{
    const params *p = trainer_params((trainer *)t);
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; p->list[i].kind == PARAM_STATE && k < p->list[i].count; k++, n++)
            sum[p->list[i].first + k] += share * p->data[p->list[i].first + k];
    assert_int_equal(n, 4 * 8); /* mean and variance of two norms of eight channels */
}

static void running_ones_follow_the_mean_of_the_parts(void **state)
{
    (void)state;
    setting *s = begin();
    trainer *whole = made(s, SAMPLES, PART, 2);
    const size_t total = trainer_params(whole)->total;
    float *sum = calloc(total, sizeof *sum), *got = calloc(total, sizeof *got);
    assert_true(sum && got);
    step(whole, s);
    add_statistics(whole, 1, got);
    for (size_t i = 0; i < PARTS; i++) {
        trainer *t = made(s, PART, 0, 1);
        narrow(s, i * PART, PART);
        step(t, s);
        add_statistics(t, 1.0f / PARTS, sum);
        trainer_free(t);
    }
    for (size_t i = 0; i < total; i++)
        assert_float_equal(sum[i], got[i], 1e-5 * (1 + fabsf(got[i])));
    free(sum);
    free(got);
    trainer_free(whole);
    end(s);
}

static void parts_are_equal(void **state)
{
    (void)state;
    static const size_t cases[][3] = { /* batch, wanted, samples of a part */
                                       { 64, 0, 64 }, { 60, 16, 20 }, { 31, 16, 31 },
                                       { 37, 16, 37 }, { 64, 16, 16 }, { 64, 64, 64 },
                                       { 64, 24, 32 }, { 64, 100, 64 } };
    setting *s = begin();
    for (int i = 0; i < COUNT(cases); i++) {
        trainer *t = made(s, cases[i][0], cases[i][1], 1);
        assert_int_equal(trainer_chunk(t), cases[i][2]);
        trainer_free(t);
    }
    trainer *t = made(s, SAMPLES, PART, 1);
    step_result result;
    narrow(s, 0, 27);
    assert_fails(trainer_step(t, &s->b, NULL, NULL, &result, err), RUNG_EARGUMENT,
                 "a multiple of 16");
    trainer_free(t);
    end(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(running_ones_follow_the_mean_of_the_parts),
        cmocka_unit_test(parts_are_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
