#include "api/handles.h"

#include "api/options.h"
#include "base/mem.h"
#include "quant/quant.h"

static rung_status check_options(const rung_quant_options *o, rung_error *err)
{
    if (o->range > RUNG_RANGE_MSE)
        return fail(err, RUNG_EARGUMENT, "range %d is not a rung_range", (int)o->range);
    if (!(o->percentile >= 0 && o->percentile <= 100))
        return fail(err, RUNG_EARGUMENT, "percentile %g is not within 0 to 100", o->percentile);
    if (o->act_type != 0 && o->act_type != RUNG_U8 && o->act_type != RUNG_I8)
        return fail(err, RUNG_EARGUMENT, "activations can be uint8 or int8, not %s",
                    dtype_name(o->act_type));
    if (o->methods >= 2 * RUNG_METHOD_GPTQ)
        return fail(err, RUNG_EARGUMENT, "methods %#x are not of rung_method", o->methods);
    if (o->weight_bits && (o->weight_bits < 2 || o->weight_bits > 8))
        return fail(err, RUNG_EARGUMENT, "weights of %d bits: 2 to 8 are possible", o->weight_bits);
    if (o->act_bits && (o->act_bits < 2 || o->act_bits > 8))
        return fail(err, RUNG_EARGUMENT, "activations of %d bits: 2 to 8 are possible",
                    o->act_bits);
    if ((o->act_affine && o->act_symmetric) || (o->per_channel && o->per_tensor) ||
        (o->full_range && o->reduce_range))
        return fail(err, RUNG_EARGUMENT, "options that exclude each other: act_affine and "
                    "act_symmetric, per_channel and per_tensor, or full_range and reduce_range");
    if (o->n_threads < 0 || o->batch < 0 || o->n_exclude < 0 || o->n_ops < 0)
        return fail(err, RUNG_EARGUMENT,
                    "numbers of threads, samples and names must not be negative");
    if ((o->n_exclude && !o->exclude) || (o->n_ops && !o->ops))
        return fail(err, RUNG_EARGUMENT, "names are counted but not given");
    preprocess parsed;
    return preprocess_parse(o->preprocess, &parsed, err);
}

rung_status rung_quantize_static(const rung_model *model, rung_dataset *data,
                                 const rung_quant_options *options, rung_model **out,
                                 rung_diagnostics **remarks, rung_error *err)
{
    rung_quant_options opt;
    graph *g = NULL;
    rung_status st;
    if (!model || !data || !out)
        return fail(err, RUNG_EARGUMENT,
                    "rung_quantize_static: model, data and out must not be NULL");
    if ((st = options_copy(&opt, sizeof opt, options, "rung_quant_options", err)) != RUNG_OK ||
        (st = check_options(&opt, err)) != RUNG_OK)
        return st;
    rung_diagnostics *diag = diagnostics_new();
    rung_model *m = mem_zero(1, sizeof *m);
    if (!diag || !m) {
        st = fail_memory(err, "a quantized model", sizeof *m);
        goto done;
    }
    if ((st = quantize_static(model->g, data->d, &opt, &g, diag, err)) != RUNG_OK)
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
