#include "measure/measure.h"

#include "api/handles.h"
#include "api/options.h"
#include "base/mem.h"
#include "report/report.h"

rung_status rung_eval(const rung_model *model, const rung_model *reference, rung_dataset *data,
                      const rung_eval_options *options, rung_eval_result *result, char **detail,
                      rung_error *err)
{
    rung_eval_options opt;
    rung_status st;
    if (!model || !data || !result)
        return fail(err, RUNG_EARGUMENT, "rung_eval: model, data and result must not be NULL");
    if ((st = options_copy(&opt, sizeof opt, options, "rung_eval_options", err)) != RUNG_OK)
        return st;
    const int n = model->g->n_outputs;
    output_sqnr *sqnr = mem_zero((size_t)n + 1, sizeof *sqnr);
    if (!sqnr)
        return fail_memory(err, "errors of outputs", (size_t)n * sizeof *sqnr);
    st = measure_eval(model->g, reference ? reference->g : NULL, data->d, &opt, result, sqnr, err);
    if (st == RUNG_OK && detail)
        st = report_sqnr(sqnr, reference ? n : 0, detail, err);
    mem_free(sqnr);
    return st;
}

typedef struct profile_request {
    char **text;
    rung_status st;
    rung_error *err;
} profile_request;

static void take_profile(void *ctx, const engine *e)
{
    profile_request *p = ctx;
    p->st = report_profile(e, p->text, p->err);
}

rung_status rung_bench(const rung_model *model, const rung_bench_options *options,
                       rung_bench_result *result, char **text, rung_error *err)
{
    rung_bench_options opt;
    rung_status st;
    profile_request profile = {text, RUNG_OK, err};
    if (!model || !result)
        return fail(err, RUNG_EARGUMENT, "rung_bench: model and result must not be NULL");
    if ((st = options_copy(&opt, sizeof opt, options, "rung_bench_options", err)) != RUNG_OK)
        return st;
    st = measure_bench(model->g, &opt, result, text && opt.profile ? take_profile : NULL, &profile,
                       err);
    return st == RUNG_OK ? profile.st : st;
}
