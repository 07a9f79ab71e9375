/* What each layer does to the network's output when it alone computes in integers. Its output is
 * there already, from the run with each layer alone; the float network is run on from there. The
 * float values of all other quantized tensors up to the layer are inputs of that run, so that
 * nothing in front of the layer is computed again.
 *
 * Why alone, and not what the quantized network gains when this layer alone is left float: errors
 * of different layers are nearly independent and add up, so the sum over the quantized layers
 * predicts a mixed network. The gain of one float layer does not: it hides behind the errors of all
 * others, and a range that two neighbours suffer from is gained only when both are float.
 * docs/methods.md has figures: close where few layers are float, far better where many are. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "graph/rewrite.h"
#include "measure/compare_parts.h"
#include "measure/scores.h"

size_t compare_elements(const tensor *t, const tensor *in, size_t n)
{
    const size_t all = tensor_count(t);
    const size_t samples = !in ? 1 : in->rank > 0 ? (size_t)in->dims[0] : n;
    if (n >= samples)
        return all;
    return t->rank > 0 && (size_t)t->dims[0] == samples ? all / samples * n : 0;
}

/* The float network behind a layer. */
typedef struct rest {
    graph         *g;
    engine        *e;
    int           *pair_of; /* by value id of g: the pair that this input stands for, -1: none */
    const int64_t **dims;   /* by input */
    size_t         n_values;
} rest;

static const tensor *float_value(const effects_run *run, size_t i)
{
    return engine_output(run->reference, run->shown[i]);
}

static bool is_unused(const uses *u, int v)
{
    return u->first[v] == u->first[v + 1];
}

/* Outputs that do not depend on what node `at` makes are dropped. */
static void keep_outputs_behind(graph *g, int at)
{
    int kept = 0;
    for (int o = 0; o < g->n_outputs; o++) {
        const int v = g->outputs[o];
        if (g->values[v].producer > at)
            g->outputs[kept++] = v;
        else
            g->values[v].is_output = false;
    }
    g->n_outputs = kept;
}

static rung_status drop_unused_inputs(graph *g, rung_error *err)
{
    arena *mem = arena_new();
    uses u;
    const rung_status st = mem ? graph_uses(g, mem, &u, err)
                               : fail_memory(err, "a network's rest", sizeof u);
    int kept = 0;
    for (int i = 0; i < g->n_inputs && st == RUNG_OK; i++) {
        const int v = g->inputs[i];
        if (is_unused(&u, v))
            g->values[v].is_input = false;
        else
            g->inputs[kept++] = v;
    }
    if (st == RUNG_OK)
        g->n_inputs = kept;
    arena_free(mem);
    return st;
}

/* Who reads pair j's value reads a new input instead. */
static rung_status feed(rest *r, const pairing *p, size_t j, const tensor *like, rung_error *err)
{
    const int v = graph_add_value(r->g, "exact", RUNG_F32, like->rank, like->dims);
    if (v < 0)
        return fail_memory(err, "a network's rest", sizeof(value));
    graph_replace_uses(r->g, p->pairs[j].match, v);
    r->pair_of[v] = (int)j;
    return graph_mark_input(r->g, v, err);
}

/* Everything behind pair i; its value, and those of pairs made no later, are inputs. */
static rung_status cut(rest *r, const comparison *c, const pairing *p, const effects_run *run,
                       size_t i, rung_error *err)
{
    rung_status st = graph_clone(p->reference, &r->g, err);
    if (st != RUNG_OK)
        return st;
    const int at = r->g->values[p->pairs[i].match].producer;
    r->n_values = r->g->n_values + c->n_tensors;
    r->pair_of = mem_alloc(r->n_values * sizeof *r->pair_of);
    if (!r->pair_of)
        return fail_memory(err, "a network's rest", r->n_values * sizeof *r->pair_of);
    memset(r->pair_of, -1, r->n_values * sizeof *r->pair_of);
    st = feed(r, p, i, float_value(run, i), err);
    for (size_t j = 0; j < c->n_tensors && st == RUNG_OK; j++)
        if (j != i && r->g->values[p->pairs[j].match].producer <= at)
            st = feed(r, p, j, float_value(run, j), err);
    if (st != RUNG_OK)
        return st;
    keep_outputs_behind(r->g, at);
    if ((st = rewrite_remove_dead(r->g, err)) != RUNG_OK)
        return st;
    return drop_unused_inputs(r->g, err);
}

/* The reference's input of that id. */
static const tensor *own_input(const pairing *p, const effects_run *run, int v)
{
    for (int k = 0; k < p->reference->n_inputs; k++)
        if (p->reference->inputs[k] == v)
            return engine_input(run->reference, k);
    return NULL;
}

static const tensor *source_of(const rest *r, const pairing *p, const effects_run *run, int input)
{
    const int v = r->g->inputs[input];
    return r->pair_of[v] >= 0 ? float_value(run, (size_t)r->pair_of[v]) : own_input(p, run, v);
}

static rung_status make_engine(rest *r, const pairing *p, const effects_run *run, rung_error *err)
{
    r->dims = mem_zero((size_t)r->g->n_inputs + 1, sizeof *r->dims);
    if (!r->dims)
        return fail_memory(err, "input shapes", (size_t)r->g->n_inputs * sizeof *r->dims);
    for (int k = 0; k < r->g->n_inputs; k++)
        r->dims[k] = source_of(r, p, run, k)->dims;
    const engine_options opt = { .n_threads = run->n_threads, .input_dims = r->dims };
    return engine_create(r->g, &opt, &r->e, err);
}

/* The layer's integer output on the scale of the float model. */
static void feed_alone(const tensor_record *t, const tensor *alone, float *to)
{
    const size_t count = tensor_count(alone);
    size_t inner = 1;
    for (int d = 2; d < alone->rank; d++)
        inner *= (size_t)alone->dims[d];
    memcpy(to, alone->data, count * sizeof *to);
    for (size_t k = 0; k < count && t->factors; k++)
        to[k] /= t->factors[k / inner % t->channels];
}

static void feed_all(const rest *r, const comparison *c, const pairing *p, const effects_run *run,
                     size_t i)
{
    for (int k = 0; k < r->g->n_inputs; k++) {
        const tensor *from = source_of(r, p, run, k), *to = engine_input(r->e, k);
        if (r->pair_of[r->g->inputs[k]] == (int)i)
            feed_alone(&c->tensors[i], engine_output(run->alone, run->alone_shown[i]), to->data);
        else
            memcpy(to->data, from->data, dtype_bytes(to->type, tensor_count(to)));
    }
}

/* --- figures ---------------------------------------------------------------------------------- */

static double squared_errors(const tensor *x, const tensor *y, size_t n)
{
    double sum = 0;
    for (size_t k = 0; k < n && x->type != RUNG_STRING; k++) {
        const double d = tensor_get(x, k) - tensor_get(y, k);
        sum += d * d;
    }
    return sum;
}

static size_t used_of(const effects_run *run, const tensor *t)
{
    const tensor *in = engine_n_inputs(run->reference) ? engine_input(run->reference, 0) : NULL;
    return compare_elements(t, in, run->n);
}

static bool has_decisions(const effects_run *run, const tensor *x)
{
    return is_scores(x) && (size_t)x->dims[0] >= run->n;
}

/* What y decides on the first samples, beside the float model's x and the labels. */
static void count_decisions(const effects_run *run, const tensor *x, const tensor *y, size_t *right,
                            size_t *changed)
{
    const size_t classes = (size_t)x->dims[1];
    for (size_t s = 0; s < run->n; s++) {
        const size_t a = arg_max((const float *)x->data + s * classes, classes);
        const size_t z = arg_max((const float *)y->data + s * classes, classes);
        *changed += a != z;
        *right += run->b->labels && run->b->labels[s] == (int64_t)z;
    }
}

/* y: what output o of the network is now. */
static void take_output(const effects_run *run, effect *of, int o, const tensor *y)
{
    const tensor *x = engine_output(run->reference, o);
    of->noise[o] += squared_errors(x, y, used_of(run, x));
    if (o == 0 && has_decisions(run, x))
        count_decisions(run, x, y, &of->right, &of->changed);
}

static int rest_output(const rest *r, int v)
{
    for (int o = 0; o < r->g->n_outputs; o++)
        if (r->g->outputs[o] == v)
            return o;
    return -1;
}

static void take_outputs(const rest *r, comparison *c, const pairing *p, const effects_run *run,
                         size_t i)
{
    for (int o = 0; o < c->n_outputs; o++) {
        const int v = p->reference->outputs[o], at = rest_output(r, v);
        const tensor *y = at >= 0 ? engine_output(r->e, at)
                          : v == p->pairs[i].match
                              ? engine_output(run->alone, run->alone_shown[i])
                              : engine_output(run->reference, o);
        take_output(run, &c->tensors[i].effect, o, y);
    }
}

/* --- all -------------------------------------------------------------------------------------- */

static rung_status take_layer(comparison *c, const pairing *p, const effects_run *run, size_t i,
                              rung_error *err)
{
    rest r = { 0 };
    rung_status st = cut(&r, c, p, run, i, err);
    if (st == RUNG_OK && r.g->n_outputs > 0) {
        if ((st = make_engine(&r, p, run, err)) == RUNG_OK) {
            feed_all(&r, c, p, run, i);
            st = engine_run(r.e, err);
        }
    }
    if (st == RUNG_OK)
        take_outputs(&r, c, p, run, i);
    engine_free(r.e);
    mem_free(r.dims);
    mem_free(r.pair_of);
    graph_free(r.g);
    return st;
}

static rung_status begin(comparison *c, rung_error *err)
{
    const size_t n = (size_t)c->n_outputs + 1;
    c->effect_signal = arena_zero(c->mem, n, sizeof *c->effect_signal);
    bool good = c->effect_signal != NULL;
    for (size_t i = 0; i < c->n_tensors && good; i++) {
        tensor_record *t = &c->tensors[i];
        if (!t->moves) {
            t->effect.noise = arena_zero(c->mem, n, sizeof *t->effect.noise);
            good = t->effect.noise != NULL;
        }
    }
    return good ? RUNG_OK : fail_memory(err, "effects of layers", n * sizeof(double));
}

/* What the float model gives on these samples. */
static void take_float(comparison *c, const effects_run *run)
{
    size_t changed = 0;
    for (int o = 0; o < c->n_outputs; o++) {
        const tensor *x = engine_output(run->reference, o);
        const size_t used = x->type == RUNG_STRING ? 0 : used_of(run, x);
        for (size_t k = 0; k < used; k++)
            c->effect_signal[o] += tensor_get(x, k) * tensor_get(x, k);
        if (o == 0 && has_decisions(run, x))
            count_decisions(run, x, x, &c->effect_right, &changed);
    }
    for (size_t s = 0; s < run->n && run->b->labels; s++)
        c->effect_labelled += run->b->labels[s] >= 0;
    c->effect_samples += run->n;
}

rung_status compare_effects(comparison *c, const pairing *p, const effects_run *run,
                            rung_error *err)
{
    rung_status st = c->effect_signal ? RUNG_OK : begin(c, err);
    if (st == RUNG_OK)
        take_float(c, run);
    for (size_t i = 0; i < c->n_tensors && st == RUNG_OK; i++)
        if (c->tensors[i].effect.noise)
            st = take_layer(c, p, run, i, err);
    return st;
}
