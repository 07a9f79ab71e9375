/* SmoothQuant as the modes use it, and what static quantization puts pairs at. */
#include <omp.h>
#include <string.h>

#include "base/mem.h"
#include "graph/pass.h"
#include "quant/rescale.h"

/* A matrix product: with a weight, or of two activations. */
static bool is_matrix_product(const node *n)
{
    return !n->dead && (node_is(n, "MatMul") || node_is(n, "Gemm"));
}

/* Most layers are products, and there is attention among them: a product of two activations beside
 * a Softmax. Sums of a residual stream, means and Softmax lose much by 8 bits with one scale, and
 * have little work to be saved. */
static bool is_attention(const graph *g)
{
    size_t weighted = 0, convs = 0, products = 0, softmaxes = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const node *n = &g->nodes[i];
        const bool constant = node_constant(g, n, 0) || node_constant(g, n, 1);
        weighted += is_matrix_product(n) && constant;
        products += is_matrix_product(n) && !constant;
        convs += !n->dead && node_is(n, "Conv");
        softmaxes += !n->dead && node_is(n, "Softmax");
    }
    return products && softmaxes && weighted > convs;
}

void settle_pairs(const graph *g, bool preset, rung_quant_options *opt)
{
    if (opt->pairs == RUNG_PAIRS_AUTO)
        opt->pairs = !preset && is_attention(g) ? RUNG_PAIRS_LAYERS : RUNG_PAIRS_ALL;
}

rung_status smooth_products(graph **g, dataset *data, const rung_quant_options *opt, bool *wanted,
                            bool may_add, diagnostics *diag, rung_error *err)
{
    samples s = { 0 };
    size_t n = 0;
    rung_status st = samples_load(*g, data, opt, &s, err);
    if (st == RUNG_OK && s.n < 2)
        diagnose(diag, "method-undone", "smooth", "all samples are in one batch: none are left to "
                 "check with; give more, or a smaller --batch");
    s.n_threads = s.n_threads > 0 ? s.n_threads : omp_get_num_procs();
    if (st == RUNG_OK && s.n > 1)
        st = methods_smooth(g, &s, opt, wanted, may_add, diag, &n, err);
    samples_free(&s);
    return st;
}

rung_status smooth_static(graph **g, dataset *data, rung_quant_options *opt, diagnostics *diag,
                          rung_error *err)
{
    const bool layers = opt->pairs == RUNG_PAIRS_LAYERS, named = opt->methods & RUNG_METHOD_SMOOTH;
    if (!named && !(layers && opt->methods == RUNG_METHOD_AUTO))
        return RUNG_OK;
    opt->methods &= ~(unsigned)RUNG_METHOD_SMOOTH;
    if (named && !opt->methods)
        opt->methods = RUNG_METHOD_NONE;
    const size_t n_nodes = (*g)->n_nodes;
    bool *wanted = mem_zero(n_nodes + 1, sizeof *wanted);
    if (!wanted)
        return fail_memory(err, "smoothing", n_nodes);
    for (size_t i = 0; i < n_nodes; i++)
        wanted[i] = is_matrix_product(&(*g)->nodes[i]) && options_allow(opt, &(*g)->nodes[i]);
    const rung_status st = smooth_products(g, data, opt, wanted, layers, diag, err);
    mem_free(wanted);
    return st;
}
