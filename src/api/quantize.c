#include "api/handles.h"

#include "api/options.h"
#include "base/mem.h"
#include "quant/quant.h"

typedef enum mode { STATIC, DYNAMIC, WEIGHTS } mode;

static rung_status check_static(const rung_quant_options *o, rung_error *err)
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
    return RUNG_OK;
}

/* Of the modes that need no data. */
static rung_status check_dataless(const rung_quant_options *o, bool weights, rung_error *err)
{
    const int b = o->weight_bits ? o->weight_bits : 8;
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
    return RUNG_OK;
}

static rung_status check_options(mode m, const rung_quant_options *o, rung_error *err)
{
    const rung_status st = m == STATIC ? check_static(o, err)
                                       : check_dataless(o, m == WEIGHTS, err);
    if (st != RUNG_OK)
        return st;
    if (o->n_exclude < 0 || o->n_ops < 0 || (o->n_exclude && !o->exclude) || (o->n_ops && !o->ops))
        return fail(err, RUNG_EARGUMENT, "names are counted but not given");
    preprocess parsed;
    return preprocess_parse(o->preprocess, &parsed, err);
}

static rung_status run(mode m, const graph *g, const rung_dataset *data,
                       const rung_quant_options *opt, graph **out, diagnostics *diag,
                       rung_error *err)
{
    const rung_status st = m == STATIC    ? quantize_static(g, data->d, opt, out, diag, err)
                           : m == DYNAMIC ? quantize_dynamic(g, opt, out, diag, err)
                                          : quantize_weights(g, opt, out, diag, err);
    return st == RUNG_OK && opt->preprocess
               ? graph_set_metadata(*out, "rung.preprocess", opt->preprocess, err)
               : st;
}

/* data: of STATIC only. */
static rung_status quantize(mode m, const rung_model *model, const rung_dataset *data,
                            const rung_quant_options *options, rung_model **out,
                            rung_diagnostics **remarks, rung_error *err)
{
    rung_quant_options opt;
    graph *g = NULL;
    rung_status st;
    if (remarks)
        *remarks = NULL;
    if (!model || !out || (m == STATIC && !data))
        return fail(err, RUNG_EARGUMENT, "rung_quantize: model%s and out must not be NULL",
                    m == STATIC ? ", data" : "");
    if ((st = options_copy(&opt, sizeof opt, options, "rung_quant_options", err)) != RUNG_OK ||
        (st = check_options(m, &opt, err)) != RUNG_OK)
        return st;
    diagnostics *diag = diagnostics_new();
    rung_model *made = mem_zero(1, sizeof *made);
    if (!diag || !made) {
        st = fail_memory(err, "a quantized model", sizeof *made);
        goto done;
    }
    if ((st = run(m, model->g, data, &opt, &g, diag, err)) != RUNG_OK)
        goto done;
    made->g = g;
    *out = made;
    made = NULL;
    g = NULL;
done:
    graph_free(g);
    mem_free(made);
    if (remarks)
        *remarks = diag; /* after a failure too: it may say why */
    else
        diagnostics_free(diag);
    return st;
}

rung_status rung_quantize_static(const rung_model *model, rung_dataset *data,
                                 const rung_quant_options *options, rung_model **out,
                                 rung_diagnostics **remarks, rung_error *err)
{
    return quantize(STATIC, model, data, options, out, remarks, err);
}

rung_status rung_quantize_dynamic(const rung_model *model, const rung_quant_options *options,
                                  rung_model **out, rung_diagnostics **remarks, rung_error *err)
{
    return quantize(DYNAMIC, model, NULL, options, out, remarks, err);
}

rung_status rung_quantize_weights(const rung_model *model, const rung_quant_options *options,
                                  rung_model **out, rung_diagnostics **remarks, rung_error *err)
{
    return quantize(WEIGHTS, model, NULL, options, out, remarks, err);
}
