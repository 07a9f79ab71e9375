/* The modes that need no data. */
#include "api/handles.h"

#include "api/options.h"
#include "base/mem.h"
#include "quant/quant.h"

typedef rung_status (*quantize_fn)(const graph *g, const rung_quant_options *opt, graph **out,
                                   diagnostics *diag, rung_error *err);

static rung_status check_options(const rung_quant_options *o, bool weights, rung_error *err)
{
    const int b = o->weight_bits ? o->weight_bits : 8;
    if (o->n_exclude < 0 || o->n_ops < 0 || (o->n_exclude && !o->exclude) || (o->n_ops && !o->ops))
        return fail(err, RUNG_EARGUMENT, "names are counted but not given");
    if (b != 8 && (b != 4 || !weights))
        return fail(err, RUNG_EARGUMENT, "weights of %d bits: %s", b,
                    weights ? "4 or 8 are possible" : "dynamic quantization has 8");
    if (!weights && (o->block || o->weight_asymmetric))
        return fail(err, RUNG_EARGUMENT, "dynamic quantization has no blocks or zero points of "
                    "weights");
    if (weights && o->per_tensor)
        return fail(err, RUNG_EARGUMENT, "weight-only quantization has a scale per channel or "
                    "block, not per tensor");
    if (o->block && (o->block < 16 || o->block > 256 || (o->block & (o->block - 1))))
        return fail(err, RUNG_EARGUMENT, "blocks of %d: 16, 32, 64, 128 or 256 are possible",
                    o->block);
    preprocess parsed;
    return preprocess_parse(o->preprocess, &parsed, err);
}

static rung_status quantize(const rung_model *model, const rung_quant_options *options,
                            quantize_fn run, rung_model **out, rung_diagnostics **remarks,
                            rung_error *err)
{
    rung_quant_options opt;
    graph *g = NULL;
    rung_status st;
    if (remarks)
        *remarks = NULL;
    if (!model || !out)
        return fail(err, RUNG_EARGUMENT, "rung_quantize: model and out must not be NULL");
    if ((st = options_copy(&opt, sizeof opt, options, "rung_quant_options", err)) != RUNG_OK ||
        (st = check_options(&opt, run == quantize_weights, err)) != RUNG_OK)
        return st;
    diagnostics *diag = diagnostics_new();
    rung_model *m = mem_zero(1, sizeof *m);
    if (!diag || !m) {
        st = fail_memory(err, "a quantized model", sizeof *m);
        goto done;
    }
    if ((st = run(model->g, &opt, &g, diag, err)) != RUNG_OK)
        goto done;
    if (opt.preprocess &&
        (st = graph_set_metadata(g, "rung.preprocess", opt.preprocess, err)) != RUNG_OK)
        goto done;
    m->g = g;
    *out = m;
    m = NULL;
    g = NULL;
done:
    graph_free(g);
    mem_free(m);
    if (remarks)
        *remarks = diag; /* after a failure too: it may say why */
    else
        diagnostics_free(diag);
    return st;
}

rung_status rung_quantize_dynamic(const rung_model *model, const rung_quant_options *options,
                                  rung_model **out, rung_diagnostics **remarks, rung_error *err)
{
    return quantize(model, options, quantize_dynamic, out, remarks, err);
}

rung_status rung_quantize_weights(const rung_model *model, const rung_quant_options *options,
                                  rung_model **out, rung_diagnostics **remarks, rung_error *err)
{
    return quantize(model, options, quantize_weights, out, remarks, err);
}
