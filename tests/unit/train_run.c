/* The tape on whole models, for tests/model/training_test.py.
 *
 *     train_run gradients MODEL DIR float|frozen NAME=FILE.npy ...
 *
 * writes DIR/y_I.npy for output I, and from dL/doutput I in DIR/dy_I.npy the gradient of each
 * parameter to DIR/grad_K.npy and moved running statistics to DIR/state_K.npy, and prints a line
 * "K <tab> name" for each. float: BatchNormalization by the batch's statistics.
 *
 *     train_run deployed MODEL DIR BITS STEPS FILE.npy [QCONFIG]
 *
 * prepares the model with FILE.npy as data, trains STEPS steps on its first samples with random
 * gradients of the outputs, and prints after each how many bytes of the outputs differ from those
 * of the converted model, written, read and run anew. With a QCONFIG scales are observed, and the
 * parameters are those of the graph of the observers.
 *
 *     train_run observed MODEL DIR QCONFIG BATCH FILE.npy
 *
 * prepares the model with FILE.npy as data, shows it the batches of FILE.npy one after the other,
 * whereby weights grow by a twentieth in each step, and prints before each step and after the last
 * "STEP <tab> NAME <tab> ZERO <tab> SCALE ..." for each pair, NAME being what it quantizes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/mem.h"
#include "base/rng.h"
#include "data/npy.h"
#include "engine/engine.h"
#include "graph/rewrite.h"
#include "onnx/onnx.h"
#include "quant/qat.h"
#include "train/observe.h"
#include "train/tape.h"

typedef struct session {
    arena  *mem;
    graph  *g;
    params *p;
    tape   *t;
    observers *o; /* NULL: none */
    tensor *inputs;
    const int64_t **dims;
    float  *data, *grad;
} session;

/* As a trainer does: weights behind an Identity are weights. */
static rung_status read_model(session *s, const char *path, rung_error *err)
{
    rung_status st = onnx_read_file(path, &s->g, err);
    if (st == RUNG_OK)
        st = rewrite_upgrade(s->g, err);
    if (st == RUNG_OK)
        st = rewrite_remove_identities(s->g, err);
    return st == RUNG_OK ? rewrite_fold_constants(s->g, err) : st;
}

static rung_status read_inputs(session *s, int n, char **args, rung_error *err)
{
    s->inputs = arena_zero(s->mem, (size_t)s->g->n_inputs + 1, sizeof *s->inputs);
    s->dims = arena_zero(s->mem, (size_t)s->g->n_inputs + 1, sizeof *s->dims);
    if (!s->inputs || !s->dims)
        return fail_memory(err, "inputs", 1);
    for (int i = 0; i < s->g->n_inputs; i++) {
        const char *name = s->g->values[s->g->inputs[i]].name;
        const size_t length = strlen(name);
        for (int k = 0; k < n; k++) {
            if (strncmp(args[k], name, length) != 0 || args[k][length] != '=')
                continue;
            const rung_status st = npy_read_file(args[k] + length + 1, s->mem, &s->inputs[i], err);
            if (st != RUNG_OK)
                return st;
            s->dims[i] = s->inputs[i].dims;
        }
        if (!s->dims[i] || s->inputs[i].type != s->g->values[s->g->inputs[i]].type)
            return fail(err, RUNG_EARGUMENT, "no file for input '%s', or of another type", name);
    }
    return RUNG_OK;
}

static rung_status make_tape(session *s, bool batch_stats, rung_error *err)
{
    const tape_options opt = {.batch = (size_t)s->inputs[0].dims[0], .input_dims = s->dims,
                              .n_threads = 2, .batch_stats = batch_stats,
                              .learn_act_scales = !s->o, .learn_weight_scales = !s->o,
                              .observe = s->o ? observers_watched(s->o) : NULL};
    rung_status st = s->o ? RUNG_OK : params_create(s->g, &s->p, err);
    if (st == RUNG_OK)
        st = tape_create(s->o ? observers_graph(s->o) : s->g, s->p, &opt, &s->t, err);
    if (st != RUNG_OK)
        return st;
    s->data = arena_copy(s->mem, s->p->data, s->p->total * sizeof(float));
    s->grad = arena_zero(s->mem, s->p->total, sizeof(float));
    if (!s->data || !s->grad)
        return fail_memory(err, "parameters", s->p->total);
    for (int i = 0; i < tape_n_inputs(s->t); i++) {
        const tensor *to = tape_input(s->t, i);
        memcpy(to->data, s->inputs[i].data, dtype_bytes(to->type, tensor_count(to)));
    }
    return RUNG_OK;
}

static void end(session *s)
{
    tape_free(s->t);
    params_free(s->p);
    observers_free(s->o);
    graph_free(s->g);
    arena_free(s->mem);
}

/* --- gradients -------------------------------------------------------------------------------- */

static rung_status write_numbers(const session *s, const char *dir, const char *kind, size_t k,
                                 const float *data, rung_error *err)
{
    const param *p = &s->p->list[k];
    tensor t = *s->g->values[p->value].constant;
    t.data = (void *)(uintptr_t)(data + p->first);
    const char *path = arena_printf(s->mem, "%s/%s_%zu.npy", dir, kind, k);
    printf("%s\t%zu\t%s\n", kind, k, p->name);
    return path ? npy_write_file(path, &t, err) : fail_memory(err, "a path", 1);
}

static rung_status outputs(const session *s, const char *dir, rung_error *err)
{
    rung_status st = RUNG_OK;
    for (int i = 0; i < tape_n_outputs(s->t) && st == RUNG_OK; i++) {
        const char *y = arena_printf(s->mem, "%s/y_%d.npy", dir, i);
        const char *dy = arena_printf(s->mem, "%s/dy_%d.npy", dir, i);
        tensor given;
        if (!y || !dy)
            return fail_memory(err, "a path", 1);
        st = npy_write_file(y, tape_output(s->t, i), err);
        if (st == RUNG_OK)
            st = npy_read_file(dy, s->mem, &given, err);
        if (st == RUNG_OK)
            memcpy(tape_output_grad(s->t, i), given.data, tensor_count(&given) * sizeof(float));
    }
    return st;
}

static rung_status gradients(session *s, int argc, char **argv, rung_error *err)
{
    const char *dir = argv[3];
    rung_status st = read_model(s, argv[2], err);
    if (st == RUNG_OK)
        st = read_inputs(s, argc - 5, argv + 5, err);
    if (st == RUNG_OK)
        st = make_tape(s, strcmp(argv[4], "float") == 0, err);
    float *state = st == RUNG_OK ? arena_copy(s->mem, s->data, s->p->total * sizeof *state) : NULL;
    if (st == RUNG_OK)
        st = tape_forward(s->t, s->data, true, state, err);
    if (st == RUNG_OK)
        st = outputs(s, dir, err);
    if (st == RUNG_OK)
        st = tape_backward(s->t, s->data, s->grad, err);
    for (size_t k = 0; st == RUNG_OK && k < s->p->n; k++) {
        const bool moves = s->p->list[k].kind == PARAM_STATE;
        st = write_numbers(s, dir, moves ? "state" : "grad", k, moves ? state : s->grad, err);
    }
    return st;
}

/* --- deployed --------------------------------------------------------------------------------- */

static rung_status prepare_model(session *s, const char *file, int bits, const char *qconfig,
                                 rung_error *err)
{
    const dataset_options data_opt = {.n_workers = 1};
    rung_quant_options opt = RUNG_QUANT_OPTIONS;
    graph *made = NULL;
    dataset *d = NULL;
    diagnostics *diag = diagnostics_new();
    opt.quiet = true;
    opt.methods = RUNG_METHOD_NONE;
    opt.weight_bits = opt.act_bits = bits;
    opt.qconfig = qconfig;
    rung_status st = diag ? RUNG_OK : fail_memory(err, "remarks", 1);
    if (st == RUNG_OK)
        st = dataset_open(arena_printf(s->mem, "npy:%s", file), &data_opt, &d, err);
    if (st == RUNG_OK)
        st = qat_prepare(s->g, d, &opt, &made, diag, err);
    if (st == RUNG_OK) {
        graph_free(s->g);
        s->g = made;
    }
    if (st == RUNG_OK && qconfig)
        st = observers_create(s->g, &s->o, &s->p, err);
    dataset_free(d);
    diagnostics_free(diag);
    return st;
}

/* The converted model as a user has it: a file, read and run. */
static rung_status deploy(const session *s, const char *dir, size_t *differing, rung_error *err)
{
    const float *const *by_value;
    graph *g = NULL, *again = NULL;
    engine *e = NULL;
    const char *path = arena_printf(s->mem, "%s/converted.onnx", dir);
    const engine_options opt = {.n_threads = 2, .input_dims = s->dims};
    rung_status st = params_by_value(s->p, s->data, s->mem, &by_value, err);
    const graph *prepared = s->o ? observers_graph(s->o) : s->g;
    if (st != RUNG_OK || (st = qat_convert(prepared, by_value, &g, err)) != RUNG_OK ||
        (st = onnx_write_file(g, path, false, err)) != RUNG_OK ||
        (st = onnx_read_file(path, &again, err)) != RUNG_OK ||
        (st = engine_create(again, &opt, &e, err)) != RUNG_OK)
        goto done;
    for (int i = 0; i < engine_n_inputs(e); i++)
        memcpy(engine_input(e, i)->data, tape_input(s->t, i)->data,
               tensor_count(tape_input(s->t, i)) * sizeof(float));
    st = engine_run(e, err);
    *differing = 0;
    for (int i = 0; i < engine_n_outputs(e) && st == RUNG_OK; i++) {
        const unsigned char *a = engine_output(e, i)->data, *b = tape_output(s->t, i)->data;
        const size_t n = tensor_count(engine_output(e, i)) * sizeof(float);
        for (size_t k = 0; k < n; k++)
            *differing += a[k] != b[k];
    }
done:
    engine_free(e);
    graph_free(again);
    graph_free(g);
    return st;
}

/* A step of normalized length; scales keep their sign. */
static void descend(session *s, double rate)
{
    double norm = 0, length = 0;
    for (size_t i = 0; i < s->p->total; i++) {
        norm += (double)s->grad[i] * s->grad[i];
        length += (double)s->data[i] * s->data[i];
    }
    const double step = rate * sqrt(length / (norm + 1e-30));
    for (size_t k = 0; k < s->p->n; k++) {
        const param *p = &s->p->list[k];
        const bool scale = p->kind == PARAM_ACT_SCALE || p->kind == PARAM_WEIGHT_SCALE;
        for (size_t i = p->first; i < p->first + p->count; i++) {
            const double most = scale ? 0.02 * s->data[i] : INFINITY;
            s->data[i] -= (float)fmin(fmax(step * s->grad[i], -most), most);
        }
    }
    memset(s->grad, 0, s->p->total * sizeof *s->grad);
}

static rung_status deployed(session *s, int argc, char **argv, rung_error *err)
{
    const int bits = atoi(argv[4]), steps = atoi(argv[5]);
    rng r;
    rng_seed(&r, 1);
    rung_status st = read_model(s, argv[2], err);
    if (st == RUNG_OK)
        st = prepare_model(s, argv[6], bits, argc > 7 ? argv[7] : NULL, err);
    char *named = st == RUNG_OK
                      ? arena_printf(s->mem, "%s=%s", s->g->values[s->g->inputs[0]].name, argv[6])
                      : NULL;
    if (st == RUNG_OK)
        st = read_inputs(s, 1, &named, err);
    if (st == RUNG_OK)
        st = make_tape(s, false, err);
    for (int step = 0; step < steps && st == RUNG_OK; step++) {
        size_t differing = 0;
        st = tape_forward(s->t, s->data, true, NULL, err);
        if (st == RUNG_OK)
            st = deploy(s, argv[3], &differing, err);
        for (int i = 0; i < tape_n_outputs(s->t) && st == RUNG_OK; i++)
            for (size_t k = 0; k < tensor_count(tape_output(s->t, i)); k++)
                tape_output_grad(s->t, i)[k] = rng_normal(&r);
        if (st == RUNG_OK)
            st = tape_backward(s->t, s->data, s->grad, err);
        descend(s, 0.002);
        if (s->o)
            observers_step(s->o, tape_seen(s->t), s->data, NULL);
        printf("step\t%d\t%zu\n", step, differing);
    }
    return st;
}

/* --- observed --------------------------------------------------------------------------------- */

static void print_pairs(const session *s, size_t step)
{
    const graph *g = observers_graph(s->o);
    for (size_t i = 0; i < g->n_nodes; i++) {
        const node *n = &g->nodes[i];
        if (strcmp(n->op_type, "QuantizeLinear") != 0)
            continue;
        const param *scale = &s->p->list[s->p->at[n->inputs[1]]];
        const int zero = s->p->at[n->inputs[2]];
        printf("%zu\t%s\t%g\t", step, g->values[n->inputs[0]].name,
               zero < 0 ? 0 : (double)s->data[s->p->list[zero].first]);
        for (size_t k = 0; k < scale->count; k++)
            printf("%s%.9g", k ? " " : "", (double)s->data[scale->first + k]);
        printf("\n");
    }
}

static void grow_weights(session *s)
{
    for (size_t i = 0; i < s->p->n; i++) {
        const param *p = &s->p->list[i];
        for (size_t k = p->first; p->kind == PARAM_WEIGHT && k < p->first + p->count; k++)
            s->data[k] *= 1.05f;
    }
}

static rung_status observed(session *s, char **argv, rung_error *err)
{
    const size_t samples = (size_t)atoi(argv[5]);
    rung_status st = read_model(s, argv[2], err);
    if (st == RUNG_OK)
        st = prepare_model(s, argv[6], 8, argv[4], err);
    char *named = st == RUNG_OK
                      ? arena_printf(s->mem, "%s=%s", s->g->values[s->g->inputs[0]].name, argv[6])
                      : NULL;
    if (st == RUNG_OK)
        st = read_inputs(s, 1, &named, err);
    if (st != RUNG_OK)
        return st;
    tensor *x = &s->inputs[0];
    const size_t steps = (size_t)x->dims[0] / samples;
    x->dims[0] = (int64_t)samples;
    const size_t size = tensor_count(x);
    st = make_tape(s, false, err);
    for (size_t step = 0; step < steps && st == RUNG_OK; step++) {
        memcpy(tape_input(s->t, 0)->data, (float *)x->data + step * size, size * sizeof(float));
        memset(tape_output_grad(s->t, 0), 0, tensor_count(tape_output(s->t, 0)) * sizeof(float));
        print_pairs(s, step);
        if ((st = tape_forward(s->t, s->data, true, NULL, err)) == RUNG_OK)
            st = tape_backward(s->t, s->data, s->grad, err);
        grow_weights(s);
        observers_step(s->o, tape_seen(s->t), s->data, NULL);
    }
    print_pairs(s, steps);
    return st;
}

int main(int argc, char **argv)
{
    rung_error err = {""};
    session s = {.mem = arena_new()};
    rung_status st = RUNG_EARGUMENT;
    if (argc >= 6 && strcmp(argv[1], "gradients") == 0)
        st = gradients(&s, argc, argv, &err);
    else if ((argc == 7 || argc == 8) && strcmp(argv[1], "deployed") == 0)
        st = deployed(&s, argc, argv, &err);
    else if (argc == 7 && strcmp(argv[1], "observed") == 0)
        st = observed(&s, argv, &err);
    if (st != RUNG_OK)
        fprintf(stderr, "train_run: %s\n", err.message);
    end(&s);
    return st == RUNG_OK ? 0 : 1;
}
