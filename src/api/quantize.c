#include "api/handles.h"

#include "api/checks.h"
#include "api/options.h"
#include "base/mem.h"
#include "quant/qat.h"
#include "report/mixed.h"

typedef enum mode { STATIC, PREPARE, DYNAMIC, WEIGHTS } mode;

struct rung_mixed {
    mixed_record *m;
};

/* What the modes work on: data may be NULL for all but STATIC, wish (NULL: none) with its record
 * too. */
typedef struct job {
    mode              mode;
    const graph      *g;
    dataset          *data;
    const mixed_wish *wish;
    mixed_record    **record;
} job;

enum {
    STATIC_METHODS = RUNG_METHOD_NONE | RUNG_METHOD_EQUALIZE | RUNG_METHOD_BIAS | RUNG_METHOD_CLIP |
                     RUNG_METHOD_ADAROUND | RUNG_METHOD_GPTQ | RUNG_METHOD_SMOOTH |
                     RUNG_METHOD_TAIL | RUNG_METHOD_ABSORB,
    DYNAMIC_METHODS = RUNG_METHOD_NONE | RUNG_METHOD_SMOOTH,
    WEIGHT_METHODS = RUNG_METHOD_NONE | RUNG_METHOD_GPTQ | RUNG_METHOD_AWQ | RUNG_METHOD_HQQ,
};

static rung_status check_static(const rung_quant_options *o, rung_error *err)
{
    if (o->range > RUNG_RANGE_MSE)
        return fail(err, RUNG_EARGUMENT, "range %d is not a rung_range", (int)o->range);
    if (!(o->percentile >= 0 && o->percentile <= 100))
        return fail(err, RUNG_EARGUMENT, "percentile %g is not within 0 to 100", o->percentile);
    const bool wide = o->act_type == RUNG_U16 || o->act_type == RUNG_I16;
    if (o->act_type != 0 && o->act_type != RUNG_U8 && o->act_type != RUNG_I8 && !wide)
        return fail(err, RUNG_EARGUMENT, "activations can be uint8, int8, uint16 or int16, not %s",
                    dtype_name(o->act_type));
    if (o->methods & ~(unsigned)STATIC_METHODS)
        return fail(err, RUNG_EARGUMENT, "methods %#x are not those of static quantization",
                    o->methods);
    if (o->pairs > RUNG_PAIRS_LAYERS)
        return fail(err, RUNG_EARGUMENT, "pairs %d is not a rung_pairs", (int)o->pairs);
    if (o->weight_bits && (o->weight_bits < 2 || o->weight_bits > 8))
        return fail(err, RUNG_EARGUMENT, "weights of %d bits: 2 to 8 are possible", o->weight_bits);
    if (o->act_bits && (o->act_bits < 2 || o->act_bits > 8))
        return fail(err, RUNG_EARGUMENT, "activations of %d bits: 2 to 8 are possible",
                    o->act_bits);
    if (o->act_bits && wide)
        return fail(err, RUNG_EARGUMENT, "activations of %d bits are of type uint8 or int8, not %s",
                    o->act_bits, dtype_name(o->act_type));
    if ((o->act_affine && o->act_symmetric) || (o->per_channel && o->per_tensor) ||
        (o->full_range && o->reduce_range))
        return fail(err, RUNG_EARGUMENT, "options that exclude each other: act_affine and "
                    "act_symmetric, per_channel and per_tensor, or full_range and reduce_range");
    if (o->n_threads < 0 || o->batch < 0 || o->n_exclude < 0 || o->n_ops < 0)
        return fail(err, RUNG_EARGUMENT,
                    "numbers of threads, samples and names must not be negative");
    return RUNG_OK;
}

/* Methods of the modes that can do without data. */
static rung_status check_methods(const rung_quant_options *o, bool weights, rung_error *err)
{
    const unsigned possible = weights ? WEIGHT_METHODS : DYNAMIC_METHODS;
    const unsigned looking = RUNG_METHOD_SMOOTH | RUNG_METHOD_GPTQ | RUNG_METHOD_AWQ;
    if (o->methods & ~possible)
        return fail(err, RUNG_EARGUMENT, "methods %#x: %s quantization has %s", o->methods,
                    weights ? "weight-only" : "dynamic", weights ? "gptq, awq and hqq" : "smooth");
    if (o->methods & looking && !o->samples_of)
        return fail(err, RUNG_EARGUMENT, "%s needs samples to look at activations",
                    weights ? "gptq or awq" : "smooth");
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
    return check_methods(o, weights, err);
}

static bool is_static(mode m)
{
    return m == STATIC || m == PREPARE;
}

static rung_status check_options(mode m, const rung_quant_options *o, rung_error *err)
{
    const rung_status st = is_static(m) ? check_static(o, err)
                                        : check_dataless(o, m == WEIGHTS, err);
    if (st != RUNG_OK)
        return st;
    if (o->n_exclude < 0 || o->n_ops < 0 || (o->n_exclude && !o->exclude) || (o->n_ops && !o->ops))
        return fail(err, RUNG_EARGUMENT, "names are counted but not given");
    preprocess parsed;
    return preprocess_parse(o->preprocess, &parsed, err);
}

rung_status quant_options_check(const rung_quant_options *o, rung_error *err)
{
    return check_options(STATIC, o, err);
}

static rung_status run(const job *j, const rung_quant_options *opt, graph **out,
                       diagnostics *diag, rung_error *err)
{
    rung_status st;
    switch (j->mode) {
    case DYNAMIC: st = quantize_dynamic(j->g, j->data, opt, out, diag, err); break;
    case WEIGHTS: st = quantize_weights(j->g, j->data, opt, out, diag, err); break;
    case PREPARE: st = qat_prepare(j->g, j->data, opt, out, diag, err); break;
    default:
        st = j->wish ? quantize_mixed(j->g, j->data, opt, j->wish, out, j->record, diag, err)
                     : quantize_static(j->g, j->data, opt, out, diag, err);
    }
    return st == RUNG_OK && opt->preprocess
               ? graph_set_metadata(*out, "rung.preprocess", opt->preprocess, err)
               : st;
}

static rung_status quantize(const job *j, const rung_quant_options *opt, rung_model **out,
                            rung_diagnostics **remarks, rung_error *err)
{
    graph *g = NULL;
    rung_status st = check_options(j->mode, opt, err);
    if (st != RUNG_OK)
        return st;
    diagnostics *diag = diagnostics_new();
    if (!diag) {
        st = fail_memory(err, "remarks", 1);
        goto done;
    }
    if ((st = run(j, opt, &g, diag, err)) == RUNG_OK)
        st = model_wrap(g, out, err);
    else
        graph_free(g);
done:
    if (remarks)
        *remarks = diag; /* after a failure too: it may say why */
    else
        diagnostics_free(diag);
    return st;
}

/* data: of STATIC only. */
static rung_status quantize_plain(mode m, const rung_model *model, const rung_dataset *data,
                                  const rung_quant_options *options, rung_model **out,
                                  rung_diagnostics **remarks, rung_error *err)
{
    rung_quant_options opt;
    if (remarks)
        *remarks = NULL;
    if (!model || !out || (is_static(m) && !data))
        return fail(err, RUNG_EARGUMENT, "rung_quantize: model%s and out must not be NULL",
                    is_static(m) ? ", data" : "");
    const rung_status st = options_copy(&opt, sizeof opt, options, "rung_quant_options", err);
    data = is_static(m) ? data : opt.samples_of;
    const job j = { .mode = m, .g = model->g, .data = data ? data->d : NULL };
    return st == RUNG_OK ? quantize(&j, &opt, out, remarks, err) : st;
}

rung_status rung_quantize_static(const rung_model *model, rung_dataset *data,
                                 const rung_quant_options *options, rung_model **out,
                                 rung_diagnostics **remarks, rung_error *err)
{
    return quantize_plain(STATIC, model, data, options, out, remarks, err);
}

rung_status rung_prepare_qat(const rung_model *model, rung_dataset *data,
                             const rung_quant_options *options, rung_model **out,
                             rung_diagnostics **remarks, rung_error *err)
{
    return quantize_plain(PREPARE, model, data, options, out, remarks, err);
}

rung_status rung_quantize_dynamic(const rung_model *model, const rung_quant_options *options,
                                  rung_model **out, rung_diagnostics **remarks, rung_error *err)
{
    return quantize_plain(DYNAMIC, model, NULL, options, out, remarks, err);
}

rung_status rung_quantize_weights(const rung_model *model, const rung_quant_options *options,
                                  rung_model **out, rung_diagnostics **remarks, rung_error *err)
{
    return quantize_plain(WEIGHTS, model, NULL, options, out, remarks, err);
}

/* --- mixed precision -------------------------------------------------------------------------- */

rung_status rung_quantize_mixed(const rung_model *model, rung_dataset *data, rung_dataset *eval,
                                const rung_quant_options *options, rung_model **out,
                                rung_mixed **mixed, rung_diagnostics **remarks, rung_error *err)
{
    rung_quant_options opt;
    rung_status st;
    if (remarks)
        *remarks = NULL;
    if (!model || !data || !out || !mixed)
        return fail(err, RUNG_EARGUMENT,
                    "rung_quantize_mixed: model, data, out and mixed must not be NULL");
    if ((st = options_copy(&opt, sizeof opt, options, "rung_quant_options", err)) != RUNG_OK)
        return st;
    if (opt.ranks)
        return fail(err, RUNG_EARGUMENT, "rung_quantize_mixed works in one process: its options "
                    "have ranks");
    if (!(opt.max_drop >= 0 && opt.max_drop <= 100))
        return fail(err, RUNG_EARGUMENT, "a drop of %g points: 0 to 100 are possible",
                    opt.max_drop);
    rung_mixed *made = mem_zero(1, sizeof *made);
    if (!made)
        return fail_memory(err, "a record", sizeof *made);
    const mixed_wish wish = { .eval = eval ? eval->d : NULL, .max_drop = opt.max_drop,
                              .fastest = opt.fastest };
    const job j = { .mode = STATIC, .g = model->g, .data = data->d, .wish = &wish,
                    .record = &made->m };
    if ((st = quantize(&j, &opt, out, remarks, err)) == RUNG_OK) {
        *mixed = made;
        made = NULL;
    }
    rung_mixed_free(made);
    return st;
}

bool rung_mixed_met(const rung_mixed *mixed)
{
    return mixed && (!mixed->m->budgeted || mixed->m->met);
}

rung_status rung_mixed_text(const rung_mixed *mixed, bool json, char **text, rung_error *err)
{
    if (!mixed || !text)
        return fail(err, RUNG_EARGUMENT, "rung_mixed_text: mixed and text must not be NULL");
    return json ? report_mixed_json(mixed->m, text, err) : report_mixed_text(mixed->m, text, err);
}

void rung_mixed_free(rung_mixed *mixed)
{
    if (!mixed)
        return;
    mixed_record_free(mixed->m);
    mem_free(mixed);
}
