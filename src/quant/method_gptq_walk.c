/* GPTQ of a weight-only model: group after group, each on what the model feeds it whose weights
 * before it are rounded already. Memory: the rows and sums of one group. */
#include <math.h>
#include <string.h>

#include "base/progress.h"
#include "graph/pass.h"
#include "quant/rounding.h"

enum { ROWS = 8192, MOST_INPUTS = 2304 };

typedef struct walk {
    graph                    *work; /* the float graph, its weights replaced by what codes mean */
    const samples            *s;
    const rung_quant_options *opt;
    dtype                     type;
    size_t                    block;
    arena                    *mem; /* of the result */
    block_codes              *rounded;
    diagnostics              *diag;
} walk;

/* The weight becomes what its codes stand for. */
static rung_status replace(const walk *w, const product_group *p, int v, const tensor *real,
                           rung_error *err)
{
    const tensor *old = w->work->values[v].constant;
    tensor *t = tensor_copy(w->work->mem, old);
    bool transposed = false;
    if (!t)
        return fail_memory(err, "a rounded weight", tensor_count(old) * sizeof(float));
    for (size_t i = 0; i < p->n_nodes; i++) {
        const node *n = &w->work->nodes[p->nodes[i]];
        transposed |= n->inputs[1] == v && node_is(n, "Gemm") && node_int(n, "transB", 0);
    }
    const size_t in = (size_t)real->dims[0], out = (size_t)real->dims[1];
    const float *from = real->data;
    float *to = t->data;
    for (size_t i = 0; i < in; i++)
        for (size_t o = 0; o < out; o++)
            to[transposed ? o * in + i : i * out + o] = from[i * out + o];
    w->work->values[v].constant = t;
    return RUNG_OK;
}

static rung_status round_weight(const walk *w, const product_group *p, int v, const float *h,
                                const float *check, arena *mem, rung_error *err)
{
    tensor *real = group_weight(w->work, p, v, mem);
    if (!real)
        return fail_memory(err, "a weight", p->in * sizeof(float));
    const matrix_format m = { .in = p->in, .out = (size_t)real->dims[1],
                              .block = w->block ? w->block : p->in,
                              .f = block_format_of(w->type, true) };
    block_codes c;
    double before, after;
    float *d = arena_alloc(mem, m.in * m.out * sizeof *d);
    if (!d || !block_codes_new(w->mem, &m, &c))
        return fail_memory(err, "codes of a weight", m.in * m.out * sizeof *d);
    const rung_status st = gptq_matrix(real, &m, h, check, w->s->n_threads, &c, &before, &after,
                                       err);
    if (st != RUNG_OK)
        return st;
    const char *name = w->work->values[v].name;
    if (after < before) {
        w->rounded[v] = c;
        diagnose(w->diag, "method", name, "gptq: error of its outputs %.2f dB lower on samples "
                 "kept apart", 10 * log10(before / after));
    } else {
        diagnose(w->diag, "method-undone", name, "gptq: rounding to the nearest is best here");
    }
    block_codes_change(real->data, &m, &c, d);
    for (size_t i = 0; i < m.in * m.out; i++)
        ((float *)real->data)[i] += d[i];
    return replace(w, p, v, real, err);
}

static rung_status round_group(const walk *w, const product_group *p, arena *mem, rung_error *err)
{
    group_rows rows;
    if (p->in > MOST_INPUTS) {
        diagnose(w->diag, "method-undone", w->work->values[p->ws[0]].name,
                 "gptq: %zu inputs are more than the %d it takes", p->in, MOST_INPUTS);
        return RUNG_OK;
    }
    rung_status st = group_collect(w->work, p, w->s, ROWS, w->opt->seed, mem, &rows, err);
    if (st != RUNG_OK || !rows.n)
        return st;
    const float *h = rows_moments(&rows, 0, rows.n_fit, w->s->n_threads, mem);
    const float *check = rows_moments(&rows, rows.n_fit, rows.n, w->s->n_threads, mem);
    if (!h || !check)
        return fail_memory(err, "sums of squares", p->in * p->in * sizeof *h);
    for (size_t i = 0; i < p->n_ws && st == RUNG_OK; i++)
        st = round_weight(w, p, p->ws[i], h, check, mem, err);
    return st;
}

rung_status methods_gptq_blocks(const graph *g, const samples *s, const rung_quant_options *opt,
                                const bool *wanted, dtype type, size_t block, arena *mem,
                                block_codes *rounded, diagnostics *diag, rung_error *err)
{
    walk w = { .s = s, .opt = opt, .type = type, .block = block, .mem = mem, .rounded = rounded,
               .diag = diag };
    arena *scratch = arena_new();
    value_info *info = scratch ? arena_zero(scratch, g->n_values + 1, sizeof *info) : NULL;
    product_group *groups = NULL;
    size_t n = 0;
    progress bar;
    rung_status st = info ? graph_clone(g, &w.work, err)
                          : fail_memory(err, "rounding", g->n_values * sizeof *info);
    if (st == RUNG_OK)
        st = graph_infer(w.work, NULL, scratch, info, err);
    if (st == RUNG_OK)
        st = groups_find(w.work, info, wanted, scratch, &groups, &n, err);
    progress_begin(&bar, "rounding", "groups", n, opt->quiet);
    for (size_t i = 0; i < n && st == RUNG_OK; i++) {
        arena *own = arena_new();
        st = own ? round_group(&w, &groups[i], own, err) : fail_memory(err, "rounding", sizeof w);
        arena_free(own);
        progress_step(&bar, 1);
    }
    progress_end(&bar);
    graph_free(w.work);
    arena_free(scratch);
    return st;
}
