/* What both models and their layers take of a sample's time. */
#include "base/mem.h"
#include "measure/compare_parts.h"
#include "measure/turns.h"

static void take_times(model_record *m, const turns *t, int model)
{
    m->median_ms = turns_ms(t, model, 0.5);
    m->p10_ms = turns_ms(t, model, 0.1);
    m->p90_ms = turns_ms(t, model, 0.9);
}

rung_status compare_latency(comparison *c, const graph *reference, const graph *g, const batch *b,
                            double seconds, int n_threads, rung_error *err)
{
    const graph *const models[] = { reference, g };
    turns *t = mem_zero(1, sizeof *t);
    rung_status st = t ? turns_measure(models, 2, b, seconds, n_threads, t, err)
                       : fail_memory(err, "run times", sizeof *t);
    if (st == RUNG_OK) {
        take_times(&c->reference, t, 0);
        take_times(&c->model, t, 1);
        c->speedup = turns_ratio(t, 0, 1, 0.5);
        c->latency_rounds = t->n;
        c->threads = t->threads;
    }
    mem_free(t);
    return st;
}

rung_status compare_layer_times(comparison *c, const graph *reference, const graph *g,
                                const batch *b, int n_threads, rung_error *err)
{
    layer_times real = { 0 }, integer = { 0 };
    rung_status st = layer_times_measure(reference, b, n_threads, &real, err);
    if (st == RUNG_OK)
        st = layer_times_measure(g, b, n_threads, &integer, err);
    c->macs = integer.macs;
    for (size_t i = 0; i < c->n_tensors && st == RUNG_OK; i++) {
        tensor_record *t = &c->tensors[i];
        const layer_time now = layer_times_of(&integer, t->node);
        t->macs = now.macs;
        t->int8_ms = now.ms;
        t->float_ms = layer_times_of(&real, t->node).ms;
    }
    layer_times_free(&real);
    layer_times_free(&integer);
    return st;
}
