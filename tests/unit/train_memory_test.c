/* Each allocation of a trainer fails in turn: a status, nothing leaks, nothing has moved. */
#include "train_kit.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "quant/qat.h"
#include "train/augment.h"
#include "train/trainer.h"

enum { SAMPLES = 8, SAMPLE = 3 * 8 * 8, MOST = 20000 /* allocations: more are a loop */ };

typedef struct setting {
    graph      *g;
    float       x[SAMPLES * SAMPLE];
    int64_t     labels[SAMPLES];
    batch_input input;
    batch       b;
} setting;

static setting begin(void)
{
    setting s = { 0 };
    rng r;
    rng_seed(&r, 5);
    s.g = net_residual(&r);
    for (int i = 0; i < SAMPLES * SAMPLE; i++)
        s.x[i] = rng_normal(&r);
    for (int i = 0; i < SAMPLES; i++)
        s.labels[i] = i % 5;
    return s;
}

/* Into place once s is where it stays. */
static void point(setting *s)
{
    s->input = (batch_input){ "", { RUNG_F32, 4, { SAMPLES, 3, 8, 8 }, s->x } };
    s->b = (batch){ .n = SAMPLES, .n_inputs = 1, .inputs = &s->input, .labels = s->labels };
}

static trainer_options usual(void)
{
    return (trainer_options){
        .optimizer = { .kind = OPTIMIZER_ADAMW, .rate = 0.01f, .beta1 = 0.9f, .beta2 = 0.999f,
                       .epsilon = 1e-8f, .ema = 0.9f, .total = 10 },
        .loss = { .cross_entropy = 1, .distill = 1, .temperature = 2 }, .batch = SAMPLES,
        .chunk = 4, .n_threads = 2, .batch_stats = true,
    };
}

static void making_one(void **state)
{
    (void)state;
    setting s = begin();
    const trainer_options opt = usual();
    rung_status st = RUNG_EMEMORY;
    long n = 0;
    for (; st == RUNG_EMEMORY && n < MOST; n++) {
        trainer *t = NULL;
        rung_error why = { "" };
        mem_fail_after(n);
        st = trainer_create(s.g, s.g, &opt, &t, &why);
        mem_fail_after(-1);
        assert_true(st == RUNG_OK || st == RUNG_EMEMORY);
        assert_true((t != NULL) == (st == RUNG_OK));
        if (st != RUNG_OK)
            assert_non_null(strstr(why.message, "memory"));
        trainer_free(t);
    }
    assert_int_equal(st, RUNG_OK);
    assert_true(n > 20);
    graph_free(s.g);
}

/* The first step makes what lanes need; it can be taken again. */
static void stepping(void **state)
{
    (void)state;
    setting s = begin();
    const trainer_options opt = usual();
    trainer *t;
    step_result result;
    rung_status st = RUNG_EMEMORY;
    point(&s);
    assert_ok(trainer_create(s.g, s.g, &opt, &t, err));
    const params *p = trainer_params(t);
    const size_t size = p->total * sizeof *p->data;
    float *before = malloc(size);
    assert_non_null(before);
    memcpy(before, p->data, size);
    long n = 0;
    for (; st == RUNG_EMEMORY && n < MOST; n++) {
        assert_memory_equal(before, p->data, size);
        mem_fail_after(n);
        st = trainer_step(t, &s.b, NULL, NULL, &result, NULL);
        mem_fail_after(-1);
        assert_true(st == RUNG_OK || st == RUNG_EMEMORY);
    }
    assert_int_equal(st, RUNG_OK);
    assert_true(n > 1);
    assert_memory_not_equal(before, p->data, size);
    free(before);
    trainer_free(t);
    graph_free(s.g);
}

static void what_comes_out(void **state)
{
    (void)state;
    setting s = begin();
    const trainer_options opt = usual();
    trainer *t;
    rung_status st = RUNG_EMEMORY;
    assert_ok(trainer_create(s.g, s.g, &opt, &t, err));
    for (long n = 0; st == RUNG_EMEMORY && n < MOST; n++) {
        graph *g = NULL;
        mem_fail_after(n);
        st = trainer_graph(t, trainer_weights(t), false, &g, NULL);
        mem_fail_after(-1);
        assert_true(st == RUNG_OK || st == RUNG_EMEMORY);
        graph_free(g);
    }
    assert_int_equal(st, RUNG_OK);
    trainer_free(t);
    graph_free(s.g);
}

static void augmentation(void **state)
{
    (void)state;
    setting s = begin();
    const augment_options opt = { .crop = 1, .flip = true, .cutout = 2, .mixup = 1 };
    const size_t samples[SAMPLES] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    rung_status st = RUNG_EMEMORY;
    point(&s);
    for (long n = 0; st == RUNG_EMEMORY && n < MOST; n++) {
        augmenter *a = NULL;
        const batch *out;
        const int64_t *mixed;
        const float *share;
        mem_fail_after(n);
        st = augmenter_create(&opt, 1, &a, NULL);
        if (st == RUNG_OK)
            st = augmenter_run(a, &s.b, samples, 0, &out, &mixed, &share, NULL);
        mem_fail_after(-1);
        assert_true(st == RUNG_OK || st == RUNG_EMEMORY);
        augmenter_free(a);
    }
    assert_int_equal(st, RUNG_OK);
    graph_free(s.g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(making_one),
        cmocka_unit_test(stepping),
        cmocka_unit_test(what_comes_out),
        cmocka_unit_test(augmentation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
